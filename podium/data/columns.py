"""What a table's columns are: the words that training and serving share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "integer", "boolean", "date", "category"]
Task = Literal["binary", "multiclass", "regression"]
Policy = Literal["warn", "reject"]
Value = float | str | None
"""A typed cell: text for categories, a float for every other kind (dates are days since 1970), None when missing."""

Label = str | int


@dataclass(frozen=True, slots=True)
class Column:
    """One input column as training saw it.

    `low` and `high` are the range of the training rows in the typed unit (days since 1970 for dates); `missing` are the
    texts that mean "no value"; `format` is the strptime form of a date.
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

    @property
    def is_text(self) -> bool:
        return self.kind == "category"


@dataclass(frozen=True, slots=True)
class Target:
    """The column to predict; `classes` are in the order of a model's scores and empty for regression."""

    name: str
    task: Task
    classes: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives; `ignored` columns may come along and are not used, with the reason for each."""

    inputs: tuple[Column, ...]
    target: Target
    ignored: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.inputs)
