"""Ed25519 signatures of JSON documents: manifests and audit-log entries."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from podium.storage.object_store import StoreError

SIGNATURES = "signatures"


class Unsigned(StoreError):
    """The document is not signed by an accepted key."""


class BadKey(Exception):
    """A configured key is missing or not valid; the message names the setting and may say how to create a key."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the bytes to sign: the document as JSON, without its signatures, with sorted keys and no spaces."""
    rest = {key: value for key, value in document.items() if key != SIGNATURES}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Signer:
    """A private key. Its text form is the 32-byte seed in base64."""

    _key: Ed25519PrivateKey

    @classmethod
    def new(cls) -> Self:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str, setting: str = "PODIUM_SIGNING_KEY") -> Self:
        """Parse the text form of a key. Raises BadKey, which names the setting."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError):
            raise BadKey(f"{setting} is not a valid Ed25519 key. Create keys with `podium keys new`.") from None

    @property
    def private(self) -> str:
        return base64.b64encode(self._key.private_bytes_raw()).decode()

    @property
    def public(self) -> str:
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @property
    def name(self) -> str:
        """The name of the public key."""
        return key_name(self.public)

    def sign(self, document: Mapping[str, Any]) -> dict[str, str]:
        """Return the signatures of a document by key name."""
        return {self.name: base64.b64encode(self.sign_bytes(canonical(document))).decode()}

    def sign_bytes(self, data: bytes) -> bytes:
        """Return the signature of 64 bytes."""
        return self._key.sign(data)


def key_name(public: str) -> str:
    """Return a short name for a public key."""
    return hashlib.sha256(public.encode()).hexdigest()[:16]


class VerifyingKeys:
    """Public keys whose signatures are accepted; there are several during a key rotation.

    Signatures of `retired` keys are accepted only in what is past: use `past`.
    """

    def __init__(self, public: Iterable[str], retired: Iterable[str] = ()) -> None:
        self.public, self._retired = tuple(public), tuple(retired)
        self._keys = {key_name(text): _public(text) for text in self.public}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def past(self) -> VerifyingKeys:
        """The keys whose signatures are accepted in the history, where a digest names what was signed."""
        return VerifyingKeys((*self.public, *self._retired)) if self._retired else self

    def verify_bytes(self, public: str, signature: bytes, data: bytes) -> None:
        """Check that one of the keys signed the data. Raises InvalidSignature, KeyError."""
        self._keys[key_name(public)].verify(signature, data)

    def signers(self, document: Mapping[str, Any]) -> set[str]:
        """Return the names of the accepted keys that signed the document."""
        return {name for name, key in self._keys.items() if _has_signed(key, name, document)}

    def check(self, data: bytes, what: str) -> dict[str, Any]:
        """Parse `data` and return the document if an accepted key signed it. Raises Unsigned."""
        try:
            document = json.loads(data)
            signatures = document[SIGNATURES]
            for name, key in self._keys.items():
                if name in signatures:
                    key.verify(base64.b64decode(signatures[name]), canonical(document))
                    return dict(document)
        except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature, RecursionError):
            pass
        raise Unsigned(f"{what} is not signed by an accepted key")


def _has_signed(key: Ed25519PublicKey, name: str, document: Mapping[str, Any]) -> bool:
    try:
        key.verify(base64.b64decode(document[SIGNATURES][name]), canonical(document))
    except (ValueError, KeyError, TypeError, InvalidSignature):
        return False
    return True


def _public(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise BadKey(
            "PODIUM_TRAINER_KEYS, PODIUM_PROMOTER_KEYS, PODIUM_RETIRED_KEYS and PODIUM_LOG_KEYS must be JSON lists of public "
            "Ed25519 keys"
        ) from None


@dataclass(frozen=True)
class TrustPolicy:
    """The keys trusted to sign versions, and those trusted to sign promotions."""

    trainers: VerifyingKeys
    promoters: VerifyingKeys
