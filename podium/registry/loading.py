"""Load the models of a version: verify every byte and check that each model reproduces its golden rows."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from podium.models.edge_cases import check_edge_cases
from podium.models.golden_rows import GOLDEN, GoldenMismatch, verified_fast_path, verify_golden_rows
from podium.models.model import Model, RowScorer
from podium.models.runner_scorer import RunnerScorer
from podium.models.serialization import UnsafePickle, load
from podium.registry.signing import VerifyingKeys
from podium.registry.versions import (
    GOLDEN_FILE,
    MANIFEST,
    Fetch,
    Manifest,
    fetch_verified,
    model_file,
    parse_manifest,
    read_file,
    version_prefix,
)
from podium.sandbox.child_process import SandboxError
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store, StoreError


class ModelLoadError(StoreError):
    """The version is complete and signed, but its models fail to load or do not reproduce their golden rows."""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version in memory: its models, best first, their fast paths, and the largest difference from the golden rows."""

    manifest: Manifest
    models: dict[str, Model]
    fast: dict[str, RowScorer | None]
    largest_difference: float


def load_manifest(project: str, version: str, sha256: str, fetch: Fetch, trainers: VerifyingKeys) -> Manifest:
    """Return the manifest with this digest. Raises IntegrityError, Unsigned."""
    data = fetch_verified(version_prefix(project, version) + MANIFEST, sha256, fetch)
    return parse_manifest(data, project, version, trainers)


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The largest difference from the golden rows, and the families whose fast path gives identical results."""

    largest_difference: float
    fast: tuple[str, ...]


def validate_version(manifest: Manifest, fetch: Fetch) -> ValidationResult:
    """Load every model and check its golden rows and edge cases. Raises StoreError."""
    with _load_errors(manifest):
        golden = GOLDEN.validate_json(read_file(manifest, GOLDEN_FILE, fetch))
        models = [load_model(manifest, family, fetch) for family in manifest.families]
        difference = max(verify_golden_rows(model, golden) for model in models)
        same_on_edge_cases = [model for model in models if check_edge_cases(model)]
        return ValidationResult(
            difference, tuple(model.family for model in same_on_edge_cases if verified_fast_path(model, golden))
        )


def load_validated(manifest: Manifest, result: ValidationResult, fetch: Fetch) -> LoadedVersion:
    """Load the models of a version from validated bytes. Raises StoreError."""
    with _load_errors(manifest):
        models = {family: load_model(manifest, family, fetch) for family in manifest.families}
        for model in models.values():
            if isinstance(model.scorer, RunnerScorer):
                model.scorer.start()
        fast = {family: model.compiled() if family in result.fast else None for family, model in models.items()}
        return LoadedVersion(manifest, models, fast, result.largest_difference)


@contextlib.contextmanager
def _load_errors(manifest: Manifest) -> Iterator[None]:
    """Convert any error that a file causes to ModelLoadError; signed files may still contain anything."""
    try:
        yield
    except StoreError:
        raise
    except (UnsafePickle, GoldenMismatch) as error:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: {error}") from error
    except SandboxError as error:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: the runner process {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: loading raised {type(error).__name__}") from error


def load_model(manifest: Manifest, family: str, fetch: Fetch) -> Model:
    """Load one model. Raises IntegrityError, UnsafePickle, and ModelLoadError if its signature differs from the manifest's."""
    model = load(read_file(manifest, model_file(family), fetch))
    if model.signature != manifest.signature:
        raise ModelLoadError(f"{manifest.project} {manifest.version}: the signature of {family} differs from the manifest's")
    return model


def fetcher(store: Store, cache: ModelCache) -> Fetch:
    """Return a function that fetches files from the cache or else from the store."""
    return functools.partial(cache.fetch, store)
