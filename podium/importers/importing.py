"""A foreign file to a version: turned in a child that may do nothing else, whose answer is checked."""

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

KINDS = ("scikit-learn", "LightGBM", "statsmodels", "Keras", "ONNX")
MOST_ANSWER = 1 << 28
MEMORY = 4 << 30
"""What the child may need beyond the libraries."""


def import_model(
    wish: ImportRequest, project: Project, now: datetime, author: str, parent: str | None, seconds: float
) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and its files, ready to publish. Raises Refusal."""
    turned = convert_in_sandbox(wish, seconds)
    sha256 = digest(wish.data)
    files = dict(turned.files)
    if not turned.embedded_training_rows:  # a file that carries training rows is not kept
        files[IMPORTED_FILES + _plain_name(wish.file)] = wish.data
    options = json.dumps([sha256, wish.name, wish.target, wish.classes, digest(wish.sample or b"")])
    claim = VersionReservation.now(now, hashlib.sha256(options.encode()).hexdigest()[:24], sha256, parent)
    data: dict[str, str | int | float] = {
        "file": _plain_name(wish.file),
        "kind": turned.kind,
        "sha256": sha256,
        "compared": turned.compared,
        "largest_difference": turned.largest_difference,
        "allowed_difference": turned.allowed_difference,
        "training_rows_left_out": turned.embedded_training_rows,
    }
    return build_manifest(claim, project, turned.signature, data, files, author, turned.predictions), files


def _plain_name(file: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in Path(file).name)


def convert_in_sandbox(wish: ImportRequest, seconds: float) -> ImportResult:
    """Convert a file in a sandboxed child process. Raises ImportRefused."""
    limits = ProcessLimits(seconds, MEMORY, 4 * len(wish.data) + MOST_ANSWER)
    try:
        with ForkServer("podium.importers.conversion_worker") as server:
            text = server.call(wish, limits)
    except WorkError as error:
        raise ImportRefused(str(error)[:2000]) from None
    except SandboxError as error:
        raise ImportRefused(f"the conversion process {error}") from None
    return _believed(text, wish)


def _believed(text: str, wish: ImportRequest) -> ImportResult:
    """The child has handled bytes of unknown origin: its answer is checked as if they had written it. Raises Refusal."""
    try:
        turned = ImportResult.from_json(text)
        expected = {model_file(wish.name), GOLDEN_FILE, TEST_FILE, LEADERBOARD_FILE}
        sound = set(turned.files) == expected and turned.signature.target.name and turned.kind in KINDS
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise ImportRefused("the process that looked at the file gave no sound answer")
    return turned
