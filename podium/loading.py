"""From a digest to proved models: every byte verified, every model shown to answer as it did when it was made."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from podium.model.golden import GOLDEN, Golden, ProofFailed, prove, proved_fast_path
from podium.model.model import Model, OneRecord
from podium.model.pickles import Refused, load
from podium.store.cache import Cache
from podium.store.s3 import Store, StoreError
from podium.store.signing import Keys
from podium.store.versions import (
    GOLDEN_FILE,
    MANIFEST,
    Fetch,
    Manifest,
    model_file,
    parse_manifest,
    read_file,
    verified,
    version_prefix,
)


class Unloadable(StoreError):
    """A version that is whole and signed, but is no set of models that answer as they did."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory: its models, the best first, the fast paths that were proved, and how exactly they answered."""

    manifest: Manifest
    models: dict[str, Model]
    fast: dict[str, OneRecord | None]
    largest_difference: float


def load_manifest(project: str, version: str, sha256: str, fetch: Fetch, trainers: Keys) -> Manifest:
    """The manifest of this digest. Raises Damaged, Unsigned."""
    return parse_manifest(verified(version_prefix(project, version) + MANIFEST, sha256, fetch), project, version, trainers)


def load_version(project: str, version: str, sha256: str, fetch: Fetch, trainers: Keys) -> Loaded:
    """Verify, construct and prove every model of the version whose manifest has this digest.

    Raises StoreError: Damaged, Unsigned, or Unloadable for whatever else is wrong with it.
    """
    manifest = load_manifest(project, version, sha256, fetch, trainers)
    try:
        return _loaded(manifest, fetch)
    except StoreError:
        raise
    except (Refused, ProofFailed) as error:
        raise Unloadable(f"{project} {version}: {error}") from error
    except Exception as error:  # a file that is whole and signed may still hold anything
        raise Unloadable(f"{project} {version}: {type(error).__name__} while it was loaded") from error


def _loaded(manifest: Manifest, fetch: Fetch) -> Loaded:
    golden = GOLDEN.validate_json(read_file(manifest, GOLDEN_FILE, fetch))
    models = {family: load_model(manifest, family, fetch) for family in manifest.families}
    differences = [prove(model, golden) for model in models.values()]
    fast = {family: proved_fast_path(model, golden) for family, model in models.items()}
    _warm(fast, golden)
    return Loaded(manifest, models, fast, max(differences))


def load_model(manifest: Manifest, family: str, fetch: Fetch) -> Model:
    return load(read_file(manifest, model_file(family), fetch))


def fetcher(store: Store, cache: Cache) -> Fetch:
    """Files from the cache, else from the store."""
    return functools.partial(cache.fetch, store)


def _warm(fast: dict[str, OneRecord | None], golden: Golden) -> None:
    for path in filter(None, fast.values()):
        for row in golden.rows:
            path(row)
