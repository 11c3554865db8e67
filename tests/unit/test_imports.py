"""The packages and the only dependencies between them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = {"podium", "luigi_tasks", "service", "lambda_refresh", "benchmarks", "tests"}
PACKAGES: dict[str, set[str]] = {
    "schema": set(),
    "storage": {"schema"},
    "tables": {"schema"},
    "engine": {"schema"},
    "models": {"schema", "tables", "engine", "sandbox"},
    "sandbox": set(),
    "registry": {"schema", "tables", "engine", "models", "storage", "sandbox"},
    "inference": {"schema", "tables", "models", "storage", "registry"},
    "prediction_log": {"schema", "tables", "models", "storage", "registry", "inference"},
    "monitoring": {"schema", "tables", "models", "storage", "registry", "prediction_log"},
    "training": {"schema", "tables", "models", "storage", "registry"},
    "importers": {"schema", "tables", "models", "storage", "registry", "sandbox", "training"},
}
"""Packages of the library and those of them that each may import; all may import the loose `project` and `settings`."""
COMMANDS = {"cli", "local"}
"""The only packages of `podium` that may import the pipeline, the service and the Lambda."""
FORBIDDEN = {
    "podium": {"luigi", "fastapi", "starlette", "uvicorn", "dask", "distributed"},
    "service": {"luigi"},
    "luigi_tasks": {"fastapi", "dask"},
}
NOT_SERVED = ["podium.training", "podium.monitoring", "podium.importers", "luigi", "statsmodels", "matplotlib", "sklearn"]
NOT_SERVED += ["skl2onnx", "catboost"]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def modules(package: str) -> list[Path]:
    """The modules of a top-level package, without the commands of `podium`."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return [path for path in paths if path.relative_to(ROOT).parts[1] not in COMMANDS]


@pytest.mark.parametrize(("package", "allowed"), [("podium", set()), ("luigi_tasks", {"podium"}), ("service", {"podium"})])
def test_the_pipeline_and_the_service_import_only_the_library(package: str, allowed: set[str]) -> None:
    for path in modules(package):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not (tops & TOP) - allowed - {package}, path
        assert not tops & FORBIDDEN[package], path


@pytest.mark.parametrize("package", PACKAGES)
def test_dependencies_within_the_library_point_one_way(package: str) -> None:
    for path in (ROOT / "podium" / package).rglob("*.py"):
        own = {name.split(".")[1] for name in imported(path) if name.startswith("podium.")}
        assert not (own & (PACKAGES.keys() | COMMANDS)) - PACKAGES[package] - {package}, path


def test_every_package_of_the_library_has_its_dependencies_stated() -> None:
    folders = {path.parent.name for path in (ROOT / "podium").glob("*/__init__.py")}
    assert folders - COMMANDS == PACKAGES.keys()
    assert {path.stem for path in (ROOT / "podium").glob("*.py")} == {"__init__", "formatting", "project", "settings"}


def test_the_lambda_needs_the_standard_library_only() -> None:
    for path in (ROOT / "lambda_refresh").rglob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= set(sys.stdlib_module_names) | {"boto3", "lambda_refresh"}


def test_a_process_that_serves_loads_nothing_for_training() -> None:
    """Transitively: what is in `sys.modules` of a fresh process."""
    program = "import json, sys, service.app, service.server; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = json.loads(result.stdout)
    assert [name for name in NOT_SERVED if name in loaded] == []


DISTRIBUTIONS = {
    "prometheus_client": "prometheus-client",
    "openlineage": "openlineage-python",
    "sklearn": "scikit-learn",
    "pydantic_settings": "pydantic-settings",
    "fastapi_offline": "fastapi-offline",
}
EXTRAS = {
    "service": ["serve"],
    "luigi_tasks": ["train", "lineage"],
    "podium/training": ["train"],
    "podium/monitoring": ["train"],
    "podium/importers": ["import"],
    "podium/local": ["local"],
    "podium/cli": ["serve", "train", "import"],
    **{f"podium/{name}": [] for name in PACKAGES if name not in ("training", "monitoring", "importers")},
}


@pytest.mark.parametrize("package", EXTRAS)
def test_a_package_imports_only_what_its_extra_installs(package: str) -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"] + "".join(config["options.extras_require"][name] for name in EXTRAS[package])
    allowed = {re.split(r"[\[<>=;]", line)[0] for line in lines.split("\n")}
    for path in (ROOT / package).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names) - TOP
        assert {DISTRIBUTIONS.get(top, top) for top in tops} - {"botocore", "distributed", "setuptools"} <= allowed, path


def test_a_folder_called_podium_does_not_hide_the_package_from_its_processes() -> None:
    started = re.compile(r'sys\.executable\}?,? "?-m|\[python, "-m')
    unsafe = {path.stem for package in ("podium", "service") for path in modules(package) if started.search(path.read_text())}
    assert unsafe == {"build", "processes"}  # a compiler, and the sandbox, which runs in the folder of the packages
