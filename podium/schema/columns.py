"""Columns, targets, panels and signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from podium.schema.reading import DEFAULT_READING, Reading

Kind = Literal["number", "integer", "boolean", "date", "category", "text"]
Task = Literal["binary", "multiclass", "regression", "forecast"]
Policy = Literal["warn", "reject"]
NumberFormat = Literal["plain", "money", "percent", "quantity"]
DecimalMark = Literal[".", ","]
FuzzyMatching = Literal["exact", "loose", "nearest"]
Duplicates = Literal["error", "last", "mean", "sum"]
Value = float | str | None
"""A typed cell: text for categories, a float for other kinds (dates are days since 1970), None if missing."""

Label = str | int

EPOCH = date(1970, 1, 1).toordinal()
ISO_FORMAT = "%Y-%m-%d"
EPOCH_TIME = datetime(1970, 1, 1)
MAX_WHOLE = 1e15
"""Whole numbers below are shown with all digits."""
LAST_YEAR = 2035
"""The newest year that two digits mean by default; the oldest is 99 years before."""


def format_date(days: float, date_format: str = "") -> str:
    """Return days since 1970 as text in a strptime format; by default as an ISO date, with the time if it is not midnight."""
    time = EPOCH_TIME + timedelta(seconds=round(days * 86_400))
    if date_format:
        return time.strftime(date_format)
    return time.date().isoformat() if float(days).is_integer() else time.isoformat()


@dataclass(frozen=True, slots=True)
class Column:
    """An input column, with statistics from the training rows.

    `low` and `high` are the training range (for dates, in days since 1970). `na_values` are strings that mean "missing".
    `date_format` is a strptime format, whose two-digit years are in the hundred years up to `last_year`. `fuzzy` decides how
    values are matched to `categories`; `aliases` maps other normalized spellings to categories. Columns that no model uses are
    not `used`, and optional. An integer column rejects decimals only if `require_whole`, and numbers outside `low` to `high`
    if its `handle_unknown` is "reject", as for codes. Numbers with a decimal comma may have thousands separators if they are
    `grouped`, otherwise also a decimal point. `suffix` is the unit that cells of the format "quantity" may have, such as `kg`.
    """

    name: str
    kind: Kind
    nullable: bool = False
    na_values: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    handle_unknown: Policy = "warn"
    low: float | None = None
    high: float | None = None
    require_whole: bool = False
    used: bool = True
    unit: str = ""
    date_format: str = ISO_FORMAT
    last_year: int = LAST_YEAR
    number_format: NumberFormat = "plain"
    decimal: DecimalMark = "."
    grouped: bool = True
    suffix: str = ""
    fuzzy: FuzzyMatching = "exact"
    aliases: tuple[tuple[str, str], ...] = ()

    def __hash__(self) -> int:
        """Hash in constant time, because caches hash the column for every cell and a column may have many categories."""
        return hash((self.name, self.kind, self.fuzzy, len(self.categories)))

    @property
    def strptime_format(self) -> str:
        """Return the date format; empty for ISO 8601."""
        return "" if self.date_format == ISO_FORMAT else self.date_format

    @property
    def has_number_format(self) -> bool:
        """Return whether cells may be formatted numbers, such as `$1,234`."""
        return self.number_format != "plain" or self.decimal != "."

    @property
    def is_text(self) -> bool:
        return self.kind in ("category", "text")

    @property
    def rejects_outside_range(self) -> bool:
        """Return whether numbers outside `low` to `high` are invalid, instead of a warning."""
        return self.kind == "integer" and self.handle_unknown == "reject" and None not in (self.low, self.high)

    @property
    def display_kind(self) -> str:
        """Return the kind and format as text."""
        number_format = "" if self.number_format == "plain" else f", formatted as {self.number_format}"
        matching = {"exact": "", "loose": ", case-insensitive", "nearest": ", misspellings corrected"}
        return self.kind + number_format + matching[self.fuzzy]

    def format_value(self, number: float, digits: int = 6) -> str:
        """Return a typed number as text: an ISO date or time, a whole number, or up to `digits` significant digits."""
        if self.kind == "date":
            return format_date(number)
        return f"{number:.0f}" if number % 1 == 0 and abs(number) < MAX_WHOLE else f"{number:.{digits}g}"

    @property
    def needs_parsing(self) -> bool:
        """Return whether cells are strings that need parsing; if so, a blank string means missing."""
        return self.has_number_format or self.fuzzy != "exact"


@dataclass(frozen=True, slots=True)
class Decision:
    """Predict the class at this index if its probability is above the threshold, else the likeliest of the others."""

    index: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Target:
    """The column to predict. `classes` is in the order of the model's scores and is empty for numeric targets.

    A forecast's score is the relative change from the previous day. Without a `decision`, the likeliest class is predicted.
    """

    name: str
    task: Task
    classes: tuple[Label, ...] = ()
    decision: Decision | None = None

    def predicted_index(self, scores: Sequence[float]) -> int:
        """Return the index of the predicted class (the first one if tied)."""
        decision = self.decision
        if decision is None:
            return scores.index(max(scores))
        if scores[decision.index] > decision.threshold:
            return decision.index
        return max((index for index in range(len(scores)) if index != decision.index), key=scores.__getitem__)

    @property
    def decision_rule(self) -> str:
        """Return the decision as text; empty without one."""
        if self.decision is None:
            return ""
        return f"{self.classes[self.decision.index]} if its probability is above {self.decision.threshold:g}"


@dataclass(frozen=True, slots=True)
class Derived:
    """A column computed from other columns of the same row by a rule of `podium.tables.panel.RULES`."""

    name: str
    rule: str
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows keyed by entity and time; a model predicts a time from the `lags` rows before it.

    `columns` describes these rows. `forecast_base` decides whether a forecast accumulates predicted changes from an
    entity's `first` value or adds one change to its `last` value. `frequency` is a pandas offset alias, empty if times are
    whole numbers. Rows with the same key are combined by `duplicates`.
    """

    entity: str
    time: str
    target: str
    lags: int
    columns: tuple[Column, ...]
    derived_columns: tuple[Derived, ...] = ()
    forecast_base: Literal["first", "last"] = "last"
    frequency: str = "D"
    duplicates: Duplicates = "last"

    @property
    def entity_column(self) -> Column:
        return next(column for column in self.columns if column.name == self.entity)

    @property
    def time_column(self) -> Column:
        """The column that holds the time, as a date or an integer."""
        return next(column for column in self.columns if column.name == self.time)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """Names of the numeric columns, including the derived ones."""
        columns = [column.name for column in self.columns if column.name not in (self.entity, self.time)]
        return (*columns, *(column.name for column in self.derived_columns))


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and target of a model.

    `ignored` maps each accepted but unused column to the reason. If there is a `panel`, clients send panel rows and `inputs`
    are the columns of the windows made from them. `reading` is how the training table was read.
    """

    inputs: tuple[Column, ...]
    target: Target
    ignored: dict[str, str]
    panel: Panel | None = None
    reading: Reading = DEFAULT_READING

    @property
    def request_columns(self) -> tuple[Column, ...]:
        """The columns that clients send."""
        return self.panel.columns if self.panel else self.inputs

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.request_columns)
