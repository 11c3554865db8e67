"""Load, validate and warm up the version that an audit-log entry names."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from podium.inference.served_model import ServedModel
from podium.prediction_log.replay import replay_gate
from podium.registry.audit_entry import AuditEntry
from podium.registry.loading import ModelLoadError
from podium.registry.promotion import PromotionContext
from podium.registry.provenance import library_mismatches
from podium.registry.signing import Signer, TrustPolicy
from podium.registry.validation import Validator
from podium.registry.versions import Fetch
from podium.storage.object_store import Store
from service.fast_path import fast_path_for

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VersionLoader:
    """Loads versions with one file fetcher, trust policy and validator; `load` blocks, so call it in a thread."""

    fetch: Fetch
    trust: TrustPolicy
    validator: Validator
    allow_library_mismatch: bool = False

    def load(self, entry: AuditEntry) -> ServedModel:
        """Return the entry's champion, ready to serve. Raises StoreError."""
        assert entry.champion and entry.manifest_sha256
        loaded = self.validator.load(entry.project, entry.champion, entry.manifest_sha256, self.fetch, self.trust.trainers)
        if mismatches := library_mismatches(loaded.manifest.libraries):
            reason = ", ".join(mismatches)
            if not self.allow_library_mismatch:
                raise ModelLoadError(f"{reason}. Golden rows match; set PODIUM_ALLOW_LIBRARY_MISMATCH=true to serve it anyway.")
            log.warning("%s %s %s", entry.project, entry.champion, reason)
        served = ServedModel.of(entry, loaded)
        fast_path_for(served)  # built before the swap, off the event loop
        return served

    def promotion_context(self, store: Store, signer: Signer) -> PromotionContext:
        """Return a context for promotions; `store` may have a longer timeout than the reconciler's store."""
        return PromotionContext(store, self.trust, signer, "", self.fetch, self.validator, replay=replay_gate)
