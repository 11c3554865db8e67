"""Project files are checked whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from podium.project import BadProject, load_project, parse_project, project_names
from podium.registry.provenance import run_name
from podium.settings import ROOT
from podium.training.families import select_families

MINIMAL = {"name": "x", "data": "s3://bucket/key.csv", "target": "y"}


@pytest.mark.parametrize("name", project_names(ROOT / "projects"))
def test_every_shipped_project_is_valid(name: str) -> None:
    project = load_project(ROOT / "projects", name)
    assert select_families(project.families)


def test_every_error_is_named_at_once_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(BadProject) as caught:
        parse_project({"name": "No Name", "data": "http://x", "colour": 1, "split": {"test_size": 2}}, "project.toml")
    for part in ("5 error", "name:", "data:", "target:", "colour:", "split.test_size:"):
        assert part in str(caught.value)


def test_a_project_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "project.toml").write_text('data = "s3://bucket/key"\ntarget = "y"')
    assert load_project(tmp_path, "one").name == "one"
    with pytest.raises(BadProject, match="projects here: one"):
        load_project(tmp_path, "two")
    (tmp_path / "one" / "project.toml").write_text("data = ")
    with pytest.raises(BadProject, match="no TOML"):
        load_project(tmp_path, "one")


LATE = [{"split": {"kind": "time"}}, {"columns": {"d": {"date_format": "%Q"}}}, {"columns": {"d": {"date_format": "%d"}}}]


@pytest.mark.parametrize("wrong", LATE)
def test_what_could_only_fail_later_fails_now(wrong: dict[str, object]) -> None:
    with pytest.raises(BadProject):
        parse_project({**MINIMAL, **wrong}, "x")


def test_a_run_is_named_by_what_decides_its_content() -> None:
    project = parse_project(MINIMAL, "x")
    name = run_name(project, "0" * 64)
    assert run_name(parse_project({**MINIMAL, "title": "Other"}, "x"), "0" * 64) == name
    assert run_name(parse_project({**MINIMAL, "seed": 1}, "x"), "0" * 64) != name
    assert run_name(project, "1" * 64) != name
