"""What is wrong with somebody's data: a list of places, never the values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

MAX_REPORTED = 100
MAX_BY_ROW = 100_000
"""Problems of an answer that lists them row by row, beyond the first of each row."""
MAX_NAME = 1_000
"""Characters of the name of a column or field."""
MAX_SHOWN = 200
"""Characters of a name that are given back."""


def shorten_name(name: str) -> str:
    """Return the first line of a name, at most MAX_SHOWN characters, without unpaired surrogates."""
    first = name.splitlines()[0] if name.strip("\r\n") else ""  # what follows may be cells, when a quote is not closed
    short = first[:MAX_SHOWN] + "…" * (len(first) > MAX_SHOWN or first != name)
    return short.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong cell, row or column; `row` counts from 1, without the header."""

    code: str
    message: str
    row: int | None = None
    column: str | None = None
    expected: str | None = None

    def __post_init__(self) -> None:
        if self.column is not None:
            object.__setattr__(self, "column", shorten_name(self.column))

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def limit_by_row(rows: int) -> int:
    """How many problems each of so many wrong rows may list."""
    return max(1, min(MAX_REPORTED, MAX_BY_ROW // max(1, rows)))


class BadData(Exception):
    """The data cannot be used; every problem is named, up to a bound."""

    status: ClassVar[int] = 422

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MAX_REPORTED])
        self.code = self.problems[0].code
        super().__init__("; ".join(_sentence(problem) for problem in self.problems[:5]))


class Malformed(BadData):
    """The bytes are not of the form that they claim to have."""

    status = 400


class WrongType(BadData):
    """The bytes are of a media type that is not read here."""

    status = 415


class TooLarge(BadData):
    """More than the limits allow."""

    status = 413


def check_names(names: Iterable[str]) -> None:
    """Raises BadData for names that could not be written into every form of answer."""
    wrong = [name for name in names if len(name) > MAX_NAME or "\0" in name or name.encode(errors="replace").decode() != name]
    if wrong:
        said = f"the name is longer than {MAX_NAME} characters, or holds NUL or half a surrogate pair"
        raise BadData([Problem("invalid-encoding", said, column=name) for name in wrong[:MAX_REPORTED]])


def _sentence(problem: Problem) -> str:
    place = [f"row {problem.row}"] if problem.row else []
    place += [f"column {problem.column}"] if problem.column else []
    return f"{', '.join(place)}: {problem.message}" if place else problem.message
