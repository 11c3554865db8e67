"""Convert a model file in a sandboxed child process and validate the result."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path

from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.project import Project
from podium.registry.versions import GOLDEN_FILE, IMPORTED_FILES, LEADERBOARD_FILE, TEST_FILE, Manifest, model_file
from podium.sandbox.child_process import SandboxError, WorkError
from podium.sandbox.fork_server import ForkServer
from podium.sandbox.process_limits import ProcessLimits
from podium.storage.object_store import digest
from podium.training.version_files import VersionReservation, build_manifest

RUNNERS = ("", "sandboxed")
KINDS = ("scikit-learn", "LightGBM", "XGBoost", "CatBoost", "statsmodels", "Keras", "ONNX")
MAX_OVERHEAD_BYTES = 1 << 28
"""Maximum size of a result, in addition to a multiple of the file size."""
MAX_MEMORY_BYTES = 4 << 30
"""Maximum memory of the child process, in addition to its libraries."""


def import_model(
    request: ImportRequest, project: Project, now: datetime, author: str, parent: str | None, seconds: float
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the files to publish. Raises ImportRefused."""
    result = convert_in_sandbox(request, seconds)
    sha256, file = digest(request.data), _safe_name(request.file)
    files = dict(result.files)
    if not result.embedded_training_rows:  # a file with training rows is not kept
        files[IMPORTED_FILES + file] = request.data
    files |= {f"{IMPORTED_FILES}preprocessing-{number}": part for number, part in enumerate(request.preprocessing, 1)}
    options = json.dumps(
        [sha256, request.name, request.target, request.classes, digest(request.sample or b"")]
        + [digest(part) for part in request.preprocessing]
    )
    run = hashlib.sha256(options.encode()).hexdigest()[:24]
    data: dict[str, str | int | float] = {
        "file": file,
        "kind": result.kind,
        "sha256": sha256,
        "compared": result.compared,
        "largest_difference": result.largest_difference,
        "allowed_difference": result.allowed_difference,
        "training_rows_left_out": result.embedded_training_rows,
        "reference": result.reference,
        "runner": result.runner,
        "warnings": "\n".join(result.warnings),
    }
    reservation = VersionReservation.now(now, run, sha256, parent)
    return build_manifest(reservation, project, result.signature, data, files, author, result.predictions), files


def _safe_name(file: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(file).name)


def convert_in_sandbox(request: ImportRequest, seconds: float) -> ImportResult:
    """Convert the file in a child process; this process never parses it. Raises ImportRefused."""
    limits = ProcessLimits(seconds, MAX_MEMORY_BYTES, 4 * len(request.data) + MAX_OVERHEAD_BYTES)
    try:
        with ForkServer("podium.importers.conversion_worker") as server:
            text = server.call(request, limits)
    except WorkError as error:
        raise ImportRefused(str(error)[:2000]) from None
    except SandboxError as error:
        raise ImportRefused(f"the conversion process {error}; pass a smaller sample or more --seconds") from None
    return validate_result(text, request)


def validate_result(text: str, request: ImportRequest) -> ImportResult:
    """Parse the child's output, which is untrusted because the child has read an untrusted file. Raises ImportRefused."""
    try:
        result = ImportResult.from_json(text)
        expected = {model_file(request.name), GOLDEN_FILE, TEST_FILE, LEADERBOARD_FILE}
        valid = set(result.files) == expected and result.signature.target.name and result.kind in KINDS
        valid = valid and result.runner in RUNNERS
    except (ValueError, TypeError, KeyError, AttributeError):
        valid = False
    if not valid:
        raise ImportRefused("the conversion process returned an invalid result: do not trust this file")
    return result
