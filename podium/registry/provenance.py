"""What a run was made from: code, libraries and lock file, as digests and versions."""

from __future__ import annotations

import ast
import contextlib
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

FINGERPRINTED_PACKAGES = ("schema", "tables", "models", "training")
LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "lightgbm", "matplotlib", "onnxruntime")
SCORING_LIBRARIES = ("python", "numpy", "lightgbm", "onnxruntime")
LOCK = ROOT / "requirements-train.lock"


def code_digest() -> str:
    """Return a digest of the code that decides what a run makes; comments, docstrings and formatting do not count."""
    package = Path(__file__).parent.parent
    files = sorted(path for name in FINGERPRINTED_PACKAGES for path in (package / name).glob("*.py"))
    trees = (f"{path.name}\0{ast.dump(without_docstrings(ast.parse(path.read_bytes())))}" for path in files)
    return hashlib.sha256("\0".join(trees).encode()).hexdigest()


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove every expression that is only a string: docstrings, and descriptions of constants."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def libraries() -> dict[str, str]:
    """Python and the libraries that decide what a model answers."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a process that serves has no library for training
            found[name] = importlib.metadata.version(name)
    return found


def library_mismatches(made_with: Mapping[str, str]) -> list[str]:
    """The libraries that compute predictions and are here of another release (the first two numbers), in words."""
    here = libraries()
    return [
        f"was made with {name} {made_with[name]}, here is {here[name]}"
        for name in SCORING_LIBRARIES
        if name in made_with and name in here and made_with[name].split(".")[:2] != here[name].split(".")[:2]
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
    """Return the name of a run: a digest of its data, last day, training configuration, code and libraries."""
    parts = [sha256, project.training_config(), code_digest(), libraries(), *([until] if until else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def actor(configured: str) -> str:
    try:
        return configured or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
