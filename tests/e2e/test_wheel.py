"""The wheel by itself: installed elsewhere than in the checkout, with nothing of it in reach."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from podium.registry.provenance import SCORING_LIBRARIES
from podium.settings import ROOT

pytestmark = pytest.mark.slow

PACKAGES = ("podium", "luigi_tasks", "service", "lambda_refresh", "templates")
FILES = ("setup.cfg", "pyproject.toml", "README.md")

RENDER = """
import asyncio, types
import httpx
from service.app import create_app
from service.request_head import Head
from service.pages import Pages
from service.http_limits import HEAD
from service.settings import ServiceSettings

settings = ServiceSettings(access_log=False)
app = create_app(settings)
app.state.services = types.SimpleNamespace(pages=Pages(settings.templates), live=app.state.live)

async def guarded(scope, receive, send):
    await app({**scope, HEAD: Head(b"", b"localhost", 0)}, receive, send)

async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as client:
        for path in ("/", "/docs", "/problems", "/static/style.css", "/static/icon.svg", "/openapi.json"):
            answer = await client.get(path, headers={"accept": "text/html"})
            assert answer.status_code == 200, (path, answer.text)
        missing = await client.get("/nothing", headers={"accept": "text/html"})
        assert (missing.status_code, "<h1>" in missing.text) == (404, True)

asyncio.run(ask())
print(*sorted(path.name for path in settings.templates.iterdir() if path.suffix == ".html"))
print(podium.__file__ if (podium := __import__("podium")) else "")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in; what it depends on comes from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    built = [*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run(built, check=True, env=offline, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    command = [*pip, "install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, env=offline, capture_output=True, timeout=120)
    return target


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the installed packages before those of the checkout, in an empty folder."""
    own = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=120, check=False)


def test_the_installed_service_renders_its_pages(installed: Path, tmp_path: Path) -> None:
    result = run(installed, tmp_path, "-c", RENDER)
    assert result.returncode == 0, result.stderr
    templates, place = result.stdout.splitlines()
    assert templates.split() == sorted(path.name for path in (ROOT / "templates").glob("*.html"))
    assert Path(place).is_relative_to(installed)


def test_the_installed_demo_says_what_it_needs(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "-m", "podium.cli.main", "demo", "--help").returncode == 0
    result = run(installed, tmp_path, "-m", "podium.cli.main", "demo")
    assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
    assert "checkout" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_installation_has_the_releases_that_compute_like_those_of_the_lock() -> None:
    """Champions made with another release of these are refused, so the requirements allow no other."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"]
    for lock in ("requirements-serve.lock", "requirements-train.lock"):
        locked = (ROOT / lock).read_text()
        for name in set(SCORING_LIBRARIES) - {"python"}:
            allowed = re.findall(rf"^{name}==([0-9]+\.[0-9]+)\.\*", required, re.MULTILINE)
            here = re.findall(rf"^{name}==([0-9]+\.[0-9]+)\.", locked, re.MULTILINE)
            assert allowed == here, name
    others = [line for line in required.split("\n") if line and not line.startswith(SCORING_LIBRARIES)]
    assert all(">=" in line for line in others)
