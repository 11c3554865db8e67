"""Load a version only after a sandboxed child process has loaded it and reproduced its golden rows.

A damaged model may crash, hang or exhaust memory instead of raising an error. The child gets the same bytes that are
loaded afterwards, and cannot fetch any others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from podium.registry.loading import LoadedVersion, ModelLoadError, ValidationResult, load_manifest, load_validated
from podium.registry.signing import VerifyingKeys
from podium.registry.validation_worker import RESULT, ValidationRequest
from podium.registry.versions import GOLDEN_FILE, Fetch, Manifest, model_file, read_file, version_prefix
from podium.sandbox.child_process import SandboxError, WorkError
from podium.sandbox.fork_server import ForkServer
from podium.sandbox.process_limits import ProcessLimits
from podium.storage.files import atomic_write, file_lock

MAX_MEMORY_BYTES = 2 << 30
"""Maximum memory of a validation, in addition to what the fork server uses."""

MAX_CONCURRENT = 4


class Validator:
    """Loads versions after a sandboxed child has loaded them; thread-safe.

    `cache_folder` shares results between the processes of one service; no other process may write to it.
    """

    def __init__(
        self,
        seconds: float = 30.0,
        max_bytes: int = MAX_MEMORY_BYTES,
        cache_folder: Path | None = None,
        max_concurrent: int = MAX_CONCURRENT,
    ) -> None:
        self._limits, self._cache_folder = ProcessLimits(seconds, max_bytes), cache_folder
        self._server = ForkServer("podium.registry.validation_worker", max_concurrent)

    def load(self, project: str, version: str, sha256: str, fetch: Fetch, trainers: VerifyingKeys) -> LoadedVersion:
        """Return the models of a version, validated in a child process and loaded from the same bytes. Raises StoreError."""
        manifest = load_manifest(project, version, sha256, fetch, trainers)
        size, max_bytes = sum(file.size for file in manifest.files.values()), self._limits.memory_bytes
        if size > max_bytes:
            raise ModelLoadError(f"{project} {version}: the files have {size} bytes; validation accepts at most {max_bytes}")
        files = _read_files(manifest, fetch)
        with self._cached_result(sha256) as cached:
            result = cached or self._validate(ValidationRequest(manifest, files))
            if self._cache_folder and not cached:
                with contextlib.suppress(OSError):  # without this file, other processes validate the version themselves
                    atomic_write(self._cache_folder / f"{sha256}.json", RESULT.dump_json(result))
        return load_validated(manifest, result, lambda key, *_: files[key])

    def start(self) -> None:
        """Start the fork server ahead of the first validation."""
        self._server.start()

    def close(self) -> None:
        self._server.close()

    @contextlib.contextmanager
    def _cached_result(self, sha256: str) -> Iterator[ValidationResult | None]:
        """Yield the result that another process has cached for this manifest, or None; hold the manifest's lock meanwhile."""
        if not self._cache_folder:
            yield None
            return
        with file_lock(self._cache_folder / f"{sha256}.lock"):
            try:
                result: ValidationResult | None = RESULT.validate_json((self._cache_folder / f"{sha256}.json").read_bytes())
            except (OSError, ValueError):
                result = None
            yield result

    def _validate(self, request: ValidationRequest) -> ValidationResult:
        name = f"{request.manifest.project} {request.manifest.version}"
        try:
            return RESULT.validate_json(self._server.call(request, self._limits))
        except WorkError as error:
            raise ModelLoadError(str(error)) from None
        except SandboxError as error:
            raise ModelLoadError(f"{name}: the validation process {error}") from None
        except ValidationError:
            raise ModelLoadError(f"{name}: the validation process returned an invalid result") from None


def _read_files(manifest: Manifest, fetch: Fetch) -> dict[str, bytes]:
    """Return the verified bytes of the golden rows and the models, by key."""
    names = [GOLDEN_FILE, *map(model_file, manifest.families)]
    return {version_prefix(manifest.project, manifest.version) + name: read_file(manifest, name, fetch) for name in names}
