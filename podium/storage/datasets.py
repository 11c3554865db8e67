"""Snapshots: what came in, kept under its digest, so that every run can be repeated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from podium.storage.object_store import AlreadyExists, PreconditionFailed, Store, StoreError


class SourceChanged(StoreError):
    """The source was written again while it was read."""


@dataclass(frozen=True, slots=True)
class DatasetSnapshot:
    """One state of a source: where it lay, under which ETag, and the sha256 and size of its bytes."""

    url: str
    etag: str
    sha256: str
    size: int


def split_url(url: str) -> tuple[str, str]:
    """s3://bucket/key to (bucket, key)."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def snapshot_key(project: str, sha256: str) -> str:
    return f"datasets/{project}/{sha256}/data"


def receipt_key(project: str, url: str, etag: str) -> str:
    """Where it is noted which snapshot a state of the source became."""
    return f"datasets/{project}/sources/{hashlib.sha256(f'{url} {etag}'.encode()).hexdigest()[:32]}.json"


def take_snapshot(source: Store, url: str, etag: str, store: Store, project: str) -> DatasetSnapshot:
    """Copy the source in the state `etag` into the store, once. Raises SourceChanged."""
    try:
        data = source.read(split_url(url)[1], seen=etag).data
    except PreconditionFailed:
        raise SourceChanged(f"{url} was written again while it was read; run again") from None
    snapshot = DatasetSnapshot(url, etag, hashlib.sha256(data).hexdigest(), len(data))
    try:
        store.create(snapshot_key(project, snapshot.sha256), data)
    except AlreadyExists:
        pass  # the name is the content's digest: what is there is the same
    return snapshot


def to_json(snapshot: DatasetSnapshot) -> bytes:
    return json.dumps(asdict(snapshot), indent=1).encode()


def from_json(data: bytes) -> DatasetSnapshot:
    return DatasetSnapshot(**json.loads(data))
