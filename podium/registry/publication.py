"""Publish a version after a sandboxed child process has loaded it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from podium.registry.signing import SIGNATURES, Signer, VerifyingKeys
from podium.registry.validation import Validator
from podium.registry.versions import MANIFEST, Manifest, publish, version_prefix
from podium.storage.object_store import Store, digest


def publish_checked(store: Store, manifest: Manifest, files: Mapping[str, bytes], signer: Signer, validator: Validator) -> None:
    """Validate and publish a version. Raises StoreError."""
    check_loads(manifest, files, validator)
    publish(store, manifest, files, signer)


def check_loads(manifest: Manifest, files: Mapping[str, bytes], validator: Validator) -> None:
    """Validate a version before it is published. Raises StoreError."""
    temporary, document = Signer.new(), manifest.model_dump(mode="json")
    # the validator only loads signed versions, so sign this one with a temporary key
    signed = json.dumps({**document, SIGNATURES: temporary.sign(document)}, ensure_ascii=False).encode()
    prefix = version_prefix(manifest.project, manifest.version)
    objects = {prefix + name: data for name, data in {**files, MANIFEST: signed}.items()}
    validator.load(
        manifest.project, manifest.version, digest(signed), lambda key, *_: objects[key], VerifyingKeys([temporary.public])
    )
