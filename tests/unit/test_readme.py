"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import luigi_tasks
from podium.models.metrics import CLASSIFICATION, REGRESSION
from podium.project import Project, parse_project
from podium.settings import ROOT
from podium.training.families import FAMILIES
from service.settings import ServiceSettings

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"make ([a-z-]+)", README))
    projects = {f"project-{path.parent.name}" for path in (ROOT / "projects").glob("*/accept.py")}
    assert projects <= named and "project-%:" in MAKEFILE
    assert named - projects <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)) | {"make", "project-"}


def test_every_podium_command_exists() -> None:
    for command in set(re.findall(r"podium ((?:[a-z]+ ?)+)", "\n".join(blocks("bash")) + README.split("### Settings")[1][:40])):
        result = subprocess.run(
            [sys.executable, "-m", "podium.cli.main", *command.split(), "--help"], capture_output=True, text=True, cwd=ROOT
        )
        assert result.returncode == 0, result.stderr


def test_every_setting_is_documented() -> None:
    for name in ServiceSettings.model_fields:
        assert f"`PODIUM_{name.upper()}`" in README


def test_every_key_of_a_project_is_documented() -> None:
    table = README.split("## A new project")[1].split("## The pipeline")[0]
    for name in set(Project.model_fields) - {"name"}:
        assert f"`{name}`" in table or f"`{name}." in table, name


def test_the_example_projects_are_valid() -> None:
    example, panel = blocks("toml")
    assert parse_project({"name": "x", **tomllib.loads(panel)}, "README").panel
    assert parse_project({"name": "x", **tomllib.loads(example)}, "README").columns["BMI"].na_values == ("0",)
    assert len(example.strip().splitlines()) == 5


def test_every_family_metric_and_task_is_named() -> None:
    for name in [*FAMILIES, *CLASSIFICATION, *REGRESSION]:
        assert f"`{name}`" in README
    chain = re.findall(r"`(Ingest[^`]*)`", README)[0]
    assert re.findall(r"[A-Z]\w+", chain) == [name for name in re.findall(r"[A-Z]\w+", chain) if hasattr(luigi_tasks, name)]


def test_every_file_and_picture_that_is_named_exists() -> None:
    for path in re.findall(r"`((?:podium|service|luigi_tasks|tests|docs|benchmarks|templates|projects)/[\w./-]*)`", README):
        assert "NAME" in path or (ROOT / path).exists(), path
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists(), path
