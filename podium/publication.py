"""A version is loaded by a child process with limits before it is signed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from podium.prover import Prover
from podium.store.s3 import Store
from podium.store.signing import SIGNATURES, Keys, Signer
from podium.store.versions import MANIFEST, Manifest, digest, publish, version_prefix


def publish_checked(store: Store, manifest: Manifest, files: Mapping[str, bytes], signer: Signer, prover: Prover) -> None:
    """Publish a version whose models a child could load and which give their golden rows. Raises StoreError."""
    check_loads(manifest, files, prover)
    publish(store, manifest, files, signer)


def check_loads(manifest: Manifest, files: Mapping[str, bytes], prover: Prover) -> None:
    """The prover takes signed versions only, so a key that is used once signs this one. Raises StoreError."""
    once, document = Signer.new(), manifest.model_dump(mode="json")
    signed = json.dumps({**document, SIGNATURES: once.sign(document)}, ensure_ascii=False).encode()
    prefix = version_prefix(manifest.project, manifest.version)
    there = {prefix + name: data for name, data in {**files, MANIFEST: signed}.items()}
    prover.load(manifest.project, manifest.version, digest(signed), lambda key, *_: there[key], Keys([once.public]))
