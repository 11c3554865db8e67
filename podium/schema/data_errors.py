"""Errors about users' data: lists of problems that name rows and columns, but never show cell values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

MAX_REPORTED = 100
MAX_REPORTED_BY_ROW = 100_000
"""Maximum number of problems in a response that lists them by row, not counting the first problem of each row."""
MAX_NAME_LENGTH = 1_000
MAX_SHOWN_LENGTH = 200
"""Maximum number of characters of a column name shown in an error."""


def shorten_name(name: str) -> str:
    """Return the first line of a name, at most MAX_SHOWN_LENGTH characters, without unpaired surrogates."""
    first = name.splitlines()[0] if name.strip("\r\n") else ""  # after an unclosed quote, later lines may be cells
    short = first[:MAX_SHOWN_LENGTH] + "…" * (len(first) > MAX_SHOWN_LENGTH or first != name)
    return short.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class Problem:
    """An invalid cell, row or column. `row` counts from 1, excluding the header.

    If `column` is set, the message is a phrase that follows its name, such as "is required". `setting` is the line of
    project.toml that avoids the error.
    """

    code: str
    message: str
    row: int | None = None
    column: str | None = None
    expected: str | None = None
    setting: str | None = None

    def __post_init__(self) -> None:
        if self.column is not None:
            object.__setattr__(self, "column", shorten_name(self.column))

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        """Return a sentence such as `row 1: "Sex" is required`."""
        row = f"row {self.row}: " if self.row else ""
        return row + (f'"{self.column}" {self.message}' if self.column is not None else self.message)


def unknown_column(name: str, row: int | None = None, suggestion: str | None = None) -> Problem:
    """Return the problem for a column or field that the model does not use."""
    hint = f"; did you mean `{suggestion}`?" if suggestion else ""
    return Problem("unknown-field", f"is not an input of this model{hint}", row, name)


def max_problems_per_row(rows: int) -> int:
    """Return how many problems each row may list if this many rows are invalid."""
    return max(1, min(MAX_REPORTED, MAX_REPORTED_BY_ROW // max(1, rows)))


class BadData(Exception):
    """The data cannot be used. `problems` holds every problem, up to a limit."""

    status: ClassVar[int] = 422

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MAX_REPORTED])
        self.code = self.problems[0].code
        super().__init__("; ".join(map(str, self.problems[:5])))


class Malformed(BadData):
    """The data is not in the format that it claims to have."""

    status = 400


class WrongType(BadData):
    """The media type is not supported."""

    status = 415


class TooLarge(BadData):
    """The data exceeds a limit."""

    status = 413


def check_names(names: Iterable[str]) -> None:
    """Raise BadData for column names that cannot be represented in every output format."""
    invalid = [
        name for name in names if len(name) > MAX_NAME_LENGTH or "\0" in name or name.encode(errors="replace").decode() != name
    ]
    if invalid:
        message = f"is longer than {MAX_NAME_LENGTH} characters, or contains NUL or an unpaired surrogate"
        raise BadData([Problem("invalid-encoding", message, column=name) for name in invalid[:MAX_REPORTED]])
