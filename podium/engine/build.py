"""Build the kernels with the C compiler of the package ziglang, for all supported processors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

FOLDER = Path(__file__).parent
TARGETS = {
    "x86_64_v2": ("x86_64-linux-gnu.2.17", "x86_64_v2"),
    "x86_64_v3": ("x86_64-linux-gnu.2.17", "x86_64_v3"),
    "aarch64": ("aarch64-linux-gnu.2.17", "generic"),
}
"""Name of a library to zig's target and processor. Version 3 of x86-64 has AVX2."""
# without contraction, a multiplication and an addition are rounded separately, as in the library that trained the model
OPTIONS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-s", "-Wall")


def compile_kernels() -> None:
    """Compile the kernels for every target. Raises CalledProcessError."""
    for name, (target, processor) in TARGETS.items():
        library = FOLDER / f"forest-{name}.so"
        command = [sys.executable, "-m", "ziglang", "cc", *OPTIONS, "-target", target, f"-mcpu={processor}"]
        subprocess.run([*command, "-o", str(library), *map(str, FOLDER.glob("*.c")), "-lm"], check=True)


def build_wheel(*arguments: Any, **options: Any) -> str:
    """Build a wheel that contains the kernels."""
    compile_kernels()
    return build_meta.build_wheel(*arguments, **options)


def build_editable(*arguments: Any, **options: Any) -> str:
    """Compile the kernels in the source folder and install it in development mode."""
    compile_kernels()
    return build_meta.build_editable(*arguments, **options)


def build_sdist(*arguments: Any, **options: Any) -> str:
    """Build a source distribution."""
    return build_meta.build_sdist(*arguments, **options)


if __name__ == "__main__":
    compile_kernels()
