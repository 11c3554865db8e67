"""Tables of many files. Their snapshot is the list of the files with their ETags; nothing is copied."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

from podium.storage.datasets import DatasetSnapshot, SourceChanged, create_by_digest, snapshot_key, split_url
from podium.storage.object_store import NotFound, PreconditionFailed, Store, StoreError, digest

ENDINGS = (".csv", ".csv.gz", ".parquet", ".tsv")
"""Endings, in lower case, of the files of a table."""
HIDDEN = ("_", ".")
"""Starts of the names of files that other programs leave beside the data, such as _SUCCESS."""
MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a table, in the state that it had when it was listed."""

    key: str
    etag: str
    size: int

    def read(self, source: Store) -> bytes:
        """Return its bytes. Raises SourceChanged if it is not in that state any more."""
        try:
            return source.read(self.key, if_match=self.etag).data
        except (PreconditionFailed, NotFound):
            raise SourceChanged(f"{source.url(self.key)} was changed or deleted after it was listed; run again") from None


@dataclass(frozen=True, slots=True)
class TableParts:
    """The files of a folder, by name."""

    url: str
    files: tuple[Part, ...]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        content = json.loads(data)
        return cls(content["url"], tuple(Part(**file) for file in content["files"]))

    @property
    def state(self) -> str:
        """A digest of the list."""
        return digest(self.to_json())

    def snapshot(self, store: Store, project: str) -> DatasetSnapshot:
        """Store the list under its digest."""
        data = self.to_json()
        create_by_digest(store, snapshot_key(project, self.state), data)
        return DatasetSnapshot(self.url, self.state, self.state, len(data))


def list_parts(source: Store, url: str) -> TableParts:
    """List the files of a folder, without those whose names start with _ or a point. Raises StoreError."""
    prefix = split_url(url)[1]
    infos = [info for info in source.list_objects(prefix) if not info.key.endswith("/")]
    infos = [info for info in infos if not any(name.startswith(HIDDEN) for name in info.key[len(prefix) :].split("/"))]
    others = [info.key for info in infos if not info.key.lower().endswith(ENDINGS)]
    if others:
        shown = ", ".join(others[:MAX_SHOWN])
        raise StoreError(f"{url} has files that are no tables ({shown}); a table has files that end with {', '.join(ENDINGS)}")
    if not infos:
        raise NotFound(f"there are no files in {url}")
    return TableParts(url, tuple(Part(info.key, info.etag, info.size) for info in sorted(infos, key=lambda info: info.key)))
