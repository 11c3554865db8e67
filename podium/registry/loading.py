"""From a digest to proved models: every byte verified, every model shown to answer as it did when it was made."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from podium.models.edge_cases import check_edge_cases
from podium.models.golden_rows import GOLDEN, GoldenMismatch, verified_fast_path, verify_golden_rows
from podium.models.model import Model, RowScorer
from podium.models.serialization import UnsafePickle, load
from podium.registry.signing import VerifyingKeys
from podium.registry.versions import (
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
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store, StoreError


class ModelLoadError(StoreError):
    """A version that is whole and signed, but is no set of models that answer as they did."""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version in memory: its models, the best first, the fast paths that were proved, and how exactly they answered."""

    manifest: Manifest
    models: dict[str, Model]
    fast: dict[str, RowScorer | None]
    largest_difference: float


def load_manifest(project: str, version: str, sha256: str, fetch: Fetch, trainers: VerifyingKeys) -> Manifest:
    """The manifest of this digest. Raises Damaged, Unsigned."""
    return parse_manifest(verified(version_prefix(project, version) + MANIFEST, sha256, fetch), project, version, trainers)


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What was shown of a version: the largest difference to its golden rows, and the families whose fast path is equal."""

    largest_difference: float
    fast: tuple[str, ...]


def validate_version(manifest: Manifest, fetch: Fetch) -> ValidationResult:
    """Construct every model, hold it to the golden rows and try extreme ones. Raises StoreError: Damaged, else Unloadable."""
    with _unloadable(manifest):
        golden = GOLDEN.validate_json(read_file(manifest, GOLDEN_FILE, fetch))
        models = [load_model(manifest, family, fetch) for family in manifest.families]
        difference = max(verify_golden_rows(model, golden) for model in models)
        same = {model.family: check_edge_cases(model) for model in models}
        return ValidationResult(
            difference, tuple(model.family for model in models if same[model.family] and verified_fast_path(model, golden))
        )


def load_validated(manifest: Manifest, proof: ValidationResult, fetch: Fetch) -> LoadedVersion:
    """The models of a version whose very bytes were proved. Raises StoreError."""
    with _unloadable(manifest):
        models = {family: load_model(manifest, family, fetch) for family in manifest.families}
        fast = {family: model.compiled() if family in proof.fast else None for family, model in models.items()}
        return LoadedVersion(manifest, models, fast, proof.largest_difference)


@contextlib.contextmanager
def _unloadable(manifest: Manifest) -> Iterator[None]:
    """A file that is whole and signed may still hold anything: whatever it raises is one error."""
    try:
        yield
    except StoreError:
        raise
    except (UnsafePickle, GoldenMismatch) as error:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: {type(error).__name__} while it was loaded") from error


def load_model(manifest: Manifest, family: str, fetch: Fetch) -> Model:
    """Raises Damaged, Refused, and Unloadable for a model that takes other inputs than the manifest names."""
    model = load(read_file(manifest, model_file(family), fetch))
    if model.signature != manifest.signature:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: {family} has another signature than the manifest")
    return model


def fetcher(store: Store, cache: ModelCache) -> Fetch:
    """Files from the cache, else from the store."""
    return functools.partial(cache.fetch, store)
