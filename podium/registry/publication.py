"""A version is loaded by a child process with limits before it is signed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from podium.registry.signing import SIGNATURES, Signer, VerifyingKeys
from podium.registry.validation import Validator
from podium.registry.versions import MANIFEST, Manifest, publish, version_prefix
from podium.storage.object_store import Store, digest


def publish_checked(store: Store, manifest: Manifest, files: Mapping[str, bytes], signer: Signer, validator: Validator) -> None:
    """Publish a version whose models a child could load and which give their golden rows. Raises StoreError."""
    check_loads(manifest, files, validator)
    publish(store, manifest, files, signer)


def check_loads(manifest: Manifest, files: Mapping[str, bytes], validator: Validator) -> None:
    """The validator takes signed versions only, so a key that is used once signs this one. Raises StoreError."""
    once, document = Signer.new(), manifest.model_dump(mode="json")
    signed = json.dumps({**document, SIGNATURES: once.sign(document)}, ensure_ascii=False).encode()
    prefix = version_prefix(manifest.project, manifest.version)
    there = {prefix + name: data for name, data in {**files, MANIFEST: signed}.items()}
    validator.load(manifest.project, manifest.version, digest(signed), lambda key, *_: there[key], VerifyingKeys([once.public]))
