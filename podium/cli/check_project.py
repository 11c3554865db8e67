"""`podium projects check`: check a project file against the known metrics and its table's columns."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError

from podium.cli.common import PATIENCE_SECONDS
from podium.models.metrics import CLASSIFICATION, REGRESSION
from podium.project import BadProject, Project
from podium.schema.data_errors import BadData
from podium.schema.reading import printable
from podium.schema.suggestions import did_you_mean
from podium.settings import StoreSettings
from podium.storage.datasets import split_url
from podium.storage.object_store import Store, StoreError
from podium.storage.table_parts import list_parts
from podium.tables.csv_header import find_header
from podium.tables.readers import ReadOptions
from podium.tables.size_limits import TRAINING
from podium.tables.text_encoding import as_utf8
from podium.training.families import select_families
from podium.training.project_kinds import kind_of
from podium.training.reading import read_options, read_training_table

HEADER_BYTES = 1 << 20
FORECAST = {name: metric for name, metric in REGRESSION.items() if name != "mape"}
METRICS: Mapping[str | None, Mapping[str, object]] = {
    "binary": CLASSIFICATION,
    "multiclass": CLASSIFICATION,
    "regression": REGRESSION,
    "forecast": FORECAST,
    None: {**CLASSIFICATION, **REGRESSION},
}


def check_project(project: Project) -> None:
    """Check the model families and the metric without reading the data. Raises BadProject, UnknownFamily."""
    select_families(project)
    known = METRICS["forecast" if project.panel else project.task]
    if project.metric is not None and project.metric not in known:
        choices = f"choose one of {', '.join(known)}{did_you_mean(project.metric, known)}"
        raise BadProject(f'{project.name}: unknown metric "{project.metric}"; {choices}')


class Tables:
    """Reads the headers of the projects' tables; an unreachable store is contacted only once."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings, self._error = settings, ""

    def check(self, project: Project, whole: bool = False) -> str:
        """Check that the table has all columns named in the project file, and that the `whole` table can be trained on.

        Returns the reason why it could not be read, or an empty string. Raises BadProject listing all errors.
        """
        if project.data is None:
            return ""
        try:
            columns = self._columns(project.data, project)
        except StoreError as error:
            return str(error)
        unknown = [(key, name) for key, name in _named_columns(project) if name not in columns]
        if unknown:
            errors = [f"{key} names an unknown column `{name}`{did_you_mean(name, columns)}" for key, name in unknown]
            known = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
            raise BadProject(f"{project.name}: {'; '.join(errors)} (columns of {project.data}: {known})")
        if whole and not project.data.endswith("/"):
            bucket, key = split_url(project.data)
            try:
                data = self._settings.store(PATIENCE_SECONDS).with_bucket(bucket).read(key).data
                kind_of(project).prepare(read_training_table(data, project, project.data))
            except StoreError as error:
                return str(error)
            except BadData as error:
                errors = [printable(str(problem)) for problem in error.problems]
                raise BadProject("\n  ".join([f"{project.name}: the table cannot be trained on:", *errors])) from None
        return ""

    def _columns(self, url: str, project: Project) -> list[str]:
        """Return the column names of the table at `url`. Raises StoreError."""
        bucket, key = split_url(url)
        if self._error:
            raise StoreError(f"{url}: {self._error}")
        store = self._settings.store(PATIENCE_SECONDS).with_bucket(bucket)
        try:
            if key.endswith("/") and project.panel:
                key = next((info.key for info in store.list_objects(key) if not info.key.endswith("/")), key)
            elif key.endswith("/"):
                key = list_parts(store, url).files[0].key
            store.etag(key)
        except StoreError as error:
            if isinstance(error.__cause__, BotoCoreError):
                self._error = str(error.__cause__)
            raise
        return header(store, key, read_options(project, key))


def _named_columns(project: Project) -> Iterator[tuple[str, str]]:
    """Yield the project-file key and the column name for each column that the table must have."""
    yield "target", project.target
    if project.split.column:
        yield "split.column", project.split.column
    panel = project.panel
    if panel:
        yield from (("panel.entity", panel.entity), ("panel.time", panel.time))
        for name, column in panel.derived_columns.items():
            yield from ((f"panel.derived_columns.{name}", of) for of in column.of if of not in panel.derived_columns)
    derived = panel.derived_columns if panel else {}
    yield from (("columns", name) for name in project.columns if name not in derived)


def header(store: Store, key: str, options: ReadOptions) -> list[str]:
    """Return a table's column names, read from the first bytes of a CSV or from a whole Parquet file. Raises StoreError."""
    start = store.read_start(key, HEADER_BYTES)
    if key.endswith(".gz"):
        start = zlib.decompressobj(wbits=31).decompress(start, HEADER_BYTES)
    if start.startswith(b"PAR1"):
        try:
            schema = pq.read_schema(pa.BufferReader(store.read(key).data))
        except pa.ArrowException:
            raise StoreError(f"{store.url(key)} is not a readable Parquet file") from None
        return list(schema.names)
    with as_utf8(io.BytesIO(_whole_lines(start)), options.header.reading.encoding, TRAINING) as (text, _):
        return find_header(text.read().decode(errors="ignore"), options.header).names


def _whole_lines(start: bytes) -> bytes:
    """Return the start of a text without a last line that may be cut within a character."""
    if len(start) < HEADER_BYTES:
        return start
    end = len(start) // 2 * 2 if b"\0" in start else max(start.rfind(b"\n"), start.rfind(b"\r")) + 1
    return start[:end]
