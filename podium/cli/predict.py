"""`podium predict`: predict the rows of a file, using a service or locally."""

from __future__ import annotations

import gzip
import io
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from podium.cli.common import REJECTED, context_from_settings, report_errors
from podium.inference.champion import load_champion
from podium.inference.parsed_rows import ParseOptions
from podium.inference.result_tables import result_table, table_to_csv
from podium.inference.served_model import scores_here
from podium.inference.table_rows import read_options as request_options
from podium.inference.table_rows import rows_from_text
from podium.project import BadProject, load_project, project_names
from podium.schema.data_errors import BadData, Problem
from podium.settings import StoreSettings
from podium.storage.datasets import split_url
from podium.storage.object_store import Store, StoreError, s3_client
from podium.tables.parquet_pages import MAGIC as PARQUET_START
from podium.tables.readers import ReadOptions, read_table, read_typed
from podium.tables.size_limits import TRAINING
from podium.training.reading import read_options

TIMEOUT_SECONDS = 600
GZIP_START = b"\x1f\x8b"


@click.command()
@click.argument("file", required=False, type=click.Path(allow_dash=True))
@click.option("--project", required=True)
@click.option(
    "--url", envvar="PODIUM_URL", default="http://127.0.0.1:8000", show_default=True, help="service URL (or set PODIUM_URL)"
)
@click.option("--local", is_flag=True, help="run the champion locally, without a service")
@click.option("--random", "count", type=click.IntRange(1), help="predict N random rows of --data instead of a file")
@click.option("--data", default="", help="table for --random, as a path or s3:// URL; the project's table by default")
@click.option("--seed", type=int, help="random seed")
@click.option("--models", default="champion", show_default=True, help="champion, all, or the name of a model")
@click.option("--key", envvar="PODIUM_API_KEY", help="API key of the service (or set PODIUM_API_KEY)")
@report_errors
def predict(
    file: str | None,
    project: str,
    url: str,
    local: bool,
    count: int | None,
    data: str,
    seed: int | None,
    models: str,
    key: str | None,
) -> None:
    """Predict the rows of a file.

    Reads a CSV or Parquet FILE (- for standard input) and prints it as CSV with prediction columns added.

    \b
    podium predict --project pima rows.csv > predictions.csv
    podium predict --project pima --random 5
    podium predict --project pima --local --random 5 --data s3://podium/raw/pima.csv
    """
    if (file is None) == (count is None):
        raise click.UsageError("pass either a file (- for standard input) or --random N")
    try:
        rows = _read(file) if file else _random_rows(*_source(project, data), count or 1, seed)
        csv = _predict_locally(project, rows, models) if local else _predict_remotely(url, project, rows, models, key)
    except BadData as error:
        for problem in error.problems:
            click.echo(f"Error: {_problem_text(problem)}", err=True)
        raise SystemExit(REJECTED) from None
    sys.stdout.buffer.write(csv)


def _read(file: str) -> bytes:
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return gzip.decompress(data) if data.startswith(GZIP_START) else data


def _source(project: str, data: str) -> tuple[bytes, ReadOptions]:
    """Return the bytes at a path or s3:// URL, or of the project's table by default, and how to read them.

    Raises BadProject, StoreError.
    """
    folder = StoreSettings().projects
    config = load_project(folder, project) if project in project_names(folder) else None
    if config and config.panel:
        raise BadProject(f"{project} is a panel: random rows have no history; pass a file with complete histories")
    url = data or (config.data if config else None)
    if url is None:
        raise BadProject(f"{project} has no table for --random; pass one with --data, or pass a file")
    options = read_options(config, url) if config else ReadOptions(gzipped=url.endswith(".gz"))
    if not url.startswith("s3://"):
        return Path(url).read_bytes(), options
    bucket, key = split_url(url)
    return Store(s3_client(), bucket).read(key).data, options


def _random_rows(data: bytes, options: ReadOptions, count: int, seed: int | None) -> bytes:
    table, file = read_table(data, options), io.BytesIO()
    rows = np.random.default_rng(seed).choice(table.num_rows, min(count, table.num_rows), replace=False)
    pacsv.write_csv(table.take(pa.array(rows)), file)
    return file.getvalue()


def _predict_remotely(url: str, project: str, data: bytes, models: str, key: str | None) -> bytes:
    """Request the predictions as CSV from the service. Raises StoreError with the service's error message."""
    media_type = "application/vnd.apache.parquet" if data.startswith(PARQUET_START) else "text/csv"
    headers = {"content-type": media_type, **({"x-api-key": key} if key else {})}
    path = f"{url.rstrip('/')}/projects/{quote(project)}/predict.csv?extra=keep&models={quote(models)}"
    request = urllib.request.Request(path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            click.echo(f"{project} {response.headers['x-model-version']}", err=True)
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        raise StoreError(_service_error(error, url, project)) from None
    except OSError as error:
        raise StoreError(f"no service reachable at {url} ({error}); start one with `podium serve` or use --local") from None


def _service_error(error: urllib.error.HTTPError, url: str, project: str) -> str:
    text = error.read().decode(errors="replace")[:2000]
    try:
        problem = json.loads(text)
        code, message = problem["code"], f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"the service at {url} responded with status {error.code}: {text}"
    if code == "unknown-project":
        return f'the service at {url} has no project "{project}" (use --url for another service)'
    return f"the service at {url} responded with status {error.code}: {message}"


def _problem_text(problem: Problem) -> str:
    where = ", ".join([f"row {problem.row}"] * bool(problem.row) + [str(problem.column)] * bool(problem.column))
    expected = f" (expected: {problem.expected})" if problem.expected and problem.expected not in problem.message else ""
    return f"{where}: {problem.message}{expected}" if where else f"{problem.message}{expected}"


def _predict_locally(project: str, data: bytes, models: str) -> bytes:
    """Return the predictions of the champion as CSV, after loading it as a service does. Raises StoreError, BadData."""
    champion = load_champion(context_from_settings(signing=False), project)
    options = ParseOptions(keep_extra=True)
    table = read_typed(data, request_options(champion.signature, options, TRAINING))
    inputs = rows_from_text(table, champion.signature, table.num_rows, options)
    scores = {family: scores_here(champion, family, inputs.as_frame()) for family in champion.families(models)}
    click.echo(f"{project} {champion.version}", err=True)
    return table_to_csv(result_table(champion, inputs, scores))
