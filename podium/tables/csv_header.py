"""Find the header row and the delimiter of a text table, among the lines that people and programs put around them."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from podium.schema.data_errors import BadData, Problem, TooLarge
from podium.schema.reading import DEFAULT_READING, Finding, Reading, counted

BOM = "\ufeff"
INVISIBLE = " \t\r\n\u00a0\u200b\ufeff"
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
MAX_PREAMBLE = 50
"""Maximum number of rows before the header."""
SAMPLE_ROWS = 20
MIN_ROW_NAMES = 3
MAX_ROWS = MAX_PREAMBLE + SAMPLE_ROWS + 1
UNNAMED = re.compile(r"Unnamed: [0-9]+")
"""The name of a column without one, as pandas names it."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HeaderOptions:
    """What is known about the header: the reading, names of columns that the table has, an explicit delimiter or position."""

    reading: Reading = DEFAULT_READING
    known: Collection[str] = ()
    delimiter: str | None = None
    skip_rows: int | None = None


DEFAULT_HEADER = HeaderOptions()


@dataclass(frozen=True, slots=True)
class Header:
    """The column names, the delimiter, and the number of lines before the first row of data."""

    names: list[str]
    delimiter: str
    lines: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of cells near the start of the file; `end` counts the lines up to its end."""

    cells: list[str]
    end: int


def find_header(head: str, options: HeaderOptions = DEFAULT_HEADER, max_columns: int = 10_000) -> Header:
    """Return the header of the text that starts with `head`. Raises BadData.

    The header is the first of the rows with the most `known` names, under the delimiter that shows them. If no row has any,
    it is the first row, or the table has none and `reading.names` are its names.
    """
    text = head.removeprefix(BOM)
    if not text.strip():
        raise BadData([Problem("empty-input", "the file is empty")])
    separator = SEPARATOR_LINE.match(text)
    delimiters = [separator[1]] if separator else [options.delimiter] if options.delimiter else _candidates(options.reading)
    rows = {mark: _first_rows(text, mark, skipped=1 if separator else options.skip_rows or 0) for mark in delimiters}
    delimiter, index = _best_row(rows, options)
    if not rows[delimiter]:
        raise BadData([Problem("csv-header", "the first row is not a header")])
    if options.reading.names and not _score(rows[delimiter][index], set(options.reading.names)):
        return Header(list(options.reading.names), delimiter, rows[delimiter][0].end - _height(text, rows[delimiter][0]))
    if len(rows[delimiter][index].cells) > max_columns:
        message = f"the table has {len(rows[delimiter][index].cells)} columns"
        raise TooLarge([Problem("too-many-columns", message, expected=f"at most {max_columns}")])
    row, following = rows[delimiter][index], rows[delimiter][index + 1 : index + 1 + SAMPLE_ROWS]
    findings = [Finding("", f"{counted(index, 'row')} before the header skipped", "reading.skip_rows = 0")] if index else []
    names, more = _complete_names(row.cells, following)
    if len(names) == 1 and options.delimiter and (other := next((mark for mark in DELIMITERS if mark in names[0]), None)):
        message = f"the cells seem to be separated by a {DELIMITERS[other]}"
        raise BadData([Problem("csv-delimiter", message, expected=DELIMITERS.get(delimiter, delimiter))])
    return Header(names, delimiter, row.end, (*findings, *more))


def _candidates(reading: Reading) -> list[str]:
    return [reading.delimiter, *(mark for mark in DELIMITERS if mark != reading.delimiter)]


def _first_rows(text: str, delimiter: str, skipped: int) -> list[_Row]:
    """Return the first rows that are not blank; a quoted cell may contain line breaks."""
    lines = io.StringIO(text, newline=None)
    for _ in range(skipped):
        lines.readline()
    reader = csv.reader(lines, delimiter=delimiter)
    rows: list[_Row] = []
    try:
        numbered = ((cells, skipped + reader.line_num) for cells in reader)
        rows.extend(itertools.islice((_Row(cells, end) for cells, end in numbered if any(map(str.strip, cells))), MAX_ROWS))
    except csv.Error:  # a cell is too long; the rows before it are enough
        pass
    return rows


def _best_row(rows: dict[str, list[_Row]], options: HeaderOptions) -> tuple[str, int]:
    """Return the delimiter and the index of the row that has the most known names; by default the first row."""
    known = set(options.known) | set(options.reading.names)
    best, found = 0.0, None
    for delimiter, candidates in rows.items():
        for index, row in enumerate(candidates[:MAX_PREAMBLE] if options.skip_rows is None else candidates[:1]):
            score = _score(row, known) + _fits(row, candidates[index + 1 : index + 2])
            if score > best and _score(row, known):
                best, found = score, (delimiter, index)
            if _score(row, known) == len(row.cells) == len(set(row.cells)):
                return delimiter, index
    return found or (_usual_delimiter(rows), 0)


def _fits(row: _Row, following: Sequence[_Row]) -> float:
    """Return half a point if the next row has as many cells, as the row after a header has."""
    return 0.5 if following and len(following[0].cells) == len(row.cells) else 0.0


def _score(row: _Row, known: set[str]) -> int:
    return len(known.intersection(cell.strip() for cell in row.cells))


def _usual_delimiter(rows: dict[str, list[_Row]]) -> str:
    """Return the first delimiter under which the rows have the same number of cells, more than one."""
    for delimiter, candidates in rows.items():
        lengths = {len(row.cells) for row in candidates[:SAMPLE_ROWS]}
        if len(lengths) == 1 and lengths.pop() > 1:
            return delimiter
    return max(rows, key=lambda delimiter: len(rows[delimiter][0].cells) if rows[delimiter] else 0)


def _height(text: str, row: _Row) -> int:
    """The number of lines that a first row takes."""
    return 1 + sum(cell.count("\n") for cell in row.cells)


def _complete_names(cells: Sequence[str], following: Sequence[_Row]) -> tuple[list[str], list[Finding]]:
    """Return a distinct name for every column of the rows, as pandas does, and what was changed."""
    names, findings = list(cells), []
    extra = {len(row.cells) - len(names) for row in following}
    if extra == {1}:
        if all(not row.cells[-1].strip() for row in following):
            names.append("")
        elif _are_row_names([row.cells[0].strip() for row in following]):  # R writes them without a name in the header
            names.insert(0, "")
            findings.append(Finding("", "the header has no name for the first column, which holds names of rows"))
    elif extra == {-1} and not names[-1].strip():
        names.pop()
    stripped = [name.strip(INVISIBLE) for name in names]
    if stripped != names:
        findings.append(Finding("", "blanks around the column names were removed"))
    distinct = list(_distinct(stripped))
    findings += [
        Finding(name, f'a second column "{old}" is called {name}')
        for old, name in zip(stripped, distinct, strict=True)
        if old and old != name
    ]
    return distinct, findings


def _are_row_names(cells: Sequence[str]) -> bool:
    """Return whether the cells are a running number or distinct texts."""
    if len(cells) < MIN_ROW_NAMES or len(set(cells)) < len(cells):
        return False
    numbers = [int(cell) for cell in cells if cell.isdecimal()]
    return not numbers or (len(numbers) == len(cells) and numbers == list(range(numbers[0], numbers[0] + len(cells))))


def _distinct(names: Sequence[str]) -> Iterator[str]:
    taken = set(names)
    seen: set[str] = set()
    for position, name in enumerate(names):
        base = name or f"Unnamed: {position}"
        unique = base
        for number in itertools.count(1):
            if unique not in seen and (unique == name or unique not in taken):
                break
            unique = f"{base}.{number}"
        seen.add(unique)
        yield unique
