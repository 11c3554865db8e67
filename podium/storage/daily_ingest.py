"""Ingest a folder of daily files into content-addressed monthly partitions.

Every row is stored with the name of its file. If several files cover a day, the latest file wins. This is resolved when the
rows are read, so the result does not depend on the order in which files arrive.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from podium.schema.data_errors import BadData
from podium.schema.reading import Finding
from podium.storage.datasets import DatasetSnapshot, create_by_digest, snapshot_key, split_url
from podium.storage.object_store import NotFound, ObjectInfo, PreconditionFailed, Store, StoreError, digest

FILE_COLUMN, MODIFIED_COLUMN = "podium:file", "podium:at"
READER_THREADS = 8
RECENT_STATES = 5
"""S3 timestamps have one-second resolution, so compare this many recent states to find the newest."""

Rows = tuple[pa.Table, pa.Array]
"""Rows as text, and the month of each row."""


@dataclass(frozen=True, slots=True)
class Parser:
    """How daily files are read: `parse` returns the rows or raises BadData; `fingerprint` identifies its options."""

    parse: Callable[[bytes, str], Rows]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class IngestState:
    """What was ingested: the state of each file, the error for each unreadable file, and the partition of each month.

    `sequence` counts the ingests that changed something; `fingerprint` is the parser's fingerprint.
    """

    sequence: int = 0
    fingerprint: str = ""
    files: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    partitions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return _STATE.dump_json(self, indent=1)

    @staticmethod
    def from_json(data: bytes) -> IngestState:
        return _STATE.validate_json(data)


_STATE = TypeAdapter(IngestState)


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A folder of daily files, as listed at one point in time."""

    store: Store
    url: str
    files: tuple[ObjectInfo, ...]

    def state(self, parser: Parser) -> str:
        """Return a digest of the files and how they are read."""
        files = sorted((file.key, _file_state(file)) for file in self.files)
        return digest(json.dumps([parser.fingerprint, *files]).encode())


def is_folder(url: str) -> bool:
    return url.endswith("/")


def list_source_files(store: Store, url: str) -> SourceFolder:
    """List the files of a folder. Raises NotFound if it is empty."""
    files = tuple(info for info in store.list_objects(split_url(url)[1]) if not is_folder(info.key))
    if not files:
        raise NotFound(f"there are no files in {url}")
    return SourceFolder(store, url, files)


def ingest_new_files(folder: SourceFolder, parser: Parser, store: Store, project: str) -> DatasetSnapshot:
    """Add new and changed files to the latest state, and store the new state under its digest.

    An unreadable file is recorded with the reason; it is read again when it or the parser's options change.
    Raises StoreError, including if no file can be read.
    """
    before = latest_state(store, project, folder.url)
    same_parser = before.fingerprint == parser.fingerprint
    new = [file for file in folder.files if not same_parser or before.files.get(file.key) != _file_state(file)]
    tables, unreadable = _read_files(folder.store, new, parser)
    if not tables and len(new) == len(folder.files):
        key, reason = next(iter(unreadable.items()))
        raise StoreError(f"none of the {len(new)} files in {folder.url} can be read; {key}: {reason}")
    changed = {file.key for file in new}
    state = IngestState(
        before.sequence + bool(new),
        parser.fingerprint,
        {**before.files, **{file.key: _file_state(file) for file in new}},
        {**{key: reason for key, reason in before.unreadable.items() if key not in changed}, **unreadable},
        _write_partitions(store, project, before, changed, _by_month(tables)),
    )
    data = state.to_json()
    snapshot = DatasetSnapshot(folder.url, folder.state(parser), digest(data), len(data))
    create_by_digest(store, snapshot_key(project, snapshot.sha256), data)
    return snapshot


def latest_state(store: Store, project: str, url: str) -> IngestState:
    """Return the newest state that was ingested from this folder, or an empty one."""
    receipts = sorted(store.list_objects(f"datasets/{project}/sources/"), key=lambda info: info.modified, reverse=True)
    states: list[IngestState] = []
    for receipt in receipts:
        snapshot = DatasetSnapshot.from_json(store.read(receipt.key).data)
        if snapshot.url == url:
            states.append(IngestState.from_json(store.read(snapshot_key(project, snapshot.sha256)).data))
        if len(states) == RECENT_STATES:
            break
    return max(states, key=lambda state: state.sequence, default=IngestState())


def read_daily_rows(store: Store, state: IngestState, last: str | None, max_rows: int, keys: Sequence[str]) -> pa.Table:
    """Read partitions backwards from month `last` until `max_rows` entity-days are covered, plus one partition.

    `keys` are the entity and day columns; rows with the same keys count once. Rows from later files come last.
    """
    tables: list[pa.Table] = []
    counts: list[int] = []
    for month in sorted(state.partitions, reverse=True):
        if last is None or month <= last:
            if sum(counts[:-1]) >= max_rows:
                break
            tables.append(read_partition(store, state.partitions[month]))
            complete = month != last  # the last month may contain days after the requested one
            counts.append(tables[-1].group_by(list(keys)).aggregate([]).num_rows if complete else 0)
    if not tables:
        raise StoreError(f"no data was ingested{f' up to {last}' if last else ''}")
    table = pa.concat_tables(tables, promote_options="default")
    order = [(MODIFIED_COLUMN, "ascending"), (FILE_COLUMN, "ascending")]
    return table.sort_by(order).drop_columns([FILE_COLUMN, MODIFIED_COLUMN])


def read_partition(store: Store, key: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(key).data))


def unreadable_files(state: IngestState) -> Iterator[Finding]:
    """Yield a finding for each file that could not be read."""
    for key, reason in sorted(state.unreadable.items()):
        yield Finding("", f"skipped unreadable file {key}: {reason}")


def _file_state(file: ObjectInfo) -> str:
    return f"{file.etag} {file.modified.isoformat()}"


def _read_files(store: Store, files: Sequence[ObjectInfo], parser: Parser) -> tuple[list[Rows], dict[str, str]]:
    """Return the rows of the readable files, and the error message for each unreadable file, by key."""
    unreadable: dict[str, str] = {}

    def read(file: ObjectInfo) -> Rows | None:
        try:
            table, months = parser.parse(store.read(file.key, if_match=file.etag).data, file.key)
        except BadData as error:
            unreadable[file.key] = str(error)
            return None
        except PreconditionFailed:
            raise StoreError(f"{store.url(file.key)} was overwritten while it was read; run again") from None
        for name, text in ((FILE_COLUMN, file.key), (MODIFIED_COLUMN, file.modified.isoformat())):
            table = table.append_column(name, pa.array([text] * table.num_rows, pa.string()))
        return table, months

    with ThreadPoolExecutor(READER_THREADS) as pool:
        results = list(pool.map(read, files))
    return [rows for rows in results if rows], unreadable


def _by_month(tables: list[Rows]) -> dict[str, list[pa.Table]]:
    by_month: dict[str, list[pa.Table]] = {}
    for table, months in tables:
        for month in pc.unique(months).to_pylist():
            by_month.setdefault(month, []).append(table.filter(pc.equal(months, month)))
    return by_month


def _write_partitions(
    store: Store, project: str, before: IngestState, changed: set[str], new: dict[str, list[pa.Table]]
) -> dict[str, str]:
    """Replace the rows of the changed files; return the key of each month's partition."""
    keys = dict(before.partitions)
    for month in sorted(set(new) | _months_with(store, before, changed & before.files.keys())):
        tables = list(new.get(month, []))
        if month in before.partitions:
            tables.insert(0, _without(read_partition(store, before.partitions[month]), changed))
        keys[month] = _write_partition(store, project, month, pa.concat_tables(tables, promote_options="default"))
    return dict(sorted(keys.items()))


def _months_with(store: Store, state: IngestState, files: set[str]) -> set[str]:
    """Return the months that have rows from these files."""
    if not files:
        return set()
    names = pa.array(sorted(files))
    columns = (
        (month, pq.read_table(pa.BufferReader(store.read(key).data), columns=[FILE_COLUMN]))
        for month, key in state.partitions.items()
    )
    return {month for month, table in columns if pc.any(pc.is_in(table[FILE_COLUMN], value_set=names)).as_py()}


def _without(table: pa.Table, files: set[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table[FILE_COLUMN], value_set=pa.array(sorted(files), pa.string()))))


def _write_partition(store: Store, project: str, month: str, rows: pa.Table) -> str:
    file = io.BytesIO()
    pq.write_table(rows.combine_chunks(), file)
    key = f"datasets/{project}/parts/{month}/{digest(file.getvalue())}.parquet"
    create_by_digest(store, key, file.getvalue())
    return key
