"""Snapshots: what came in, kept under its digest, so that every run can be repeated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from podium.store.s3 import Exists, Moved, Store, StoreError


class SourceChanged(StoreError):
    """The source was written again while it was read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
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


def take_snapshot(source: Store, url: str, etag: str, store: Store, project: str) -> Snapshot:
    """Copy the source in the state `etag` into the store, once. Raises SourceChanged."""
    try:
        data = source.read(split_url(url)[1], seen=etag).data
    except Moved:
        raise SourceChanged(f"{url} was written again while it was read; run again") from None
    snapshot = Snapshot(url, etag, hashlib.sha256(data).hexdigest(), len(data))
    try:
        store.create(snapshot_key(project, snapshot.sha256), data)
    except Exists:
        pass  # the name is the content's digest: what is there is the same
    return snapshot


def to_json(snapshot: Snapshot) -> bytes:
    return json.dumps(asdict(snapshot), indent=1).encode()


def from_json(data: bytes) -> Snapshot:
    return Snapshot(**json.loads(data))
