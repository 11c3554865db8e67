"""Actors in the audit log: a stated name and the key that identifies its owner."""

from __future__ import annotations

from podium.registry.audit_entry import GateResult
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.versions import Manifest

KEY_PREFIX = " (key "


def signed_name(name: str, signer: Signer) -> str:
    """Return a name together with the key that identifies its owner."""
    return f"{name}{KEY_PREFIX}{signer.name})"


def name_of(person: str) -> str:
    return person.partition(KEY_PREFIX)[0].strip()


def four_eyes(manifest: Manifest, trainers: VerifyingKeys, by: str, signer: Signer) -> GateResult:
    """Check that the promoter's key and name both differ from the trainer's. A name alone can be forged."""
    keys = trainers.signers(manifest.model_dump(mode="json"))
    author, promoter = name_of(manifest.author), name_of(by)
    differs = bool(keys) and signer.name not in keys and author.casefold() != promoter.casefold()
    detail = f"trained by {author} (key {', '.join(sorted(keys))}), promoted by {promoter} (key {signer.name})"
    return GateResult(name="four-eyes", passed=differs, detail=detail)
