"""What a run was made from: code, libraries and lock file, as digests and versions."""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from podium.project import Project
from podium.settings import ROOT

DECIDING_ROOMS = ("data", "learn", "model")
LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "lightgbm", "matplotlib", "onnxruntime")
COMPUTING = ("python", "numpy", "lightgbm", "onnxruntime")
LOCK = ROOT / "requirements.lock"


def code_digest() -> str:
    """One digest over the sources that decide what a run makes."""
    package = Path(__file__).parent
    files = sorted(path for room in DECIDING_ROOMS for path in (package / room).glob("*.py"))
    return hashlib.sha256(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in files)).hexdigest()


def libraries() -> dict[str, str]:
    """Python and the libraries that decide what a model answers."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def other_libraries(made_with: Mapping[str, str]) -> list[str]:
    """The libraries that compute predictions and are here of another release (the first two numbers), in words."""
    here = libraries()
    return [
        f"was made with {name} {made_with[name]}, here is {here[name]}"
        for name in COMPUTING
        if name in made_with and made_with[name].split(".")[:2] != here[name].split(".")[:2]
    ]


def lock_digest() -> str | None:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None


def git_revision() -> str | None:
    """The commit of the sources, with a + when they were changed since; None outside a checkout."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return result.stdout.strip() or None


def run_name(project: Project, sha256: str, until: str = "") -> str:
    """The name of a run: the digest of its data, its last day, its deciding configuration, its code and its libraries."""
    parts = [sha256, project.deciding(), code_digest(), libraries(), *([until] if until else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def actor(configured: str) -> str:
    try:
        return configured or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
