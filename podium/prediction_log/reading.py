"""Read logged predictions: of a day, those that have labels, or the last ones."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from podium.prediction_log.prediction_table import PREDICTION_ID
from podium.storage.object_store import Store
from podium.storage.predictions import is_logged, predictions_prefix

MAX_OBJECTS = 200
"""Objects that are read to find the last predictions."""


@dataclass(slots=True)
class LoggedVersion:
    """The logged rows of one version: their number, the number of requests, and at most `most` of the rows, chosen at random.

    A day of a busy service does not fit into memory.
    """

    most: int
    rows: int = 0
    requests: int = 0
    _parts: list[pa.Table] = field(default_factory=list)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self.requests += pc.count_distinct(table["prediction_id"]).as_py()
        self._parts.append(table.append_column("lot", pa.array(self._random.random(table.num_rows))))
        if sum(part.num_rows for part in self._parts) > 4 * self.most:
            self._parts = [self._chosen()]

    def _chosen(self) -> pa.Table:
        """Return the rows with the smallest lots, in their order."""
        table = pa.concat_tables(self._parts)
        chosen = np.sort(np.argsort(table["lot"].to_numpy(), kind="stable")[: self.most])
        return table.take(pa.array(chosen))

    @property
    def table(self) -> pa.Table:
        return self._chosen().drop_columns("lot")


def _tables(store: Store, prefix: str) -> Iterator[pa.Table]:
    """Yield the objects of logged rows under a prefix; each is of one version."""
    for info in store.list_objects(prefix):
        if is_logged(info.key):
            yield pq.read_table(io.BytesIO(store.read(info.key).data))


def _version(table: pa.Table) -> tuple[str, str]:
    return table["version"][0].as_py(), table["manifest_sha256"][0].as_py()


def read_day(store: Store, project: str, day: str, most: int) -> Sequence[LoggedVersion]:
    """Return the predictions of a day (YYYY-MM-DD) by version, with at most `most` rows of each. Raises StoreError."""
    versions: dict[tuple[str, str], LoggedVersion] = {}
    for table in _tables(store, predictions_prefix(project, day.replace("-", ""))):
        versions.setdefault(_version(table), LoggedVersion(most)).add(table)
    return list(versions.values())


def read_labelled(store: Store, project: str, labels: pd.DataFrame) -> Sequence[pa.Table]:
    """Return the predictions that have labels by version, with a column `label`. Raises StoreError."""
    labels = labels[labels["prediction_id"].str.fullmatch(PREDICTION_ID.pattern)]
    versions: dict[tuple[str, str], list[pa.Table]] = {}
    for segment, part in labels.groupby(labels["prediction_id"].str.split("-").str[0]):
        for table in _tables(store, f"{predictions_prefix(project, str(segment))}{segment}-"):
            keys = table.select(["prediction_id", "row"]).to_pandas().reset_index(names="position")
            pairs = keys.merge(part, on=["prediction_id", "row"])
            if len(pairs):
                rows = table.take(pa.array(pairs["position"])).append_column("label", pa.array(pairs["label"]))
                versions.setdefault(_version(table), []).append(rows)
    return [pa.concat_tables(tables) for tables in versions.values()]


def read_last(store: Store, project: str, rows: int) -> Sequence[pa.Table]:
    """Return the newest logged rows, in tables of one version each. Raises StoreError."""
    tables, left, objects = list[pa.Table](), rows, MAX_OBJECTS
    for folder in sorted(store.folders(f"predictions/{project}/"), reverse=True):
        infos = [info for info in store.list_objects(f"predictions/{project}/{folder}/") if is_logged(info.key)]
        for info in sorted(infos, key=lambda info: (info.modified, info.key), reverse=True):
            if left <= 0 or not objects:
                return tables
            table = pq.read_table(io.BytesIO(store.read(info.key).data))
            is_panel = "keys" in table.column_names  # whose windows belong together
            tables.append(table if is_panel else table.slice(max(0, table.num_rows - left)))
            left, objects = left - tables[-1].num_rows, objects - 1
    return tables
