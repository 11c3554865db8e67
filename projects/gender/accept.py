"""A given model behind an API: fitted elsewhere, imported from its file, asked in every way."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import joblib

from podium.local.acceptance import AcceptanceEnvironment

HERE = Path(__file__).parent
ASKED = {"height": "176", "weight": "72.5", "shoe_size": "41"}


def accept(scene: AcceptanceEnvironment) -> None:
    subprocess.run([sys.executable, str(HERE / "train.py"), str(scene.folder)], check=True)
    file = scene.folder / "a_model.joblib"
    scene.check(file.exists(), f"a_model.joblib was written by plain scikit-learn, {file.stat().st_size} bytes")
    manifest = scene.import_and_promote(file, "the model that was given", "--sample", str(HERE / "people.csv"))
    facts = manifest["data"]
    scene.check(
        facts["largest_difference"] == 0.0,
        f"imported: the same bits as scikit-learn on {facts['compared']} rows",
    )
    scene.serve()
    answer = scene.client.get(scene.path + "?" + "&".join(f"{name}={value}" for name, value in ASKED.items()))
    said = answer.json()["predictions"][0]
    original = joblib.load(file)
    row = [[float(value) for value in ASKED.values()]]
    chances = dict(zip(original.classes_, original.predict_proba(row)[0].tolist(), strict=True))
    scene.check(answer.status == 200 and said["prediction"] == original.predict(row)[0], f"GET with fields: {said}")
    scene.check(said["probabilities"] == chances, "the probabilities are those of the file's own predict_proba")
    wrong = scene.client.get(f"{scene.path}?height=tall&weight=72.5&shoe_size=41")
    scene.check(wrong.status == 422 and "height" in wrong.text, "a height that is no number: 422, and which field it is")
    rows = [{name: row[name] for name in ASKED} for row in csv.DictReader((HERE / "people.csv").open())]
    scene.check_formats_agree(rows + [{**ASKED, "height": str(150 + 5 * place)} for place in range(9)])
    scene.record_summary(
        "11 rows, fitted outside; a_model.joblib imported", {name: float(value) for name, value in ASKED.items()}
    )
