"""What a table's columns are: the words that training and serving share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Literal, TypeVar

Kind = Literal["number", "integer", "boolean", "date", "category"]
Task = Literal["binary", "multiclass", "regression", "forecast"]
Policy = Literal["warn", "reject"]
Notation = Literal["plain", "money", "percent"]
Spelling = Literal["exact", "loose", "nearest"]
Value = float | str | None
"""A typed cell: text for categories, a float for every other kind (dates are days since 1970), None when missing."""

EPOCH = date(1970, 1, 1).toordinal()

Label = str | int
T = TypeVar("T")


def _from_earlier(self: Any, state: list[Any]) -> None:
    for place, field in enumerate(fields(self)):
        object.__setattr__(self, field.name, state[place] if place < len(state) else field.default)


def lasting(kind: type[T]) -> type[T]:
    """Let a dataclass load pickles of earlier releases, which know fewer fields: new ones come last and have defaults.

    It is set on the finished class, as some releases of Python put their own in its place while they make it.
    """
    kind.__setstate__ = _from_earlier  # type: ignore[attr-defined]
    return kind


@lasting
@dataclass(frozen=True, slots=True)
class Column:
    """One input column as training saw it.

    `low` and `high` are the range of the training rows in the typed unit (days since 1970 for dates); `missing` are the
    texts that mean "no value"; `format` is the strptime form of a date; `notation` is how numbers are written; `spelling` is
    how near to a category a text must be to mean it, and `aliases` are further texts, folded, with what they mean.
    """

    name: str
    kind: Kind
    nullable: bool = False
    missing: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    unknown: Policy = "warn"
    low: float | None = None
    high: float | None = None
    unit: str = ""
    format: str = "%Y-%m-%d"
    notation: Notation = "plain"
    spelling: Spelling = "exact"
    aliases: tuple[tuple[str, str], ...] = ()

    def __hash__(self) -> int:
        """In constant time: there may be many categories, and caches ask for every cell."""
        return hash((self.name, self.kind, self.spelling, len(self.categories)))

    @property
    def is_text(self) -> bool:
        return self.kind == "category"

    @property
    def words(self) -> str:
        """The kind, for people."""
        return self.kind + {"plain": "", "money": ", written as money", "percent": ", written as percent"}[self.notation] + {
            "exact": "", "loose": ", in any case", "nearest": ", misspellings understood"}[self.spelling]  # fmt: skip

    def shown(self, number: float, digits: int = 6) -> str:
        """A number of this column as people write it."""
        return date.fromordinal(int(number) + EPOCH).isoformat() if self.kind == "date" else f"{number:.{digits}g}"

    @property
    def is_dirty(self) -> bool:
        """Whether its cells are texts that must be read, so that a blank text is a missing value."""
        return self.notation != "plain" or self.spelling != "exact"


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
    """A column that is computed from others of the same row, by a rule of `podium.data.panel.RULES`."""

    name: str
    rule: str
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows keyed by an entity and a day: a model sees `steps` days before the one that it predicts.

    `columns` are those of a row as it comes; a forecast adds predicted changes up from the `first` value of an entity, or
    adds one to its `last`.
    """

    entity: str
    time: str
    target: str
    steps: int
    columns: tuple[Column, ...]
    derived: tuple[Derived, ...] = ()
    integrate: Literal["first", "last"] = "last"

    @property
    def entities(self) -> Column:
        """The column of the entity."""
        return next(column for column in self.columns if column.name == self.entity)

    @property
    def days(self) -> Column:
        """The column of the day: a date, or a whole number."""
        return next(column for column in self.columns if column.name == self.time)

    @property
    def measured(self) -> tuple[str, ...]:
        """The columns of numbers, those that come and those that are derived."""
        given = [column.name for column in self.columns if column.name not in (self.entity, self.time)]
        return (*given, *(column.name for column in self.derived))


@lasting
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
    def asked(self) -> tuple[Column, ...]:
        """The columns that a client sends."""
        return self.panel.columns if self.panel else self.inputs

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.asked)
