"""Acceptance run: a statistical model on dirty input, trained here, and one fitted elsewhere and imported."""

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
TRAINING_ROWS, NEW_ROWS = 40_000, 10_000


def accept(env: AcceptanceEnvironment) -> None:
    table = offers(TRAINING_ROWS, seed=0)
    env.put("raw/offers.csv.gz", gzip.compress(table.to_csv(index=False).encode(), 1))
    env.figure("pipeline_seconds", env.train())
    env.serve()
    _check_coefficients(env)
    later = offers(NEW_ROWS, seed=1)
    _check_file(env, later)
    rows = later.drop(columns="y").head(24).to_dict("records")
    env.check_formats_agree(rows)
    prediction = env.client.post_json(f"{env.path}?inputs=true", rows[0] | _plain_numbers(rows[0])).json()["predictions"][0]
    names = list(prediction["inputs"])
    env.check(
        names == sorted(names) and set(prediction) == {"prediction", "probabilities", "inputs"},
        f"a response has class {prediction['prediction']}, probabilities and {len(names)} inputs sorted by name",
    )
    env.record_summary(f"generated, {TRAINING_ROWS:,} × 100, known coefficients", rows[0] | _plain_numbers(rows[0]))
    _check_import(env, table, later)


def _plain_numbers(row: dict[str, str]) -> dict[str, float]:
    """Return the plain numbers of a row as JSON numbers."""
    plain = [name for name in row if name not in {*MONEY, *PERCENT, "x5", "x31", "x81", "x93", "x99"}]
    return {name: float(row[name]) if row[name] else None for name in plain}  # type: ignore[misc]


def _check_coefficients(env: AcceptanceEnvironment) -> None:
    """Compare the variables and weights of the GLM with the known coefficients."""
    manifest = env.manifest()
    key = f"versions/offers/{manifest['version']}/models/glm.pkl"
    model = pickle.loads(env.context.store.read(key).data)
    truth = {**NUMBERS, **MONEY, **PERCENT, **{f"{name} = {level}": weight for (name, level), weight in LEVELS.items()}}
    truth = {name: weight for name, weight in truth.items() if weight}
    fitted = dict(zip(model.encoder.names, model.scorer.weights[0], strict=True))
    common = truth.keys() & fitted.keys()
    env.check(len(common) == VARIABLES == len(fitted), f"{len(common)} of the {VARIABLES} known variables were selected")
    unit = {**dict.fromkeys(MONEY, 1000), **dict.fromkeys(PERCENT, 15)}
    errors = {name: abs(fitted[name] - truth[name] * unit.get(name, 1)) for name in common & {*NUMBERS, *MONEY, *PERCENT}}
    env.check(
        max(errors.values()) < 0.06, f"their standardized weights differ from the known ones by {max(errors.values()):.3f}"
    )


def _check_file(env: AcceptanceEnvironment, later: pd.DataFrame) -> None:
    """Predict a file of 10,000 records and check the accuracy."""
    response = env.client.post_file("/projects/offers/batch.csv", later.drop(columns="y").to_csv(index=False).encode())
    if response.status == 202:
        job_url = response.headers["Location"]
        env.client.wait_until(lambda: env.client.get(job_url).json()["state"] == "done", 60)
        response = env.client.get(f"{job_url}/result.csv")
    predictions = read_table(response.body).column("prediction").to_pylist()
    accuracy = sum(int(prediction) == truth for prediction, truth in zip(predictions, later["y"], strict=True)) / len(later)
    env.check(len(predictions) == NEW_ROWS and accuracy > 0.7, f"{NEW_ROWS:,} dirty records as a file: {accuracy:.1%} correct")


def _check_import(env: AcceptanceEnvironment, table: pd.DataFrame, later: pd.DataFrame) -> None:
    """Import a model fitted elsewhere; a sample shows the number formats of the dirty records."""
    rows, file = env.folder / "rows.csv", env.folder / "outside.pkl"
    table.to_csv(rows, index=False)
    subprocess.run([sys.executable, str(HERE / "outside.py"), str(rows), str(file)], check=True)
    later.head(2000).to_csv(rows, index=False)
    given = AcceptanceEnvironment("offers-given", env.cloud, env.folder, env.report)  # without a project file
    facts = given.import_and_promote(file, "given", "--sample", str(rows), "--target", "y", "--classes", "0,1")["data"]
    env.check(
        facts["kind"] == "statsmodels" and facts["largest_difference"] < 1e-9,
        f"a Logit fitted elsewhere, imported: differs by {facts['largest_difference']:.1g} on {facts['compared']} rows",
    )
    given.wait_until_deployed()
    sample = later.head(400).reset_index(drop=True)
    clean = outside.clean_by_hand(pd.read_csv(io.StringIO(sample.to_csv(index=False))))
    original = pickle.loads(file.read_bytes()).predict(clean).tolist()
    records = sample.loc[clean.index].drop(columns="y").to_csv(index=False).encode()
    response = env.client.post(given.path, records, {"content-type": "text/csv"}).json()
    probabilities = [row["probabilities"]["1"] for row in response["predictions"]]
    difference = max(abs(a - b) for a, b in zip(probabilities, original, strict=True))
    env.check(difference < 1e-9, f"{len(probabilities)} dirty records: as the original on cleaned ones, to {difference:.1g}")
