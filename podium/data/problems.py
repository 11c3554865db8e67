"""What is wrong with somebody's data: a list of places, never the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

MOST_REPORTED = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong cell, row or column; `row` counts from 1, without the header."""

    code: str
    message: str
    row: int | None = None
    column: str | None = None
    expected: str | None = None

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value is not None}


class BadData(Exception):
    """The data cannot be used; every problem is named, up to a bound."""

    status: ClassVar[int] = 422

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MOST_REPORTED])
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


def _sentence(problem: Problem) -> str:
    place = [f"row {problem.row}"] if problem.row else []
    place += [f"column {problem.column}"] if problem.column else []
    return f"{', '.join(place)}: {problem.message}" if place else problem.message
