"""What a run depends on: digests and versions of the code, the libraries and the lock file."""

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
LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "lightgbm", "catboost", "matplotlib", "onnxruntime")
SCORING_LIBRARIES = ("python", "numpy", "lightgbm", "onnxruntime")
LOCK = ROOT / "requirements-train.lock"


def code_digest() -> str:
    """Return a digest of the code that determines the output of a run, ignoring comments, docstrings and formatting."""
    package = Path(__file__).parent.parent
    files = sorted(path for name in FINGERPRINTED_PACKAGES for path in (package / name).glob("*.py"))
    trees = (f"{path.name}\0{ast.dump(without_docstrings(ast.parse(path.read_bytes())))}" for path in files)
    return hashlib.sha256("\0".join(trees).encode()).hexdigest()


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove every statement that is only a string: docstrings and descriptions of constants."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def libraries() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect predictions."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a serving process may lack the training libraries
            found[name] = importlib.metadata.version(name)
    return found


def library_mismatches(trained_with: Mapping[str, str]) -> list[str]:
    """Return a message for each scoring library whose major or minor version differs."""
    installed = libraries()
    return [
        f"trained with {name} {trained_with[name]} but {installed[name]} is installed"
        for name in SCORING_LIBRARIES
        if name in trained_with and name in installed and trained_with[name].split(".")[:2] != installed[name].split(".")[:2]
    ]


def lock_digest() -> str | None:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None


def git_revision() -> str | None:
    """Return the commit of the source code, followed by + if it has local changes, or None outside a checkout."""
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
    """Return the configured name, or else the login name."""
    try:
        return configured or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
