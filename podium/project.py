"""A project: one file that says where a table lies and how to learn from it."""

from __future__ import annotations

import tomllib
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from podium.schema.columns import FuzzyMatching, Kind, NumberFormat, Policy, Task
from podium.tables.panel import INDEX_NAME, RULES

INPUT_RESERVED = ("outbox/", "versions/", "aliases/", "history/", "runs/", "datasets/")
RESERVED = (*INPUT_RESERVED[1:], "inbox/")
NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
S3Url = Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+$")]


class BadProject(Exception):
    """The project file is wrong; every error is named with its place."""


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnOptions(StrictModel):
    """What the project knows better than the data shows."""

    kind: Kind | Literal["weekday", "month"] | None = None
    ignore: bool = False
    nullable: bool | None = None
    na_values: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    handle_unknown: Policy = "warn"
    unit: str = ""
    date_format: str = "%Y-%m-%d"
    number_format: NumberFormat | None = None
    fuzzy: FuzzyMatching | None = None

    @model_validator(mode="after")
    def _is_written_as_its_kind(self) -> Self:
        if self.number_format not in (None, "plain") and self.kind not in (None, "number"):
            raise ValueError(f"number_format = {self.number_format!r} is of a number")
        if self.fuzzy not in (None, "exact") and self.kind not in (None, "category", "weekday", "month"):
            raise ValueError(f"fuzzy = {self.fuzzy!r} is of a category")
        return self

    @field_validator("date_format")
    @classmethod
    def _is_a_date(cls, form: str) -> str:
        """A date that is written by it must be read by it, to the day."""
        day = datetime(2019, 11, 27)
        try:
            right = datetime.strptime(day.strftime(form), form) == day
        except ValueError:
            right = False
        if not right:
            raise ValueError("is no form of a date, such as %d/%m/%Y")
        return form


class CleaningOptions(StrictModel):
    drop_duplicates: bool = Field(False, description="rows that repeat another in every column, left-out ones too")
    max_missing_fraction: float = Field(
        0.95, gt=0, le=1, description="columns with a larger share of missing cells are left out"
    )


class FeatureOptions(StrictModel):
    max_categories: int = Field(20, ge=2, le=1000, description="levels of a category with a feature of their own")
    max_features: int | None = Field(None, ge=1, description="features kept by selection; all that help when absent")


class SplitOptions(StrictModel):
    kind: Literal["random", "stratified", "grouped", "time"] | None = None
    column: str | None = Field(None, description="the group or the time, for grouped and time")
    test_size: float = Field(0.2, gt=0, lt=1)
    folds: int = Field(5, ge=2, le=20)

    @model_validator(mode="after")
    def _has_its_column(self) -> Self:
        if self.kind in ("grouped", "time") and not self.column:
            raise ValueError(f"a {self.kind} split needs `column`")
        return self


class DerivedColumn(StrictModel):
    """A column that is computed from others of the same row."""

    rule: str
    of: tuple[str, ...]

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.rule not in RULES:
            raise ValueError(f"there are the rules {', '.join(RULES)}")
        if len(self.of) != (wanted := len(signature(RULES[self.rule]).parameters)):
            raise ValueError(f"{self.rule} takes {wanted} columns")
        return self


class PanelOptions(StrictModel):
    """Rows keyed by entity and day, of which each day is predicted from the days before it."""

    entity: str
    time: str
    lags: int = Field(5, ge=1, le=60, description="days that a model sees")
    forecast_base: Literal["first", "last"] = Field("last", description="from which value on predicted changes are added up")
    derived_columns: dict[str, DerivedColumn] = {}
    max_rows: int = Field(200_000, ge=100, description="the last so many rows are learned from")

    @model_validator(mode="after")
    def _has_its_names(self) -> Self:
        if INDEX_NAME in (self.entity, self.time) or self.entity == self.time:
            raise ValueError(f"entity and time are two columns, and none is called {INDEX_NAME}, as the number of a day is")
        names = list(self.derived_columns)
        for place, (name, column) in enumerate(self.derived_columns.items()):
            if name in (self.entity, self.time) or set(column.of) & {*names[place:], self.entity, self.time}:
                raise ValueError(f"derived_columns.{name} needs columns of numbers that come before it, and a name of its own")
        return self


class GateOptions(StrictModel):
    """What a version must show before it serves; the defaults apply where the promoter's process has no project file."""

    min_score: float | None = Field(None, description="lowest test score, higher being better")
    non_inferiority: bool = Field(
        True, description="not worse than the champion on the same test rows beyond the 95 % interval"
    )
    compatible: bool = Field(True, description="every input that the champion takes is taken")
    max_bytes: int = Field(500_000_000, gt=0, description="size of all files")
    max_latency_ms: float | None = Field(None, gt=0, description="median time of one record by the best model")
    four_eyes: bool = Field(False, description="another key and another name promotes than trained")


class InboxOptions(StrictModel):
    """A table that is answered whenever it is written, besides what comes under `inbox/`."""

    input_url: S3Url | None = Field(None, description="where somebody puts a table; {date} is filled in by PredictBatch")
    output_url: S3Url | None = Field(None, description="where its predictions are put")

    @model_validator(mode="after")
    def _is_no_circle(self) -> Self:
        if (self.input_url is None) != (self.output_url is None):
            raise ValueError("input_url and output_url come together")
        if self.input_url and self.output_url:
            if self.output_url.startswith(self.input_url) or self.input_url.startswith(self.output_url):  # receipts lie beside
                raise ValueError("output_url must lie elsewhere than input_url")
            if _key(self.input_url).startswith(INPUT_RESERVED) or _key(self.output_url).startswith(RESERVED):
                raise ValueError("these URLs lie among what Podium itself writes")
        return self


def _key(url: str) -> str:
    return url.removeprefix("s3://").partition("/")[2]


class Project(StrictModel):
    """A validated project.toml; absent parts are inferred from the data.

    The gates in force are those of the process that promotes; a version's manifest records the trainer's and decides nothing.
    """

    name: Name
    title: str = ""
    intended_use: str = Field("", description="what the predictions are for, and for what not; stands on the model card")
    panel: PanelOptions | None = None
    data: S3Url | None = Field(None, description="the table to learn from; absent where models are only imported")
    target: str
    target_na_values: tuple[str, ...] = ()
    task: Task | None = None
    metric: str | None = None
    families: tuple[str, ...] = ()
    n_trials: int = Field(4, ge=1, le=100, description="settings tried for each family")
    seed: int = 0
    columns: dict[str, ColumnOptions] = {}
    cleaning: CleaningOptions = CleaningOptions()
    features: FeatureOptions = FeatureOptions()
    split: SplitOptions = SplitOptions()
    gates: GateOptions = GateOptions()
    inbox: InboxOptions = InboxOptions()

    @model_validator(mode="after")
    def _has_its_panel(self) -> Self:
        if self.panel and (self.split.kind not in (None, "time") or self.cleaning.drop_duplicates):
            raise ValueError("a panel is split by its time, and of a day that comes twice the last row counts")
        if self.panel and self.target in (self.panel.entity, self.panel.time, *self.panel.derived_columns):
            raise ValueError("the target of a panel is a column of numbers that comes with its rows")
        if self.data and self.data.endswith("/") and not self.panel:
            raise ValueError("`data` names a folder, which only a panel is collected from")
        return self

    def training_config(self) -> dict[str, object]:
        """The part that decides what a run makes; words for people do not."""
        return self.model_dump(mode="json", exclude={"title", "intended_use"})


def load_project(folder: Path, name: str) -> Project:
    """Read `folder/name/project.toml`; raises BadProject."""
    path = folder / name / "project.toml"
    try:
        with path.open("rb") as file:
            entries = tomllib.load(file)
    except FileNotFoundError:
        known = ", ".join(project_names(folder)) or "none"
        raise BadProject(f"there is no {path} (projects here: {known})") from None
    except tomllib.TOMLDecodeError as error:
        raise BadProject(f"{path} is no TOML: {error}") from None
    return parse_project({"name": name, **entries}, str(path))


def parse_project(entries: dict[str, object], place: str) -> Project:
    """Validate a project's entries; raises BadProject with every error at once."""
    try:
        return Project.model_validate(entries)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'project'}: {e['msg']}" for e in error.errors()]
        raise BadProject(f"{place} has {len(lines)} error(s):\n" + "\n".join(lines)) from None


class PromotionRules(StrictModel):
    """How the process that promotes judges versions of a project: its gates, and the metric and seed of comparisons."""

    gates: GateOptions = GateOptions()
    metric: str | None = None
    seed: int = 0


def load_rules(folder: Path, name: str) -> PromotionRules:
    """Those of `folder/name/project.toml`, or the defaults when there is no such file. Raises BadProject."""
    if not (folder / name / "project.toml").exists():
        return PromotionRules()
    project = load_project(folder, name)
    return PromotionRules(gates=project.gates, metric=project.metric, seed=project.seed)


def project_names(folder: Path) -> list[str]:
    """The projects of a folder, in order."""
    return sorted(path.parent.name for path in folder.glob("*/project.toml"))
