"""Validation of project files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from podium.project import (
    BadProject,
    CleaningOptions,
    ColumnOptions,
    DerivedColumn,
    FeatureOptions,
    GateOptions,
    InboxOptions,
    PanelOptions,
    SplitOptions,
    load_project,
    parse_project,
    project_names,
)
from podium.registry.provenance import run_name
from podium.settings import ROOT
from podium.training.families import select_families

MINIMAL = {"name": "x", "data": "s3://bucket/key.csv", "target": "y"}
SECTIONS = [
    CleaningOptions,
    ColumnOptions,
    DerivedColumn,
    FeatureOptions,
    GateOptions,
    InboxOptions,
    PanelOptions,
    SplitOptions,
]


@pytest.mark.parametrize("name", project_names(ROOT / "projects"))
def test_every_shipped_project_is_valid(name: str) -> None:
    project = load_project(ROOT / "projects", name)
    assert select_families(project)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_description(section: type[BaseModel]) -> None:
    assert all(field.description for field in section.model_fields.values())


def test_all_errors_are_reported_at_once_with_their_keys(tmp_path: Path) -> None:
    with pytest.raises(BadProject) as caught:
        parse_project({"name": "No Name", "data": "http://x", "colour": 1, "split": {"test_size": 2}}, "project.toml")
    for part in (
        "5 errors",
        "name: a name has up to 64 lower-case letters",
        "data: an s3:// URL has a bucket and a key",
        "target: required key is missing",
        "colour: unknown key",
        "split.test_size:",
    ):
        assert part in str(caught.value)


MISSPELT: list[tuple[dict[str, Any], str]] = [
    ({"familys": []}, "familys: unknown key; did you mean `families`?"),
    ({"split": {"fold": 3}}, "split.fold: unknown key; did you mean `folds`?"),
    ({"columns": {"age": {"ignored": True}}}, "columns.age.ignored: unknown key; did you mean `ignore`?"),
    ({"panel": {"entity": "e", "time": "t", "lag": 3}}, "panel.lag: unknown key; did you mean `lags`?"),
    (
        {"panel": {"entity": "e", "time": "t", "derived_columns": {"x": {"role": "ratio", "of": ["a", "b"]}}}},
        "panel.derived_columns.x.role: unknown key; did you mean `rule`?",
    ),
]


@pytest.mark.parametrize(("entries", "message"), MISSPELT)
def test_a_misspelt_key_gets_a_suggestion(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(BadProject) as caught:
        parse_project({**MINIMAL, **entries}, "project.toml")
    assert message in str(caught.value)


def test_an_unknown_project_is_reported_with_the_available_ones(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "project.toml").write_text('data = "s3://bucket/key"\ntarget = "y"')
    assert load_project(tmp_path, "one").name == "one"
    with pytest.raises(BadProject, match=r'project not found: "two" \(available: one\)'):
        load_project(tmp_path, "two")
    (tmp_path / "one" / "project.toml").write_text("data = ")
    with pytest.raises(BadProject, match="not valid TOML"):
        load_project(tmp_path, "one")


INVALID = [{"split": {"kind": "time"}}, {"columns": {"d": {"date_format": "%Q"}}}, {"columns": {"d": {"date_format": "%d"}}}]


@pytest.mark.parametrize("entries", INVALID)
def test_options_that_could_only_fail_later_are_rejected_early(entries: dict[str, object]) -> None:
    with pytest.raises(BadProject):
        parse_project({**MINIMAL, **entries}, "x")


def test_the_run_name_depends_only_on_the_data_and_the_training_options() -> None:
    project = parse_project(MINIMAL, "x")
    name = run_name(project, "0" * 64)
    assert run_name(parse_project({**MINIMAL, "title": "Other"}, "x"), "0" * 64) == name
    assert run_name(parse_project({**MINIMAL, "seed": 1}, "x"), "0" * 64) != name
    assert run_name(project, "1" * 64) != name


@pytest.mark.parametrize("name", project_names(ROOT / "projects"))
def test_another_budget_changes_no_other_option_nor_which_are_set(name: str) -> None:
    project = load_project(ROOT / "projects", name)
    other = project.with_budget("7s")
    assert other.budget == "7s"
    assert other.model_dump(exclude={"budget"}) == project.model_dump(exclude={"budget"})
    for column, options in project.columns.items():
        assert other.columns[column].model_fields_set == options.model_fields_set


def test_costs_of_mistakes_set_the_threshold() -> None:
    base = {"name": "x", "data": "s3://podium/x", "target": "y"}
    costs = {"false_positive": 1, "false_negative": 4}
    decision = parse_project({**base, "decision": {"class": "1", "costs": costs}}, "project.toml").decision
    assert decision is not None and decision.cut == 0.2
    for wrong in (
        {"class": "1"},
        {"class": "1", "threshold": 0.5, "costs": costs},
        {"class": "1", "costs": {"false_positive": 1}},
    ):
        with pytest.raises(BadProject, match="decision"):
            parse_project({**base, "decision": wrong}, "project.toml")
