"""A statistical model on dirty input: trained here on 25 variables, and one that was pickled elsewhere and imported."""

from __future__ import annotations

import gzip
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd

from podium.local.acceptance import AcceptanceEnvironment
from podium.tables.readers import read_table
from projects.offers import outside
from projects.offers.data import LEVELS, MONEY, NUMBERS, PERCENT, VARIABLES, offers

HERE = Path(__file__).parent
TRAINED, ASKED = 40_000, 10_000


def accept(scene: AcceptanceEnvironment) -> None:
    table = offers(TRAINED, seed=0)
    scene.put("raw/offers.csv.gz", gzip.compress(table.to_csv(index=False).encode(), 1))
    scene.figure("pipeline_seconds", scene.train())
    scene.serve()
    _recovered(scene)
    later = offers(ASKED, seed=1)
    _many(scene, later)
    rows = later.drop(columns="y").head(24).to_dict("records")
    scene.check_formats_agree(rows)
    one = scene.client.post_json(f"{scene.path}?inputs=true", rows[0] | _numbers(rows[0])).json()["predictions"][0]
    names = list(one["inputs"])
    scene.check(
        names == sorted(names) and set(one) == {"prediction", "probabilities", "inputs"},
        f"an answer holds class {one['prediction']}, probabilities and {len(names)} inputs sorted by name",
    )
    scene.record_summary(f"generated, {TRAINED:,} × 100, stated truth", rows[0] | _numbers(rows[0]))
    _from_outside(scene, table, later)


def _numbers(row: dict[str, str]) -> dict[str, float]:
    """The plain numbers of a row as JSON numbers."""
    plain = [name for name in row if name not in {*MONEY, *PERCENT, "x5", "x31", "x81", "x93", "x99"}]
    return {name: float(row[name]) if row[name] else None for name in plain}  # type: ignore[misc]


def _recovered(scene: AcceptanceEnvironment) -> None:
    """The variables of the truth, and their weights, as the GLM found them."""
    manifest = scene.manifest()
    key = f"versions/offers/{manifest['version']}/models/glm.pkl"
    model = pickle.loads(scene.context.store.read(key).data)
    truth = {**NUMBERS, **MONEY, **PERCENT, **{f"{name} = {level}": weight for (name, level), weight in LEVELS.items()}}
    truth = {name: weight for name, weight in truth.items() if weight}
    found = dict(zip(model.encoder.names, model.scorer.weights[0], strict=True))
    both = truth.keys() & found.keys()
    scene.check(len(both) == VARIABLES == len(found), f"{len(both)} of the {VARIABLES} variables of the truth were selected")
    unit = {**dict.fromkeys(MONEY, 1000), **dict.fromkeys(PERCENT, 15)}
    off = {name: abs(found[name] - truth[name] * unit.get(name, 1)) for name in both & {*NUMBERS, *MONEY, *PERCENT}}
    scene.check(
        max(off.values()) < 0.06, f"their weights a standard deviation differ from the truth by {max(off.values()):.3f}"
    )


def _many(scene: AcceptanceEnvironment, later: pd.DataFrame) -> None:
    """A file of 10,000 records; how many classes are right, beside what the truth itself would reach."""
    answer = scene.client.post_file("/projects/offers/batch.csv", later.drop(columns="y").to_csv(index=False).encode())
    if answer.status == 202:
        place = answer.headers["Location"]
        scene.client.wait_until(lambda: scene.client.get(place).json()["state"] == "done", 60)
        answer = scene.client.get(f"{place}/result.csv")
    said = read_table(answer.body).column("prediction").to_pylist()
    right = sum(int(one) == truth for one, truth in zip(said, later["y"], strict=True)) / len(later)
    scene.check(len(said) == ASKED and right > 0.7, f"{ASKED:,} dirty records as a file: {right:.1%} right")


def _from_outside(scene: AcceptanceEnvironment, table: pd.DataFrame, later: pd.DataFrame) -> None:
    """The other model takes the same dirty records: how they are written is seen from a sample."""
    rows, file = scene.folder / "rows.csv", scene.folder / "outside.pkl"
    table.to_csv(rows, index=False)
    subprocess.run([sys.executable, str(HERE / "outside.py"), str(rows), str(file)], check=True)
    later.head(2000).to_csv(rows, index=False)
    given = AcceptanceEnvironment("offers-given", scene.cloud, scene.folder, scene.report)  # needs no project file
    facts = given.import_and_promote(file, "given", "--sample", str(rows), "--target", "y", "--classes", "0,1")["data"]
    scene.check(
        facts["kind"] == "statsmodels" and facts["largest_difference"] < 1e-9,
        f"a Logit pickled elsewhere, imported: differs by {facts['largest_difference']:.1g} on {facts['compared']} rows",
    )
    given.wait_until_deployed()
    some = later.head(400).reset_index(drop=True)
    clean = outside.by_hand(pd.read_csv(io.StringIO(some.to_csv(index=False))))
    original = pickle.loads(file.read_bytes()).predict(clean).tolist()
    records = some.loc[clean.index].drop(columns="y").to_csv(index=False).encode()
    answer = scene.client.post(given.path, records, {"content-type": "text/csv"}).json()
    chances = [row["probabilities"]["1"] for row in answer["predictions"]]
    off = max(abs(one - other) for one, other in zip(chances, original, strict=True))
    scene.check(off < 1e-9, f"{len(chances)} dirty records: what its author would say of cleaned ones, to {off:.1g}")
