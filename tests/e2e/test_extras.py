"""The wheel with one extra in a fresh environment and an empty folder: it trains, and it serves what was trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.settings import ROOT
from tests import tables

pytestmark = pytest.mark.slow

PROJECT = 'data = "s3://podium/raw/wheel.csv"\ntarget = "price"\nfamilies = ["linear", "lightgbm"]\nn_trials = 1\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("podium", "luigi_tasks", "service", "lambda_refresh", "templates"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", str(source), "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder)], check=True, timeout=120)
    return next(folder.glob("*.whl"))


def installed(wheel: Path, folder: Path, extra: str) -> Path:
    """Return the folder of the commands of a new environment with the locked packages of an extra and the wheel."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, timeout=120)
    install = [*uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    lock = ROOT / f"requirements-{extra}.lock"
    subprocess.run([*install, "--no-deps", "--require-hashes", "-r", str(lock)], check=True, timeout=600)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True, timeout=120)
    return folder / "bin"


@pytest.mark.timeout(900)
def test_the_wheel_trains_and_serves_outside_the_checkout(wheel: Path, own_cloud: LocalCloud, tmp_path: Path) -> None:
    """`luigi` with the extra `train` makes a champion; `podium serve` with the extra `serve` answers with it."""
    table = tables.prices().to_csv(index=False).encode()
    own_cloud.client().put_object(Bucket="podium", Key="raw/wheel.csv", Body=table)
    empty = tmp_path / "empty"
    (empty / "projects" / "wheel").mkdir(parents=True)
    (empty / "projects" / "wheel" / "project.toml").write_text(PROJECT)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**clean, **own_cloud.environment, "PODIUM_PROJECTS": str(empty / "projects")}

    train = installed(wheel, tmp_path / "train", "train")
    luigi = [str(train / "luigi"), "--module", "luigi_tasks", "Pipeline", "--project", "wheel", "--local-scheduler"]
    result = subprocess.run(luigi, cwd=empty, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    (empty / "projects" / "wrong").mkdir()
    (empty / "projects" / "wrong" / "project.toml").write_text(PROJECT.replace('"price"', '"nothing"'))
    failing = ["wrong" if argument == "wheel" else argument for argument in luigi]
    result = subprocess.run(failing, cwd=empty, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 30, "the wheel brings the return codes of luigi.cfg"

    serve = installed(wheel, tmp_path / "serve", "serve")
    assert not list((tmp_path / "serve").glob("lib/*/site-packages/sklearn"))
    (port,) = free_ports(1)
    command = [str(serve / "podium"), "serve", "--port", str(port)]
    process = Process(command, tmp_path / "serve.log", {**environment, "PODIUM_DASK_WORKERS": "0"})
    try:
        process.wait_for(f"http://127.0.0.1:{port}/livez", 60)
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        record = json.loads(tables.prices().drop(columns="price").iloc[:1].to_json(orient="records"))
        answer = client.post_json("/projects/wheel/predict", record)
        assert answer.status == 200 and len(answer.json()["predictions"]) == 1
    finally:
        process.stop()
