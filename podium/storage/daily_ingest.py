"""Daily files in a folder to a history in monthly parts, named by their content: what came is kept, nothing is read twice.

Every row of every file stays, with the file that it came from; of rows of one day the latest file counts, and that is decided
when the history is read. So it does not matter in which order files came, or whether one came twice.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from podium.schema.data_errors import BadData
from podium.storage.datasets import DatasetSnapshot, from_json, snapshot_key, split_url
from podium.storage.object_store import AlreadyExists, NotFound, PreconditionFailed, Store, StoreError, digest

FILE, AT = "podium:file", "podium:at"
READER_THREADS = 8
RECENT_STATES = 5
"""So many of the last states are looked at for the newest, as S3 tells times in whole seconds."""
Parse = Callable[[bytes, str], tuple[pa.Table, pa.Array]]
"""From a file's bytes and name to its rows as text and the month of each. Raises BadData."""


@dataclass(frozen=True, slots=True)
class IngestState:
    """What was collected: files with their states, those that could not be read with the reason, and a part for each month.

    `number` counts the collections; `reading` says how the files were read.
    """

    number: int = 0
    reading: str = ""
    files: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return INGEST_STATE.dump_json(self, indent=1)


INGEST_STATE = TypeAdapter(IngestState)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file in the folder: its key, its ETag and when it was written."""

    key: str
    etag: str
    at: datetime

    @property
    def state(self) -> str:
        return f"{self.etag} {self.at.isoformat()}"


def is_folder(url: str) -> bool:
    return url.endswith("/")


def list_source_files(source: Store, url: str) -> list[SourceFile]:
    """The files of a folder. Raises NotThere when there is none."""
    prefix = split_url(url)[1]
    found = [SourceFile(*entry) for entry in source.states(prefix) if not entry[0].endswith("/")]
    if not found:
        raise NotFound(f"there is no file in {url}")
    return found


def folder_state(files: list[SourceFile], reading: str) -> str:
    """One word for the state of a folder and how it is read."""
    return hashlib.sha256(json.dumps([reading, *sorted((file.key, file.state) for file in files)]).encode()).hexdigest()


def ingest_new_files(
    source: Store, url: str, files: list[SourceFile], store: Store, project: str, parse: Parse, reading: str
) -> DatasetSnapshot:
    """Add what is new or changed to the history that there is, and keep the new state under its digest.

    A file that cannot be read is noted with the reason, and read again when it changes, as all are when `reading` does. Raises
    StoreError, also when none can be read.
    """
    before = latest_state(store, project, url)
    new = [file for file in files if before.files.get(file.key) != file.state or before.reading != reading]
    tables, refused = _read(source, new, parse)
    if not tables and len(new) == len(files):
        key, why = next(iter(refused.items()))
        raise StoreError(f"none of the {len(files)} files in {url} can be read; {key}: {why}")
    changed = {file.key for file in new}
    months = _by_month(tables)
    stale = set(months) | _months_with(store, before, changed & before.files.keys())
    parts = dict(before.parts)
    for month in sorted(stale):
        kept = _without(read_partition(store, before.parts[month]), changed) if month in before.parts else None
        rows = pa.concat_tables([*([kept] if kept is not None else []), *months.get(month, [])], promote_options="default")
        parts[month] = _write(store, project, month, rows)
    history = IngestState(
        before.number + bool(new),
        reading,
        {**before.files, **{file.key: file.state for file in new}},
        {**{key: why for key, why in before.refused.items() if key not in changed}, **refused},
        dict(sorted(parts.items())),
    )
    data = history.to_json()
    snapshot = DatasetSnapshot(url, folder_state(files, reading), digest(data), len(data))
    _create(store, snapshot_key(project, snapshot.sha256), data)
    return snapshot


def latest_state(store: Store, project: str, url: str) -> IngestState:
    """The newest state that was collected from this folder; empty when there is none."""
    receipts = sorted(store.states(f"datasets/{project}/sources/"), key=lambda entry: entry[2], reverse=True)
    found: list[IngestState] = []
    for key, _, _ in receipts:
        snapshot = from_json(store.read(key).data)
        if snapshot.url == url:
            found.append(INGEST_STATE.validate_json(store.read(snapshot_key(project, snapshot.sha256)).data))
        if len(found) == RECENT_STATES:
            break
    return max(found, key=lambda history: history.number, default=IngestState())


def read_daily_rows(store: Store, history: IngestState, last: str | None, most: int, keys: Sequence[str]) -> pa.Table:
    """The newest `most` days of entities before the month `last`, that month, and one month more; the latest file's row last.

    `keys` are the columns that name an entity and a day, so that what came twice counts once.
    """
    tables: list[pa.Table] = []
    counts: list[int] = []
    for month in sorted(history.parts, reverse=True):
        if last is None or month <= last:
            if sum(counts[:-1]) >= most:
                break
            tables.append(read_partition(store, history.parts[month]))
            whole = month != last  # of the last month some days may come after what is asked for
            counts.append(tables[-1].group_by(list(keys)).aggregate([]).num_rows if whole else 0)
    if not tables:
        raise StoreError("nothing was collected yet of that time")
    table = pa.concat_tables(tables, promote_options="default")
    return table.sort_by([(AT, "ascending"), (FILE, "ascending")]).drop_columns([FILE, AT])


def read_partition(store: Store, key: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.read(key).data))


def _read(source: Store, files: list[SourceFile], parse: Parse) -> tuple[list[tuple[pa.Table, pa.Array]], dict[str, str]]:
    refused: dict[str, str] = {}

    def one(file: SourceFile) -> tuple[pa.Table, pa.Array] | None:
        try:
            table, months = parse(source.read(file.key, seen=file.etag).data, file.key)
        except BadData as error:
            refused[file.key] = str(error)
            return None
        except PreconditionFailed:
            raise StoreError(f"{source.url(file.key)} was written again while it was read; run again") from None
        marks = {FILE: file.key, AT: file.at.isoformat()}
        for name, text in marks.items():
            table = table.append_column(name, pa.array([text] * table.num_rows, pa.string()))
        return table, months

    with ThreadPoolExecutor(READER_THREADS) as pool:
        found = list(pool.map(one, files))
    return [each for each in found if each], refused


def _by_month(tables: list[tuple[pa.Table, pa.Array]]) -> dict[str, list[pa.Table]]:
    found: dict[str, list[pa.Table]] = {}
    for table, months in tables:
        for month in pc.unique(months).to_pylist():
            found.setdefault(month, []).append(table.filter(pc.equal(months, month)))
    return found


def _months_with(store: Store, before: IngestState, keys: set[str]) -> set[str]:
    """The months that hold rows of these files."""
    if not keys:
        return set()
    names = pa.array(sorted(keys))
    holds = (
        (month, pq.read_table(pa.BufferReader(store.read(key).data), columns=[FILE])) for month, key in before.parts.items()
    )
    return {month for month, table in holds if pc.any(pc.is_in(table[FILE], value_set=names)).as_py()}


def _without(table: pa.Table, keys: set[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table[FILE], value_set=pa.array(sorted(keys), pa.string()))))


def _write(store: Store, project: str, month: str, rows: pa.Table) -> str:
    file = io.BytesIO()
    pq.write_table(rows.combine_chunks(), file)
    key = f"datasets/{project}/parts/{month}/{digest(file.getvalue())}.parquet"
    _create(store, key, file.getvalue())
    return key


def _create(store: Store, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except AlreadyExists:
        pass  # the name is the content's digest: what is there is the same


def unreadable_files(history: IngestState) -> Iterator[str]:
    """What could not be read, in words."""
    for key, why in sorted(history.refused.items()):
        yield f"the file {key} was left out: {why}"
