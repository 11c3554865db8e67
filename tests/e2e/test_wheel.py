"""The wheel, installed and run outside of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from podium.registry.provenance import SCORING_LIBRARIES
from podium.settings import ROOT

PACKAGES = ("podium", "luigi_tasks", "service", "lambda_refresh", "templates")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "requirements.in")

RENDER = """
import asyncio, types
import httpx
from service.app import create_app
from service.http_head import Head
from service.pages import Pages
from service.http_limits import HEAD
from service.settings import ServiceSettings

settings = ServiceSettings(access_log=False)
app = create_app(settings)
app.state.podium = types.SimpleNamespace(pages=Pages(settings.templates), live=app.state.live)

async def guarded(scope, receive, send):
    await app({**scope, HEAD: Head(b"", b"localhost", 0)}, receive, send)

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as client:
        for path in ("/", "/docs", "/problems", "/static/style.css", "/static/icon.svg", "/openapi.json"):
            response = await client.get(path, headers={"accept": "text/html"})
            assert response.status_code == 200, (path, response.text)
        missing = await client.get("/nothing", headers={"accept": "text/html"})
        assert (missing.status_code, "<h1>" in missing.text) == (404, True)

asyncio.run(main())
print(*sorted(path.name for path in settings.templates.iterdir() if path.suffix == ".html"))
print(podium.__file__ if (podium := __import__("podium")) else "")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and install the wheel and return its folder; dependencies come from the test environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    build = [*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run(build, check=True, env=offline, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    command = [*pip, "install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, env=offline, capture_output=True, timeout=120)
    return target


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder` with the installed packages first on the path."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_installed_service_renders_its_pages(installed: Path, tmp_path: Path) -> None:
    result = run(installed, tmp_path, "-c", RENDER)
    assert result.returncode == 0, result.stderr
    templates, module = result.stdout.splitlines()
    assert templates.split() == sorted(path.name for path in (ROOT / "templates").glob("*.html"))
    assert Path(module).is_relative_to(installed)


def test_the_installed_demo_reports_what_it_needs(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "-m", "podium.cli.main", "demo", "--help").returncode == 0
    result = run(installed, tmp_path, "-m", "podium.cli.main", "demo")
    assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
    assert "checkout" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_requirements_allow_only_the_locked_releases_of_the_scoring_libraries() -> None:
    """A service rejects champions trained with other releases of these libraries."""
    required = (ROOT / "requirements.in").read_text()
    locked = (ROOT / "requirements.lock").read_text()
    for name in set(SCORING_LIBRARIES) - {"python"}:
        allowed = re.findall(rf"^{name}==([0-9]+\.[0-9]+)\.\*", required, re.MULTILINE)
        pinned = re.findall(rf"^{name}==([0-9]+\.[0-9]+)\.", locked, re.MULTILINE)
        assert allowed == pinned, name
    others = [line for line in required.split("\n") if line and not line.startswith(SCORING_LIBRARIES)]
    assert all(">=" in line for line in others)
