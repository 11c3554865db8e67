"""Dataset snapshots: source data stored under its digest, so that every run can be repeated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Self

from podium.storage.object_store import AlreadyExists, PreconditionFailed, Store, StoreError, digest


class SourceChanged(StoreError):
    """The source was overwritten while it was read."""


@dataclass(frozen=True, slots=True)
class DatasetSnapshot:
    """One state of a source: its URL and ETag, and the sha256 and size of its bytes."""

    url: str
    etag: str
    sha256: str
    size: int

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        return cls(**json.loads(data))


def split_url(url: str) -> tuple[str, str]:
    """Split s3://bucket/key into bucket and key."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def snapshot_key(project: str, sha256: str) -> str:
    return f"datasets/{project}/{sha256}/data"


def receipt_key(project: str, url: str, etag: str) -> str:
    """Return the key of the record that maps one state of a source to its snapshot."""
    return f"datasets/{project}/sources/{digest(f'{url} {etag}'.encode())[:32]}.json"


def snapshot_as_of(store: Store, project: str, url: str, end: datetime) -> DatasetSnapshot | None:
    """Return the last snapshot of a source that was taken before `end`; None if there is none."""
    infos = [info for info in store.list_objects(f"datasets/{project}/sources/") if info.modified < end]
    for info in sorted(infos, key=lambda info: info.modified, reverse=True):
        snapshot = DatasetSnapshot.from_json(store.read(info.key).data)
        if snapshot.url == url:
            return snapshot
    return None


def take_snapshot(source: Store, url: str, etag: str, store: Store, project: str) -> DatasetSnapshot:
    """Copy the source into the store unless it is already there. Raises SourceChanged if its ETag is different."""
    try:
        data = source.read(split_url(url)[1], if_match=etag).data
    except PreconditionFailed:
        raise SourceChanged(f"{url} was overwritten while it was read; run again") from None
    snapshot = DatasetSnapshot(url, etag, digest(data), len(data))
    create_by_digest(store, snapshot_key(project, snapshot.sha256), data)
    return snapshot


def create_by_digest(store: Store, key: str, data: bytes) -> None:
    """Create an object whose key contains its digest, unless the key exists; an existing object has the same content."""
    try:
        store.create(key, data)
    except AlreadyExists:
        pass
