"""How delimited text is read, and what was noticed while reading it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reading:
    """How text tables are read. A request may differ in delimiter and header; both are detected from the column names.

    `decimal` is the mark of numbers that leave it open. `names` are the columns of tables without a header row. Lines that
    start with `comment` are skipped.
    """

    encoding: str = "utf-8"
    delimiter: str = ","
    decimal: Literal[".", ","] = "."
    comment: str = ""
    names: tuple[str, ...] = ()


DEFAULT_READING = Reading()
UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""The Unicode categories of characters that break a line or are not seen."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as `1 row` or `1,200 rows`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def printable(text: str) -> str:
    """Return the text with line breaks, control and invisible characters escaped as in JSON and TOML."""
    return "".join(_escaped(char) if unicodedata.category(char) in UNPRINTABLE else char for char in text)


def _escaped(char: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char) or (
        f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"
    )


def quoted(text: str) -> str:
    """Return a string of project.toml."""
    return printable(json.dumps(text, ensure_ascii=False))


def setting_key(column: str) -> str:
    """Return the key of a column's section in project.toml, quoted if necessary."""
    is_bare = re.fullmatch(r"[A-Za-z0-9_-]+", column)
    return f"columns.{column if is_bare else quoted(column)}"


def na_values_setting(column: str, marks: Iterable[str]) -> str:
    """Return the line of project.toml that makes these cells of a column missing."""
    return f"{setting_key(column)}.na_values = {quoted_list(marks)}"


def quoted_list(texts: Iterable[str]) -> str:
    """Return a list of strings of project.toml."""
    return f"[{', '.join(map(quoted, texts))}]"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was read differently, changed or left out, and the line of project.toml that decides it.

    `column` is empty for the whole table. The message shows forms and counts; text of cells only if it is repeated.
    """

    column: str
    message: str
    setting: str = ""

    def __str__(self) -> str:
        column = f"{self.column}: " if self.column else ""
        return column + self.message + (f" [{self.setting}]" if self.setting else "")
