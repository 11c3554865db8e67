"""Keys identify people; names are what they call themselves."""

from __future__ import annotations

from podium.registry.audit_log import GateResult
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.versions import Manifest

KEY = " (key "


def signed_name(name: str, signer: Signer) -> str:
    """A person with the key that identifies them, for the history."""
    return f"{name}{KEY}{signer.name})"


def name_of(person: str) -> str:
    return person.partition(KEY)[0].strip()


def four_eyes(manifest: Manifest, trainers: VerifyingKeys, by: str, signer: Signer) -> GateResult:
    """Whether another key and another name promotes than trained: a name alone, which anybody may state, never suffices."""
    keys = trainers.signers(manifest.model_dump(mode="json"))
    author, promoter = name_of(manifest.author), name_of(by)
    other = bool(keys) and signer.name not in keys and author.casefold() != promoter.casefold()
    detail = f"trained by {author} (key {', '.join(sorted(keys))}), promoted by {promoter} (key {signer.name})"
    return GateResult(name="four-eyes", passed=other, detail=detail)
