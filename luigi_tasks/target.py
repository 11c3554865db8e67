"""A Luigi target that is one object in the store, written once."""

from __future__ import annotations

import functools
import json
import os
from typing import Any

import luigi

from podium.prediction_log.replay import replay_gate
from podium.registry import provenance
from podium.registry.actors import signed_name
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer
from podium.registry.versions import fetch_from
from podium.settings import StoreSettings
from podium.storage.object_store import MAX_DOCUMENT_BYTES, AlreadyExists, Store
from podium.tables.labeled_rows import UnreadableRows


@functools.cache
def _store_of(process: int, bucket: str) -> Store:
    return StoreSettings(bucket=bucket).store()


def store(bucket: str | None = None) -> Store:
    """Return the store of a bucket; one per process, because connections do not survive a fork."""
    return _store_of(os.getpid(), bucket or StoreSettings().bucket)


def promotion_context(*, signing: bool) -> PromotionContext:
    """Return the context for promotions; reading needs no signing key. The caller must close `validator`. Raises BadKey."""
    settings = StoreSettings()
    signer = settings.signer() if signing else Signer.new()
    actor = signed_name(provenance.actor(settings.actor), signer)
    return PromotionContext(
        store(),
        settings.trust(),
        signer,
        actor,
        lambda *files: fetch_from(store())(*files),
        rules=settings.rules_for,
        replay=replay_gate,
    )


class StoreTarget(luigi.Target):
    """One object; `exists` checks exactly this key, not a prefix."""

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def url(self) -> str:
        return store().url(self.key)

    def exists(self) -> bool:
        return store().exists(self.key)

    def read(self) -> bytes:
        return store().read(self.key).data

    def document(self) -> dict[str, Any]:
        """Parse the JSON object written by an earlier task. Raises UnreadableRows."""
        try:
            content = json.loads(store().read(self.key, max_bytes=MAX_DOCUMENT_BYTES).data)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise UnreadableRows(f"{self.url} cannot be read: delete it and run again")
        return content

    def write(self, data: bytes) -> None:
        """Create the object, unless another worker has already written it from the same inputs."""
        try:
            store().create(self.key, data)
        except AlreadyExists:
            pass
