"""What a table's columns are: the words that training and serving share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

Kind = Literal["number", "integer", "boolean", "date", "category"]
Task = Literal["binary", "multiclass", "regression"]
Policy = Literal["warn", "reject"]
Notation = Literal["plain", "money", "percent"]
Spelling = Literal["exact", "loose", "nearest"]
Value = float | str | None
"""A typed cell: text for categories, a float for every other kind (dates are days since 1970), None when missing."""

Label = str | int


def _from_earlier(self: Any, state: list[Any]) -> None:
    """Load pickles of earlier releases, which know fewer fields: new ones come last and have defaults."""
    for place, field in enumerate(fields(self)):
        object.__setattr__(self, field.name, state[place] if place < len(state) else field.default)


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

    __setstate__ = _from_earlier

    @property
    def is_text(self) -> bool:
        return self.kind == "category"

    @property
    def words(self) -> str:
        """The kind, for people."""
        return self.kind + {"plain": "", "money": ", written as money", "percent": ", written as percent"}[self.notation] + {
            "exact": "", "loose": ", in any case", "nearest": ", misspellings understood"}[self.spelling]  # fmt: skip

    @property
    def is_dirty(self) -> bool:
        """Whether its cells are texts that must be read, so that a blank text is a missing value."""
        return self.notation != "plain" or self.spelling != "exact"


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
