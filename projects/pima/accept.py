"""Acceptance run: a project file, promotion gates, bare arrays as input, and a rejected version."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from datetime import UTC, datetime

from podium.local.acceptance import AcceptanceEnvironment
from projects.pima.data import table

ARRAY = [6, 148, 72, 35, 0, 33.6, 0.627, 50]


def accept(env: AcceptanceEnvironment) -> None:
    env.put("raw/pima.csv", table())
    env.figure("pipeline_seconds", env.train())
    history = env.podium("models", "history", "pima")
    manifest = env.manifest()
    version = str(manifest["version"])
    created = datetime.strptime(version[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    env.check(abs((datetime.now(UTC) - created).total_seconds()) < 600, f"the version name has the date and time: {version}")
    env.check("promote" in history.lower(), "promoted after passing its gates; the history has the reason")
    gates = re.findall(r'"name": "([a-z-]+)"', env.podium("models", "history", "pima", "--json"))
    env.check({"min-score", "latency", "golden-rows"} <= set(gates), f"gates: {', '.join(sorted(set(gates)))}")
    nullable = {column["name"]: column["nullable"] for column in manifest["signature"]["inputs"]}
    env.check(nullable["TwoHourSerIns"] and not nullable["NumTimesPrg"], "zeros are missing values in the configured columns")
    env.serve()
    by_project, default = env.client.post_json(env.path, ARRAY), env.client.post_json("/predict", ARRAY)
    same = by_project.json()["predictions"] == default.json()["predictions"]
    env.check(default.status == 200 and same, f"POST /predict with {ARRAY}: {default.json()['predictions'][0]}")
    named = env.predict(dict(zip([c["name"] for c in manifest["signature"]["inputs"]], ARRAY, strict=True)))
    env.check(named == default.json()["predictions"][0], "named fields give the same prediction")
    url = f"http://127.0.0.1:{env.cloud.service_port}"
    arguments = ["predict", "--project", "pima", "--random", "5", "--seed", "1"]
    remote, local = env.podium(*arguments, "--url", url), env.podium(*arguments, "--local")
    env.check(remote == local and len(remote.splitlines()) == 6, "five random rows: service and local prediction agree")
    rows = list(csv.DictReader(io.StringIO(table().decode())))[:20]
    env.check_formats_agree([{name: cell for name, cell in row.items() if name != "target"} for row in rows])
    _check_rejection(env, version)
    env.record_summary("768 rows × 8, from PyPI's faraway", ARRAY)


def _check_rejection(env: AcceptanceEnvironment, version: str) -> None:
    """Train on shuffled targets: the gates reject the version, and the champion stays."""
    lines = table().decode().splitlines()
    targets = [line.rpartition(",")[2] for line in lines[1:]]
    shuffled = [f"{line.rpartition(',')[0]},{targets[row * 61 % len(targets)]}" for row, line in enumerate(lines[1:])]
    env.put("raw/pima.csv", "\n".join([lines[0], *shuffled, ""]).encode())
    env.train()
    outcome = env.podium("models", "list", "pima")
    env.check(
        f"{version} champion" in re.sub(" +", " ", outcome) and len(outcome.splitlines()) == 2,
        "a version trained on shuffled targets was rejected; the champion stays",
    )
    try:
        env.podium("models", "rollback", "pima", "--reason", "no earlier champion")
        rolled_back = True
    except subprocess.CalledProcessError:
        rolled_back = False
    env.check(not rolled_back and env.manifest()["version"] == version, "a rollback without an earlier champion fails")
