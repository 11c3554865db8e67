"""Store, test, promote, version: by a configuration file, with gates as tests, and bare arrays as input."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from datetime import UTC, datetime

from podium.local.acceptance import AcceptanceEnvironment
from projects.pima.data import table

ARRAY = [6, 148, 72, 35, 0, 33.6, 0.627, 50]


def accept(scene: AcceptanceEnvironment) -> None:
    scene.put("raw/pima.csv", table())
    scene.figure("pipeline_seconds", scene.train())
    history = scene.podium("models", "history", "pima")
    manifest = scene.manifest()
    version = str(manifest["version"])
    made = datetime.strptime(version[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    scene.check(abs((datetime.now(UTC) - made).total_seconds()) < 600, f"the version holds date and time: {version}")
    scene.check("promote" in history, "promoted after its gates; the history says why")
    gates = re.findall(r'"name": "([a-z-]+)"', scene.podium("models", "history", "pima", "--json"))
    scene.check({"min-score", "latency", "golden-rows"} <= set(gates), f"gates as tests: {', '.join(sorted(set(gates)))}")
    zeros = {column["name"]: column["nullable"] for column in manifest["signature"]["inputs"]}
    scene.check(zeros["TwoHourSerIns"] and not zeros["NumTimesPrg"], "zeros are missing values where the project says so")
    scene.serve()
    bare, answer = scene.client.post_json(scene.path, ARRAY), scene.client.post_json("/predict", ARRAY)
    same = bare.json()["predictions"] == answer.json()["predictions"]
    scene.check(answer.status == 200 and same, f"POST /predict with {ARRAY}: {answer.json()['predictions'][0]}")
    named = scene.predict(dict(zip([c["name"] for c in manifest["signature"]["inputs"]], ARRAY, strict=True)))
    scene.check(named == answer.json()["predictions"][0], "named fields give the same")
    url = f"http://127.0.0.1:{scene.cloud.service_port}"
    some = ["predict", "--project", "pima", "--random", "5", "--seed", "1"]
    remote, local = scene.podium(*some, "--url", url), scene.podium(*some, "--local")
    scene.check(remote == local and len(remote.splitlines()) == 6, "five random rows of the table: service and local agree")
    rows = list(csv.DictReader(io.StringIO(table().decode())))[:20]
    scene.check_formats_agree([{name: cell for name, cell in row.items() if name != "target"} for row in rows])
    _refused(scene, version)
    scene.record_summary("768 rows × 8, from PyPI's faraway", ARRAY)


def _refused(scene: AcceptanceEnvironment, version: str) -> None:
    """A model that learned from shuffled answers is turned away by its gates, and the champion stays."""
    lines = table().decode().splitlines()
    answers = [line.rpartition(",")[2] for line in lines[1:]]
    mixed = [f"{line.rpartition(',')[0]},{answers[place * 61 % len(answers)]}" for place, line in enumerate(lines[1:])]
    scene.put("raw/pima.csv", "\n".join([lines[0], *mixed, ""]).encode())
    scene.train()
    outcome = scene.podium("models", "list", "pima")
    scene.check(
        f"{version} champion" in re.sub(" +", " ", outcome) and len(outcome.splitlines()) == 2,
        "a version trained on shuffled answers was refused; the champion stays",
    )
    try:
        scene.podium("models", "rollback", "pima", "--reason", "nothing to go back to")
        gone = True
    except subprocess.CalledProcessError:
        gone = False
    scene.check(not gone and scene.manifest()["version"] == version, "a rollback without a version before says so")
