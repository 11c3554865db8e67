"""Large tables run as background jobs: one version, rows in order, bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.local import LocalCloud
from podium.local.http_client import Answer, Client
from podium.local.processes import free_ports
from podium.local.services import start_service
from podium.schema.data_errors import BadData
from podium.tables.readers import read_in_pieces, read_table
from tests import tables
from tests.conftest import projects_of

BATCH = "/projects/prices/batch"
CSV = {"content-type": "text/csv"}
ROWS = 60_000


def text(bad: int | None = None) -> bytes:
    lines = ["area,rooms", *(f"{20 + row % 150}.5,{row % 6 + 1}" for row in range(ROWS))]
    if bad is not None:
        lines[bad] = "much,3"
    return ("\n".join(lines) + "\n").encode()


def wait_until_finished(service: Client, response: Answer) -> dict[str, Any]:
    assert response.status == 202, response.text
    location = response.headers["location"]
    assert response.json()["job"] in location
    service.wait_until(lambda: service.get(location).json()["state"] in ("done", "failed"), 60)
    job: dict[str, Any] = service.get(location).json()
    return job


def rows_of(service: Client, job: dict[str, Any]) -> list[dict[str, str]]:
    response = service.get(job["result"])
    assert response.headers["x-model-version"] == job["version"]
    return list(csv.DictReader(io.StringIO(response.text)))


def test_a_large_table_becomes_a_job(service: Client) -> None:
    job = wait_until_finished(service, service.post(BATCH, text(), CSV))
    assert (job["state"], job["rows"], job["wrong_rows"]) == ("done", ROWS, 0)
    rows = rows_of(service, job)
    assert len(rows) == ROWS
    few = service.post(f"{BATCH}.csv?models=champion", b"\n".join(text().splitlines()[:200]), CSV)
    assert rows[:199] == list(csv.DictReader(io.StringIO(few.text)))
    assert [rows[index]["area"] for index in (0, 1, ROWS - 1)] == ["20.5", "21.5", f"{20 + (ROWS - 1) % 150}.5"]


@pytest.mark.parametrize("kind", ["gzip", "parquet", "upload"])
def test_every_format_becomes_a_job(service: Client, kind: str) -> None:
    if kind == "gzip":
        response = service.post(BATCH, gzip.compress(text(), 0), {"content-type": "application/gzip"})
    elif kind == "parquet":
        file = io.BytesIO()
        pq.write_table(pa.table({"area": [20 + p % 997 + p / ROWS for p in range(ROWS)], "rooms": [3] * ROWS}), file)
        response = service.post(BATCH, file.getvalue(), {"content-type": "application/vnd.apache.parquet"})
    else:
        page = service.post_file(BATCH, text())
        assert page.status == 303
        service.wait_until(lambda: "<h2>Done<" in service.request("GET", page.headers["location"], None, HTML).text, 60)
        assert "Download as CSV" in service.request("GET", page.headers["location"], None, HTML).text
        return
    assert wait_until_finished(service, response)["rows"] == ROWS


HTML = {"accept": "text/html"}


def test_an_invalid_row_fails_the_job_and_is_named(service: Client) -> None:
    job = wait_until_finished(service, service.post(BATCH, text(bad=55_555), CSV))
    assert job["state"] == "failed"
    assert [(error["row"], error["column"]) for error in job["errors"]] == [(55_555, "area")]
    refused = service.get(f"/jobs/{job['job']}/result.csv")
    assert (refused.status, refused.json()["code"]) == (409, "not-done")
    page = service.request("GET", f"/jobs/{job['job']}", None, HTML).text
    assert "Row 55555" in page
    assert "much" not in page


def test_an_invalid_row_can_be_skipped(service: Client) -> None:
    job = wait_until_finished(service, service.post(f"{BATCH}?on_error=row", text(bad=55_555), CSV))
    assert (job["state"], job["wrong_rows"]) == ("done", 1)
    rows = rows_of(service, job)
    assert (rows[55_554]["prediction"], rows[55_554]["problem"]) == ("", "area is not a number, such as 3 or 2.5")
    assert all(row["prediction"] for index, row in enumerate(rows) if index != 55_554)


def test_small_tables_are_predicted_at_once_and_unknown_jobs_are_not_found(service: Client) -> None:
    assert service.post(BATCH, b"area,rooms\n50,2\n", CSV).status == 200
    assert service.get("/jobs/nothing").status == 404
    assert service.get("/jobs/nothing/result.csv").status == 404


TABLES = [
    b"",
    b"\xef\xbb\xbfa,b\n1,2\n",
    b"a,b\n",
    b"a,b\n1\n",
    b"a,a\n1,2\n",
    b"a;b\n1;2\n",
    b"PK\x03\x04",
    b"\xff\xfea",
    b'a,b\n"x\ny",2\n' * 3,
    b"a,b\n" + b"1,2\n" * 50_000 + b"3\n",
]


@pytest.mark.parametrize("data", TABLES, ids=range(len(TABLES)))
def test_reading_in_chunks_equals_reading_at_once(data: bytes, tmp_path: Path) -> None:
    """Both give the same cells or the same problem code."""
    (tmp_path / "t").write_bytes(data)

    def read(whole: bool) -> object:
        try:
            pieces = [read_table(data)] if whole else list(read_in_pieces(tmp_path / "t", chunk_bytes=1 << 16))
        except BadData as error:
            return error.code
        return pa.concat_tables(pieces).to_pydict()

    assert read(whole=False) == read(whole=True)


def test_an_unclosed_quote_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b'a,b\n"1,2\n' + b"3,4\n" * 100_000)
    with pytest.raises(BadData):
        list(read_in_pieces(tmp_path / "t", chunk_bytes=1 << 16))


def test_a_table_of_several_chunks_has_all_its_rows(tmp_path: Path) -> None:
    frame = tables.mixed(5000)
    frame.to_csv(tmp_path / "t", index=False)
    pieces = list(read_in_pieces(tmp_path / "t", chunk_bytes=1 << 16))
    assert len(pieces) > 2
    assert pa.concat_tables(pieces).to_pydict() == read_table((tmp_path / "t").read_bytes()).to_pydict()


LARGE = 1_200_000


@pytest.fixture
def workers(cloud: LocalCloud, service: Client, tmp_path: Path) -> Iterator[tuple[Client, Callable[[], list[psutil.Process]]]]:
    """A service, and a function that returns its current Dask workers."""
    (port,) = free_ports(1)
    process = start_service({**cloud.environment, "PODIUM_ASYNC_THRESHOLD_BYTES": "400000"}, port, tmp_path)
    client = Client(f"http://127.0.0.1:{port}")
    children = psutil.Process(process.pid).children

    def current_workers() -> list[psutil.Process]:
        return [child for child in children(recursive=True) if "spawn_main" in " ".join(cmdline(child))]

    try:
        client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
        client.wait_until(lambda: {"mixed", "prices", "odd"} <= projects_of(client), 60)
        yield client, current_workers
    finally:
        process.stop()


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow
def test_a_job_loses_no_row_when_workers_are_killed(workers: tuple[Client, Callable[[], list[psutil.Process]]]) -> None:
    """Both workers are killed at 10%, 50% and 90%; the result must be byte-identical."""
    service, current_workers = workers
    data = text().split(b"\n", 1)
    table = data[0] + b"\n" + data[1] * (LARGE // ROWS)
    undisturbed = wait_until_finished(service, service.post(BATCH, table, CSV))
    response = service.post(BATCH, table, CSV)
    killed = 0
    for share in (0.1, 0.5, 0.9):
        service.wait_until(lambda share=share: rows_done(service, response) >= share * LARGE, 60)  # type: ignore[misc]
        for worker in current_workers():
            worker.kill()
            killed += 1
    job = wait_until_finished(service, response)
    assert killed >= 2
    assert (job["state"], job["rows"]) == ("done", LARGE)
    assert service.get(job["result"]).body == service.get(undisturbed["result"]).body


def rows_done(service: Client, response: Answer) -> float:
    """Return the processed rows of a job, LARGE when it has finished."""
    job = service.get(response.headers["location"]).json()
    return LARGE if job["state"] in ("done", "failed") else job["rows"]
