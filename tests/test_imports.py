"""The rooms and the arrows between them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"podium", "luigi_tasks", "service", "lambda_refresh", "local_cloud", "cli", "benchmarks", "tests"}
ALLOWED = {
    "podium": set(),
    "luigi_tasks": {"podium"},
    "service": {"podium"},
    "lambda_refresh": set(),
    "local_cloud": set(),
    "cli": {"podium", "luigi_tasks", "service", "lambda_refresh", "local_cloud"},
}
FORBIDDEN = {
    "podium": {"luigi", "fastapi", "starlette", "uvicorn", "dask", "distributed"},
    "service": {"luigi"},
    "luigi_tasks": {"fastapi", "dask"},
}
LAYERS = ["data", "model", "learn"]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not (tops & ROOMS) - ALLOWED[room] - {room}, path
        assert not tops & FORBIDDEN.get(room, set()), path


def test_the_lambda_needs_the_standard_library_only() -> None:
    import sys

    for path in (ROOT / "lambda_refresh").rglob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= set(sys.stdlib_module_names) | {"boto3", "lambda_refresh"}


@pytest.mark.parametrize("lower", LAYERS)
def test_data_knows_no_model_and_models_know_no_learning(lower: str) -> None:
    above = {f"podium.{name}" for name in LAYERS[LAYERS.index(lower) + 1 :]}
    for path in (ROOT / "podium" / lower).glob("*.py"):
        assert not {".".join(name.split(".")[:2]) for name in imported(path)} & above, path


def test_serving_does_not_need_learning() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        assert not any(name.startswith("podium.learn") for name in imported(path)), path


NAMES = {
    "prometheus_client": "prometheus-client",
    "sklearn": "scikit-learn",
    "pydantic_settings": "pydantic-settings",
    "dask": "dask",
    "fastapi_offline": "fastapi-offline",
}


def test_what_the_images_need_is_locked_for_them() -> None:
    """The development lock holds more, so that only an image would miss a name."""
    import sys

    wanted = re.findall(r"^[a-z0-9-]+", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    for room in ("podium", "luigi_tasks", "service"):
        for path in (ROOT / room).rglob("*.py"):
            tops = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names) - ROOMS
            assert {NAMES.get(top, top) for top in tops} - {"botocore", "distributed"} <= set(wanted), path
