"""What a table's columns are: the words that training and serving share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

Kind = Literal["number", "integer", "boolean", "date", "category"]
Task = Literal["binary", "multiclass", "regression", "forecast"]
Policy = Literal["warn", "reject"]
NumberFormat = Literal["plain", "money", "percent"]
FuzzyMatching = Literal["exact", "loose", "nearest"]
Value = float | str | None
"""A typed cell: text for categories, a float for every other kind (dates are days since 1970), None when missing."""

EPOCH = date(1970, 1, 1).toordinal()

Label = str | int


@dataclass(frozen=True, slots=True)
class Column:
    """One input column as training saw it.

    `low` and `high` are the range of the training rows in the typed unit (days since 1970 for dates); `na_values` are the
    texts that mean "no value"; `date_format` is a strptime format; `number_format` is how numbers are written; `fuzzy` is
    how near to a category a text must be to mean it, and `aliases` are further texts, folded, with what they mean.
    """

    name: str
    kind: Kind
    nullable: bool = False
    na_values: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    handle_unknown: Policy = "warn"
    low: float | None = None
    high: float | None = None
    unit: str = ""
    date_format: str = "%Y-%m-%d"
    number_format: NumberFormat = "plain"
    fuzzy: FuzzyMatching = "exact"
    aliases: tuple[tuple[str, str], ...] = ()

    def __hash__(self) -> int:
        """In constant time: there may be many categories, and caches ask for every cell."""
        return hash((self.name, self.kind, self.fuzzy, len(self.categories)))

    @property
    def is_text(self) -> bool:
        return self.kind == "category"

    @property
    def display_kind(self) -> str:
        """The kind, for people."""
        number = {"plain": "", "money": ", written as money", "percent": ", written as percent"}
        text = {"exact": "", "loose": ", in any case", "nearest": ", misspellings understood"}
        return self.kind + number[self.number_format] + text[self.fuzzy]

    def format_value(self, number: float, digits: int = 6) -> str:
        """A number of this column as people write it."""
        return date.fromordinal(int(number) + EPOCH).isoformat() if self.kind == "date" else f"{number:.{digits}g}"

    @property
    def needs_parsing(self) -> bool:
        """Whether its cells are texts that must be read, so that a blank text is a missing value."""
        return self.number_format != "plain" or self.fuzzy != "exact"


@dataclass(frozen=True, slots=True)
class Target:
    """The column to predict; `classes` are in the order of a model's scores and empty for numbers.

    A forecast's score is the change since the day before, in units of the value then.
    """

    name: str
    task: Task
    classes: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Derived:
    """A column that is computed from others of the same row, by a rule of `podium.tables.panel.RULES`."""

    name: str
    rule: str
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows keyed by an entity and a day: a model sees `lags` days before the one that it predicts.

    `columns` are those of a row as it comes; a forecast adds predicted changes up from the `first` value of an entity, or
    adds one to its `last`.
    """

    entity: str
    time: str
    target: str
    lags: int
    columns: tuple[Column, ...]
    derived_columns: tuple[Derived, ...] = ()
    forecast_base: Literal["first", "last"] = "last"

    @property
    def entity_column(self) -> Column:
        """The column of the entity."""
        return next(column for column in self.columns if column.name == self.entity)

    @property
    def time_column(self) -> Column:
        """The column of the day: a date, or a whole number."""
        return next(column for column in self.columns if column.name == self.time)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The columns of numbers, those that come and those that are derived."""
        given = [column.name for column in self.columns if column.name not in (self.entity, self.time)]
        return (*given, *(column.name for column in self.derived_columns))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives; `ignored` columns may come along and are not used, with the reason for each.

    With a `panel`, clients send its rows, and `inputs` are the windows that are made of them.
    """

    inputs: tuple[Column, ...]
    target: Target
    ignored: dict[str, str]
    panel: Panel | None = None

    @property
    def request_columns(self) -> tuple[Column, ...]:
        """The columns that a client sends."""
        return self.panel.columns if self.panel else self.inputs

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.request_columns)
