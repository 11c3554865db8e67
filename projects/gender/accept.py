"""Acceptance run: a model fitted elsewhere, imported from its file and served."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import joblib

from podium.local.acceptance import AcceptanceEnvironment

HERE = Path(__file__).parent
RECORD = {"height": "176", "weight": "72.5", "shoe_size": "41"}


def accept(env: AcceptanceEnvironment) -> None:
    subprocess.run([sys.executable, str(HERE / "train.py"), str(env.folder)], check=True)
    file = env.folder / "a_model.joblib"
    env.check(file.exists(), f"a_model.joblib was written by plain scikit-learn, {file.stat().st_size} bytes")
    manifest = env.import_and_promote(file, "the given model", "--sample", str(HERE / "people.csv"))
    facts = manifest["data"]
    env.check(
        facts["largest_difference"] == 0.0,
        f"imported: same bits as scikit-learn on {facts['compared']} rows",
    )
    env.serve()
    response = env.client.get(env.path + "?" + "&".join(f"{name}={value}" for name, value in RECORD.items()))
    prediction = response.json()["predictions"][0]
    original = joblib.load(file)
    row = [[float(value) for value in RECORD.values()]]
    probabilities = dict(zip(original.classes_, original.predict_proba(row)[0].tolist(), strict=True))
    env.check(
        response.status == 200 and prediction["prediction"] == original.predict(row)[0],
        f"GET with query parameters: {prediction}",
    )
    env.check(prediction["probabilities"] == probabilities, "the probabilities equal those of predict_proba")
    invalid = env.client.get(f"{env.path}?height=tall&weight=72.5&shoe_size=41")
    env.check(invalid.status == 422 and "height" in invalid.text, "a height that is not a number: 422, naming the field")
    rows = [{name: row[name] for name in RECORD} for row in csv.DictReader((HERE / "people.csv").open())]
    env.check_formats_agree(rows + [{**RECORD, "height": str(150 + 5 * number)} for number in range(9)])
    env.record_summary(
        "11 rows, fitted elsewhere; a_model.joblib imported", {name: float(value) for name, value in RECORD.items()}
    )
