"""The project file: where a table is stored and how to train models on it."""

from __future__ import annotations

import codecs
import json
import re
import tomllib
from datetime import date, datetime
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin
from zoneinfo import ZoneInfoNotFoundError

import numpy as np
from cronsim import CronSimError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from podium.schema.columns import Duplicates, FuzzyMatching, Kind, NumberFormat, Policy, Task
from podium.schema.schedules import SCHEDULES, days_of, deadline_of
from podium.schema.suggestions import did_you_mean
from podium.tables.frequency import shift_times
from podium.tables.panel import INDEX_NAME, RULES

INPUT_RESERVED = ("outbox/", "versions/", "aliases/", "history/", "runs/", "datasets/", "log/", "labels/", "monitoring/")
RESERVED = (*INPUT_RESERVED[1:], "inbox/")
NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
NAME_RULE = "a name has up to 64 lower-case letters, digits and hyphens, such as house-prices"
S3_URL = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+$"
S3Url = Annotated[str, StringConstraints(pattern=S3_URL)]
BUDGET, BUDGET_RULE = r"^[1-9][0-9]*(s|m|h)$", "a budget is a whole number of seconds, minutes or hours, such as 60s, 5m or 1h"
RULES_OF_PATTERNS = {
    NAME: NAME_RULE,
    S3_URL: "an s3:// URL has a bucket and a key, such as s3://podium/raw/houses.csv",
    BUDGET: BUDGET_RULE,
}
FIRST_DAY = date(1970, 1, 1)


class BadProject(Exception):
    """The project file is invalid; the message lists every error with its key."""


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnOptions(StrictModel):
    """Options of one column; they override what is inferred from the data."""

    kind: Kind | Literal["weekday", "month"] | None = Field(None, description="type of the values; inferred by default")
    ignore: bool = Field(False, description="leave the column out of the model")
    nullable: bool | None = Field(None, description="whether values may be missing; inferred by default")
    na_values: tuple[str, ...] = Field(
        (), description="strings that mean a missing value; [] keeps NA and the like as categories"
    )
    categories: tuple[str, ...] = Field((), description="known categories; inferred by default")
    handle_unknown: Policy = Field("warn", description="accept unknown categories with a warning, or reject them")
    unit: str = Field("", description="unit of measurement, shown on pages and in reports")
    date_format: str = Field("%Y-%m-%d", description="strptime format of a date column")
    last_year: int | None = Field(
        None, ge=1999, le=2199, description="last of the hundred years that two-digit years are in; inferred, 2035 by default"
    )
    number_format: NumberFormat | None = Field(None, description="format of a number column; inferred by default")
    fuzzy: FuzzyMatching | None = Field(
        None, description="how spelling variants of categories are matched; inferred by default"
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.number_format not in (None, "plain") and self.kind not in (None, "number"):
            raise ValueError('number_format applies to number columns only; remove it or set kind = "number"')
        if self.fuzzy not in (None, "exact") and self.kind not in (None, "category", "weekday", "month"):
            raise ValueError('fuzzy applies to category columns only; remove it or set kind = "category"')
        return self

    @field_validator("date_format")
    @classmethod
    def _check_date_format(cls, date_format: str) -> str:
        """Require that a formatted date parses back to the same day."""
        day = datetime(2019, 11, 27)
        try:
            valid = datetime.strptime(day.strftime(date_format), date_format) == day
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("not a complete date format; use year, month and day, e.g. %d/%m/%Y")
        return date_format


class CleaningOptions(StrictModel):
    drop_duplicates: bool = Field(False, description="drop rows that repeat another row in every column")
    max_missing_fraction: float = Field(0.95, gt=0, le=1, description="drop columns missing more than this fraction of values")
    max_rows: int = Field(
        1_000_000,
        ge=100,
        description="if `data` is a folder of many files, the maximum number of rows to train on, chosen at random",
    )


class ReadingOptions(StrictModel):
    """How a text table is read; detected by default."""

    encoding: str | None = Field(None, description="encoding of a text that is not UTF-8, such as `windows-1252`")
    delimiter: Literal[",", ";", "tab", "|"] | None = Field(None, description="character between cells")
    decimal: Literal[".", ","] | None = Field(None, description="decimal mark of the numbers")
    comment: str = Field("", max_length=1, description="skip lines that start with this character")
    skip_rows: int | None = Field(None, ge=0, description="number of lines before the header")
    skip_footer: int | None = Field(None, ge=0, description="number of rows at the end to leave out, such as totals")
    names: tuple[str, ...] = Field((), description="column names of a table without a header row")

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        try:
            return encoding and codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f'unknown encoding "{encoding}"; use utf-8, utf-16, windows-1252, …') from None


class FeatureOptions(StrictModel):
    max_categories: int = Field(20, ge=2, le=1000, description="maximum number of one-hot features of a category column")
    max_features: int | None = Field(None, ge=1, description="maximum number of selected features; unlimited by default")


class CostOptions(StrictModel):
    """What wrong predictions cost, in any unit."""

    false_positive: float = Field(gt=0, description="cost of predicting the class for a record of another class")
    false_negative: float = Field(gt=0, description="cost of predicting another class for a record of the class")


class DecisionOptions(StrictModel):
    """Which class to predict, instead of the likeliest one: by a threshold, or by what mistakes cost."""

    class_: str | int = Field(alias="class", description="the class to predict if its probability is above the threshold")
    threshold: float | None = Field(None, gt=0, lt=1, description="probability above which the class is predicted")
    costs: CostOptions | None = Field(None, description="costs of mistakes, in place of a threshold")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.threshold is None) == (self.costs is None):
            raise ValueError("needs either a threshold or costs")
        return self

    @property
    def cut(self) -> float:
        """The probability above which predicting the class costs less on average (Elkan, 2001)."""
        if self.threshold is not None:
            return self.threshold
        assert self.costs is not None
        return self.costs.false_positive / (self.costs.false_positive + self.costs.false_negative)


class SplitOptions(StrictModel):
    kind: Literal["random", "stratified", "grouped", "time"] | None = Field(
        None, description="how test rows and folds are chosen; by default stratified for classes, random for numbers"
    )
    column: str | None = Field(None, description="group or time column of a grouped or time split")
    test_size: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="fraction of the rows kept for tests; by default 0.2 of more than 50,000 rows, of groups and of times, and "
        "none of others: every row is trained on, and evaluated out of fold",
    )
    folds: int | None = Field(
        None,
        ge=2,
        le=20,
        description="number of cross-validation folds; by default 8 for up to 2,000 rows, 3 for over 200,000, and 5 otherwise",
    )

    @model_validator(mode="after")
    def _check_column(self) -> Self:
        if self.kind in ("grouped", "time") and not self.column:
            raise ValueError(f"a {self.kind} split needs a column; set split.column")
        return self


class DerivedColumn(StrictModel):
    """A column computed from other columns of the same row."""

    rule: str = Field(description=f"one of {', '.join(RULES)}")
    of: tuple[str, ...] = Field(description="the columns that the rule takes, in order")

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if self.rule not in RULES:
            raise ValueError(f'unknown rule "{self.rule}"; choose one of {", ".join(RULES)}')
        count = len(signature(RULES[self.rule]).parameters)
        if len(self.of) != count:
            raise ValueError(f"rule {self.rule} takes {count} columns, but `of` names {len(self.of)}")
        return self


class PanelOptions(StrictModel):
    """A panel has one row per entity and time; the model predicts each time from the rows before it."""

    entity: str = Field(description="column that identifies the entity, such as a shop")
    time: str = Field(description="column that contains the day or time")
    lags: int = Field(5, ge=1, le=60, description="number of past rows that the model sees")
    forecast_base: Literal["first", "last"] = Field(
        "last", description="add the predicted change to the previous value (last), or accumulate from the first value (first)"
    )
    derived_columns: dict[str, DerivedColumn] = Field({}, description="columns computed from others, by name")
    frequency: str | None = Field(None, description="pandas offset alias of one step, such as `h`, `B` or `ME`; inferred")
    duplicates: Duplicates | None = Field(
        None, description="rows with the same entity and time: `error` (default), `last` (default of a folder), `mean` or `sum`"
    )
    max_rows: int = Field(200_000, ge=100, description="train on at most this many of the most recent rows")

    @field_validator("frequency")
    @classmethod
    def _check_frequency(cls, frequency: str | None) -> str | None:
        try:
            shift_times(np.zeros(1), frequency or "D")
        except ValueError:
            raise ValueError(f'unknown frequency "{frequency}"; use a pandas offset alias, such as h, D, B or ME') from None
        return frequency

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if INDEX_NAME in (self.entity, self.time) or self.entity == self.time:
            raise ValueError(f"entity and time must be two different columns, neither named `{INDEX_NAME}`")
        names = list(self.derived_columns)
        for position, (name, column) in enumerate(self.derived_columns.items()):
            if name in (self.entity, self.time) or set(column.of) & {*names[position:], self.entity, self.time}:
                raise ValueError(
                    f"derived_columns.{name} must have a new name and use only number columns, or derived columns defined "
                    "before it"
                )
        return self


class GateOptions(StrictModel):
    """Checks that a version must pass before promotion.

    A promoting process without the project file applies the defaults.
    """

    min_score: float | None = Field(None, description="minimum score on the test rows or out of fold; higher is better")
    non_inferiority: bool = Field(
        True, description="require a score not significantly worse than the champion's on shared rows (95% CI)"
    )
    baseline: bool = Field(True, description="require a model that is better than predicting the same for every row")
    leakage: bool = Field(True, description="require that no single input predicts 99.9 % of the target")
    compatible: bool = Field(True, description="require that the version accepts every input that the champion accepts")
    max_bytes: int = Field(500_000_000, gt=0, description="maximum total size of the files, in bytes")
    max_latency_ms: float | None = Field(
        None, gt=0, description="maximum median latency for one record, in milliseconds; ensembles: 1 by default"
    )
    max_changed: float | None = Field(
        None, ge=0, le=1, description="maximum fraction of the last logged predictions that change; numbers, by more than 5 %"
    )
    four_eyes: bool = Field(False, description="require a promoter whose key and name differ from the trainer's")


class InboxOptions(StrictModel):
    """A table that is predicted whenever it changes, in addition to files under `inbox/`."""

    input_url: S3Url | None = Field(None, description="URL of the input table; PredictBatch replaces {date} by the day")
    output_url: S3Url | None = Field(None, description="URL of the predictions")
    deadline: str | None = Field(
        None,
        description="time by which PredictBatch must have finished, such as `16:15 America/New_York`; else an alarm is sent",
    )

    @field_validator("deadline")
    @classmethod
    def _check_deadline(cls, deadline: str | None) -> str | None:
        if deadline is not None:
            try:
                deadline_of(deadline, FIRST_DAY)
            except (ValueError, KeyError, ZoneInfoNotFoundError):
                raise ValueError(
                    f'unknown time "{deadline}"; use hours, minutes and a time zone: 16:15 America/New_York'
                ) from None
        return deadline

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        if (self.input_url is None) != (self.output_url is None):
            raise ValueError("set both input_url and output_url, or neither")
        if self.input_url and self.output_url:
            # receipts are stored next to the output and must not be read as input
            if self.output_url.startswith(self.input_url) or self.input_url.startswith(self.output_url):
                raise ValueError("output_url and input_url overlap; neither may start with the other")
            if _key(self.input_url).startswith(INPUT_RESERVED) or _key(self.output_url).startswith(RESERVED):
                raise ValueError(f"these URLs use a prefix reserved by Podium ({', '.join((*INPUT_RESERVED, 'inbox/'))})")
        return self


def _key(url: str) -> str:
    return url.removeprefix("s3://").partition("/")[2]


class RetrainOptions(StrictModel):
    """When `RetrainDue` trains again."""

    schedule: str = Field(
        "", description="`daily`, `weekly` (Sundays), `monthly`, or a cron expression of days; none by default"
    )
    on_alarm: bool = Field(False, description="also on the day after an alarm of `Monitor`")
    on_labels: int | None = Field(None, ge=1, description="also when this many labels have arrived since the last retraining")

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, schedule: str) -> str:
        try:
            days_of(schedule or "daily", FIRST_DAY, FIRST_DAY)
        except CronSimError:
            known = ", ".join(SCHEDULES)
            raise ValueError(f'unknown schedule "{schedule}"; use {known}, or a cron expression such as 0 0 * * 1') from None
        return schedule

    def days(self, after: date, until: date) -> list[date]:
        """Return the days of the schedule after `after`, up to `until`."""
        return days_of(self.schedule, after, until) if self.schedule else []


class LogOptions(StrictModel):
    """What the prediction log holds of the inputs."""

    exclude: tuple[str, ...] = Field((), description="inputs that are not logged; such predictions cannot be computed again")
    hash: tuple[str, ...] = Field((), description="inputs of which only a keyed hash is logged; as for `exclude`")


class Project(StrictModel):
    """A validated project.toml; everything but `data` and `target` can be inferred.

    The gates in force are those of the promoting process. A version's manifest only records those of the trainer.
    """

    name: Name = Field(description="name of the project folder")
    title: str = Field("", description="title shown on pages")
    intended_use: str = Field("", description="what the predictions are for and what they are not for; shown on the model card")
    panel: PanelOptions | None = Field(None, description="set for forecasts of entities over time")
    data: S3Url | None = Field(None, description="URL of the training table; not needed for imported models")
    target: str = Field(description="column to predict")
    target_na_values: tuple[str, ...] = Field((), description="strings in the target that mean a missing value")
    task: Task | None = Field(None, description="kind of prediction; inferred from the target by default")
    decision: DecisionOptions | None = Field(None, description="predict a class if its probability is above a threshold")
    metric: str | None = Field(None, description="metric that ranks the models; by default one that suits the task")
    families: tuple[str, ...] = Field((), description="model families to train; by default those that suit the task")
    budget: Annotated[str, StringConstraints(pattern=BUDGET)] = Field(
        "60s", description="time for training, such as 30s, 5m or 1h"
    )
    n_trials: int | None = Field(
        None, ge=1, le=100, description="maximum number of settings tried per family; by default as many as the budget allows"
    )
    ensemble: bool = Field(True, description="also rank the weighted mean of the families")
    seed: int = Field(0, description="random seed for splits and models")
    columns: dict[str, ColumnOptions] = Field({}, description="column options, by column name")
    reading: ReadingOptions = ReadingOptions()
    cleaning: CleaningOptions = CleaningOptions()
    features: FeatureOptions = FeatureOptions()
    split: SplitOptions = SplitOptions()
    gates: GateOptions = GateOptions()
    inbox: InboxOptions = InboxOptions()
    log: LogOptions = LogOptions()
    retrain: RetrainOptions = RetrainOptions()

    @model_validator(mode="after")
    def _check_panel(self) -> Self:
        if self.panel and self.split.kind not in (None, "time"):
            raise ValueError("a panel is always split by time; remove split.kind")
        if self.panel and self.cleaning.drop_duplicates:
            raise ValueError("a panel keeps the last row of each entity and day; remove cleaning.drop_duplicates")
        if self.panel and self.target in (self.panel.entity, self.panel.time, *self.panel.derived_columns):
            raise ValueError(
                "the target of a panel must be a number column of the table, not the entity, time or a derived column"
            )
        return self

    @property
    def budget_seconds(self) -> float:
        """Return the time for training."""
        return float(self.budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.budget[-1]]

    def with_budget(self, budget: str) -> Project:
        """Return the project with another time for training. Raises BadProject."""
        return parse_project({**self.model_dump(by_alias=True, exclude_unset=True), "budget": budget}, "--budget")

    def training_config(self) -> dict[str, object]:
        """Return all options except those that do not affect a version."""
        return self.model_dump(mode="json", exclude={"title", "intended_use", "retrain"})


def check_name(name: str) -> None:
    """Require a name that a project may have. Raises BadProject."""
    if not re.fullmatch(NAME, name):
        usable = project_name_of(name)
        raise BadProject(f"{json.dumps(name, ensure_ascii=False)} cannot be the name of a project: {NAME_RULE}; use {usable}")


def project_name_of(text: str) -> str:
    """Return a name that a project may have, near to the text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "project"


def load_project(folder: Path, name: str) -> Project:
    """Read `folder/name/project.toml`. Raises BadProject."""
    check_name(name)
    path = folder / name / "project.toml"
    try:
        with path.open("rb") as file:
            entries = tomllib.load(file)
    except FileNotFoundError:
        known = project_names(folder)
        available = f"available: {', '.join(known) or 'none'}"
        raise BadProject(f'project not found: "{name}" ({available}){did_you_mean(name, known)}') from None
    except tomllib.TOMLDecodeError as error:
        raise BadProject(f"{path} is not valid TOML: {error}") from None
    return parse_project({"name": name, **entries}, str(path))


def parse_project(entries: dict[str, object], source: str) -> Project:
    """Validate the entries of the project file `source`. Raises BadProject listing all errors."""
    try:
        return Project.model_validate(entries)
    except ValidationError as invalid:
        errors = [_error_line(error) for error in invalid.errors()]
        count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
        raise BadProject("\n  ".join([f"{source} has {count}:", *errors])) from None


def _error_line(error: Any) -> str:
    """Format one error as `key: what is wrong and what to do`."""
    path = [str(part) for part in error["loc"]]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown key{did_you_mean(path[-1], _known_keys(path[:-1]))}"
    elif error["type"] == "missing":
        message = "required key is missing"
    elif error["type"] == "string_pattern_mismatch":
        message = RULES_OF_PATTERNS[error["ctx"]["pattern"]]
    return f"{'.'.join(path)}: {message}" if path else message


def _known_keys(path: list[str]) -> list[str]:
    """Return the known keys of the section at `path`, such as `["columns", "age"]`."""
    section: type[BaseModel] = Project
    keys = iter(path)
    for key in keys:
        annotation = section.model_fields[key].annotation
        types = (annotation, *get_args(annotation))
        section = next(kind for kind in types if isinstance(kind, type) and issubclass(kind, StrictModel))
        if get_origin(annotation) is dict:
            next(keys)  # a name chosen by the user
    return list(section.model_fields)


class PromotionRules(StrictModel):
    """The gates that a promoting process applies, and the metric and seed of its comparisons."""

    gates: GateOptions = GateOptions()
    metric: str | None = None
    seed: int = 0


def load_rules(folder: Path, name: str) -> PromotionRules:
    """Return the rules of `folder/name/project.toml`, or the defaults if there is no file. Raises BadProject."""
    if not (folder / name / "project.toml").exists():
        return PromotionRules()
    project = load_project(folder, name)
    return PromotionRules(gates=project.gates, metric=project.metric, seed=project.seed)


def project_names(folder: Path) -> list[str]:
    """Return the names of the projects in a folder, sorted."""
    return sorted(path.parent.name for path in folder.glob("*/project.toml"))
