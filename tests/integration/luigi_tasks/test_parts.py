"""Tables of many files: workers share them, killed ones are replaced, and the results are the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from podium.inference.batch import predict_file
from podium.inference.parsed_rows import ParseOptions
from podium.inference.served_model import ServedModel, scores_here
from podium.local import LocalCloud
from podium.local.services import promotion_context
from podium.project import Project
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import PromotionContext
from podium.registry.validation import Validator
from podium.settings import ROOT
from tests import tables
from tests.conftest import publish_champion

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DAY = "2026-11-28"
OPTIONS: dict[str, Any] = {"data": "s3://podium/none", "families": ["linear"], "n_trials": 1}


@pytest.fixture(scope="module")
def context(own_cloud: LocalCloud, validator: Validator) -> PromotionContext:
    context = replace(promotion_context(own_cloud), validator=validator)
    publish_champion(context, tables.prices(), Project(name="prices", target="price", **OPTIONS))
    return context


def put_parts(context: PromotionContext, folder: str, count: int, rows: int) -> dict[str, bytes]:
    """Upload files with different rows; every third is Parquet."""
    parts = {}
    for number in range(count):
        frame = tables.prices(rows, seed=100 + number).drop(columns="price")
        file = io.BytesIO()
        frame.to_csv(file, index=False) if number % 3 else frame.to_parquet(file)
        key = f"big/{folder}/part-{number:03}.{'csv' if number % 3 else 'parquet'}"
        context.store.create(key, file.getvalue())
        parts[key] = file.getvalue()
    return parts


def start(cloud: LocalCloud, folder: str, *options: str) -> subprocess.Popen[str]:
    luigi = Path(sysconfig.get_path("scripts")) / "luigi"
    command = [str(luigi), "--module", "luigi_tasks", "PredictParts", "--project", "prices", "--date", DAY, "--local-scheduler"]
    source = ["--source", f"s3://podium/big/{folder}/"]
    environment = {**cloud.environment, "PODIUM_LOG_KEY": "", "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}
    return subprocess.Popen([*command, *source, *options], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE)


def prefix(folder: str) -> str:
    digest = hashlib.sha256(f"s3://podium/big/{folder}/".encode()).hexdigest()[:12]
    return f"predictions/prices/dt={DAY}/parts-{digest}/"


def expected(context: PromotionContext, parts: dict[str, bytes], folder: Path) -> set[str]:
    """Return the digests of the results that one process makes."""
    entry = read_champion(context.store, "prices", context.trust.promoters)
    assert entry and entry.champion and entry.manifest_sha256
    loaded = context.validator.load("prices", entry.champion, entry.manifest_sha256, context.fetch, context.trust.trainers)
    model, digests = ServedModel.of(entry, loaded), set()
    for data in parts.values():
        (folder / "table").write_bytes(data)
        chunks = predict_file(folder / "table", model, [model.champion], scores_here, ParseOptions(keep_extra=True))
        digests.add(hashlib.sha256(b"".join(chunk.csv for chunk in chunks)).hexdigest())
    return digests


def test_killed_workers_are_replaced_and_the_results_are_the_same_bytes(
    own_cloud: LocalCloud, context: PromotionContext, tmp_path: Path
) -> None:
    parts, store = put_parts(context, "many", 24, 20_000), context.store
    workers = [start(own_cloud, "many") for _ in range(2)]
    deadline = time.monotonic() + 90
    while len(store.names(f"{prefix('many')}receipts/", "")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in workers:
        with worker:
            worker.send_signal(signal.SIGKILL)
    written = store.names(f"{prefix('many')}receipts/", "")
    assert 3 <= len(written) < 24
    again = start(own_cloud, "many")
    output = again.communicate(timeout=200)[0]
    assert again.returncode == 0, output
    assert f"{24 * 20_000:,} rows of 24 files predicted" in output and "parts left" in output
    summary = json.loads(store.read(f"{prefix('many')}summary-1.json").data)
    assert (summary["rows"], summary["parts"], summary["problems"]) == (480_000, 24, [])
    assert {result["sha256"] for result in summary["results"]} == expected(context, parts, tmp_path)
    for result in summary["results"]:
        data = store.read(result["result"].removeprefix("s3://podium/")).data
        assert hashlib.sha256(data).hexdigest() == result["sha256"]
    assert "prediction" in pd.read_csv(io.BytesIO(data), nrows=1).columns


def test_a_bad_file_is_named_and_can_be_corrected(own_cloud: LocalCloud, context: PromotionContext) -> None:
    put_parts(context, "bad", 3, 50)
    store = context.store
    etag = store.create("big/bad/part-900.csv", b"area,rooms\n30,2\nlarge,3\n")
    failed = start(own_cloud, "bad")
    output = failed.communicate(timeout=120)[0]
    assert failed.returncode != 0
    assert "1 of 4 files cannot be predicted: s3://podium/big/bad/part-900.csv: row 2, column area" in output
    store.replace("big/bad/part-900.csv", b"area,rooms\n30,2\n40,3\n", etag)
    again = start(own_cloud, "bad")
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert output.count("parts left") == 1 and "152 rows of 4 files" in output
    assert "done before" in start(own_cloud, "bad").communicate(timeout=120)[0]


def test_files_that_are_no_tables_or_have_no_rows_are_named(own_cloud: LocalCloud, context: PromotionContext) -> None:
    put_parts(context, "odd", 1, 10)
    for name, data in {
        "_SUCCESS": b"",
        "notes.txt": b"x",
        "empty.csv": b"area,rooms\n",
        "UPPER.CSV": b"area;rooms\n30.5;2\n",
    }.items():
        context.store.create(f"big/odd/{name}", data)
    output = start(own_cloud, "odd").communicate(timeout=120)[0]
    assert "11 rows of 3 files predicted" in output and "1 file without rows" in output
    assert "2 files left out, empty or not a table: big/odd/_SUCCESS, big/odd/notes.txt" in output
    summary = json.loads(context.store.read(f"{prefix('odd')}summary-1.json").data)
    assert (summary["empty"], summary["problems"]) == (["s3://podium/big/odd/empty.csv"], [])


def test_a_folder_without_tables_is_an_error(own_cloud: LocalCloud, context: PromotionContext) -> None:
    output = start(own_cloud, "nothing").communicate(timeout=120)[0]
    assert "has no files that end with .csv, .csv.gz, .parquet" in output
