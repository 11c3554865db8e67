"""`podium predict`: rows to predictions, by a service or right here."""

from __future__ import annotations

import io
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from podium.cli.models import context_from_settings, report_errors
from podium.inference.parsed_rows import ParseOptions
from podium.inference.result_tables import result_table, table_to_csv
from podium.inference.served_model import ServedModel, scores_here
from podium.inference.table_rows import rows_from_text
from podium.project import BadProject, load_project, project_names
from podium.registry.audit_log import read_champion
from podium.registry.promotion import PromotionContext
from podium.schema.data_errors import BadData
from podium.settings import StoreSettings
from podium.storage.datasets import split_url
from podium.storage.object_store import Store, StoreError, s3_client
from podium.tables.readers import read_table

REFUSED = 3


@click.command()
@click.argument("file", required=False, type=click.Path(allow_dash=True))
@click.option("--project", required=True)
@click.option(
    "--url", envvar="PODIUM_URL", default="http://127.0.0.1:8000", show_default=True, help="of the service; or PODIUM_URL"
)
@click.option("--local", is_flag=True, help="by the champion in the store, without a service")
@click.option("--random", "count", type=click.IntRange(1), help="so many random rows of --data instead of a file")
@click.option("--data", default="", help="a path or s3:// URL; the project's own table by default")
@click.option("--seed", type=int, help="for the same random rows again")
@click.option("--models", default="champion", show_default=True, help="champion, all, or a family")
@click.option("--key", envvar="PODIUM_API_KEY", help="for a service that asks for one; or PODIUM_API_KEY")
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
    """CSV in, CSV out: your columns with the predictions beside them.

    \b
    podium predict --project pima rows.csv > predictions.csv
    podium predict --project pima --random 5
    podium predict --project pima --local --random 5 --data s3://podium/raw/pima.csv
    """
    if (file is None) == (count is None):
        raise click.UsageError("name a file (or - for standard input), or --random N")
    try:
        table = read_table(_bytes(file)) if file else _random_rows(_source(project, data), count or 1, seed)
        rows = _local(project, table, models) if local else _remote(url, project, table, models, key)
    except BadData as error:
        click.echo("\n".join(str(problem.as_json()) for problem in error.problems), err=True)
        raise SystemExit(REFUSED) from None
    sys.stdout.buffer.write(rows)


def _bytes(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _source(project: str, data: str) -> bytes:
    """The bytes of a path or an s3:// URL."""
    folder = StoreSettings().projects
    known = load_project(folder, project) if project in project_names(folder) else None
    if known and known.panel:
        raise BadProject(f"random rows of a panel have no days before them: give a file with whole histories of {project}")
    place = data or (known.data if known else None)
    if place is None:
        raise BadProject(f"{project} has no table of its own to draw rows from: name one with --data, or a file")
    if not place.startswith("s3://"):
        return Path(place).read_bytes()
    bucket, key = split_url(place)
    return Store(s3_client(), bucket).read(key).data


def _random_rows(data: bytes, count: int, seed: int | None) -> pa.Table:
    table = read_table(data)
    places = np.random.default_rng(seed).choice(table.num_rows, min(count, table.num_rows), replace=False)
    return table.take(pa.array(places))


def _remote(url: str, project: str, table: pa.Table, models: str, key: str | None) -> bytes:
    """Raises StoreError with what the service said."""
    file = io.BytesIO()
    pacsv.write_csv(table, file)
    headers = {"content-type": "text/csv", **({"x-api-key": key} if key else {})}
    path = f"{url.rstrip('/')}/projects/{quote(project)}/predict.csv?extra=keep&models={quote(models)}"
    try:
        with urllib.request.urlopen(urllib.request.Request(path, file.getvalue(), headers), timeout=600) as answer:
            click.echo(f"{project} {answer.headers['x-model-version']}", err=True)
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        raise StoreError(f"the service answered {error.code}: {error.read().decode(errors='replace')[:2000]}") from None
    except (urllib.error.URLError, OSError) as error:
        raise StoreError(f"no service answers at {url} ({error}); --local needs none") from None


def _local(project: str, table: pa.Table, models: str) -> bytes:
    """The champion is verified and proved, as a service would. Raises StoreError, BadData."""
    snapshot = champion_of(context_from_settings(signing=False), project)
    inputs = rows_from_text(table, snapshot.signature, table.num_rows, ParseOptions(keep_extra=True))
    scores = {family: scores_here(snapshot, family, inputs.as_frame()) for family in snapshot.families(models)}
    click.echo(f"{project} {snapshot.version}", err=True)
    return table_to_csv(result_table(snapshot, inputs, scores))


def champion_of(context: PromotionContext, project: str) -> ServedModel:
    """Raises StoreError."""
    entry = read_champion(context.store, project, context.trust.promoters)
    if entry is None or entry.champion is None or entry.manifest_sha256 is None:
        raise StoreError(f"{project} has no champion")
    try:
        loaded = context.validator.load(project, entry.champion, entry.manifest_sha256, context.fetch, context.trust.trainers)
    finally:
        context.validator.close()
    return ServedModel.of(entry, loaded)
