"""`podium projects check`: what a project file says, held against the metrics that there are and the columns of its table."""

from __future__ import annotations

import csv
import difflib
import io
import zlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from podium.cli.common import PATIENCE_SECONDS
from podium.models.metrics import CLASSIFICATION, REGRESSION
from podium.project import BadProject, Project
from podium.settings import StoreSettings
from podium.storage.datasets import split_url
from podium.storage.object_store import Store, StoreError
from podium.training.families import select_families

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
    """What can be said without the data. Raises BadProject, UnknownFamily."""
    select_families(project.families, project.panel is not None)
    task = "forecast" if project.panel else project.task
    known = METRICS[task]
    if project.metric is not None and project.metric not in known:
        near = difflib.get_close_matches(project.metric, known, 1, 0.3)
        ending = [name for name in known if name.endswith(f"_{project.metric}")]
        hint = f"; did you mean {(ending or near)[0]}?" if ending or near else ""
        raise BadProject(f"{project.name}: metric is none of {', '.join(known)}{hint}")


class Tables:
    """The headers of the projects' tables; a store that does not answer is asked once."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings, self._error = settings, ""

    def check(self, project: Project) -> str:
        """Why the columns could not be looked at, empty if all that the project names are there. Raises BadProject."""
        if project.data is None:
            return ""
        try:
            columns = self._columns(project.data)
        except StoreError as error:
            return str(error)
        missing = sorted(set(_named(project)) - set(columns))
        if missing:
            has = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
            raise BadProject(f"{project.name}: {project.data} has no column {', '.join(missing)}; it has {has}")
        return ""

    def _columns(self, url: str) -> list[str]:
        """Raises StoreError."""
        bucket, key = split_url(url)
        if self._error:
            raise StoreError(self._error)
        store = self._settings.store(PATIENCE_SECONDS).of(bucket)
        try:
            key = next((each for each in store.keys(key) if not each.endswith("/")), key) if key.endswith("/") else key
            store.etag(key)
        except StoreError as error:
            self._error = "" if type(error) is not StoreError else str(error)
            raise
        return header(store, key)


def _named(project: Project) -> Iterator[str]:
    """The columns that a table must have."""
    yield project.target
    if project.panel:
        yield from (project.panel.entity, project.panel.time)
    if project.split.column:
        yield project.split.column


def header(store: Store, key: str) -> list[str]:
    """The names of a table's columns, from its first bytes, or of Parquet from all of them. Raises StoreError."""
    start = store.read_start(key, HEADER_BYTES)
    if key.endswith(".gz"):
        start = zlib.decompressobj(wbits=31).decompress(start, HEADER_BYTES)
    if start.startswith(b"PAR1"):
        try:
            schema = pq.read_schema(pa.BufferReader(store.read(key).data))
        except pa.ArrowException:
            raise StoreError(f"{store.url(key)} is not Parquet that can be read") from None
        return list(schema.names)
    first = start.decode("utf-8-sig", "replace")
    return next(csv.reader(io.StringIO(first)), [])
