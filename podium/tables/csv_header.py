"""Find the header row and the delimiter of a text table, among the lines that people and programs put around them."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
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
csv.field_size_limit(1 << 24)  # the default of 128 kB is less than a cell may have; the limit is one for the whole process
PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")
NUMBER_LIKE = re.compile(r"[+\-\u2212]?[$€£]? ?[0-9][0-9.,]* ?[%€]?")
DATE_LIKE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}([T ].*)?")
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
    looks_like_data: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of cells near the start of the file, and the number of lines before it and up to its end."""

    cells: list[str]
    start: int
    end: int
    is_quoted: bool


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
    skipped = 1 if separator else options.skip_rows or 0
    delimiter, rows, index = _best_row(((mark, _first_rows(text, mark, skipped)) for mark in delimiters), options)
    if not rows:
        raise BadData([Problem("csv-header", "the first row is not a header")])
    row, following = rows[index], rows[index + 1 : index + 1 + SAMPLE_ROWS]
    configured = options.reading.names
    if 2 * _score(row, set(configured)) < len(configured):
        return Header(list(configured), delimiter, rows[0].start)
    if len(row.cells) > max_columns:
        message = f"the table has {len(row.cells)} columns"
        raise TooLarge([Problem("too-many-columns", message, expected=f"at most {max_columns}")])
    setting = "" if separator else f"reading.skip_rows = {row.start}"
    before = counted(row.start - bool(separator), "line")
    findings = [Finding("", f"{before} before the header skipped", setting)] if index else []
    names, more = _complete_names(row.cells, following)
    if len(names) == 1 and options.delimiter and (other := next((mark for mark in DELIMITERS if mark in names[0]), None)):
        message = f"the cells seem to be separated by a {DELIMITERS[other]}"
        raise BadData([Problem("csv-delimiter", message, expected=DELIMITERS.get(delimiter, delimiter))])
    return Header(names, delimiter, row.end, (*findings, *more), options.skip_rows is None and _looks_like_data(row, following))


def _candidates(reading: Reading) -> list[str]:
    return [reading.delimiter, *(mark for mark in DELIMITERS if mark != reading.delimiter)]


def _first_rows(text: str, delimiter: str, skipped: int) -> list[_Row]:
    """Return the first rows that are not blank; a quoted cell may contain line breaks."""
    lines = io.StringIO(text, newline=None)
    for _ in range(skipped):
        lines.readline()
    is_quoted: list[bool] = []

    def noted() -> Iterator[str]:
        for line in lines:
            is_quoted.append(line.startswith('"'))
            yield line

    reader = csv.reader(noted(), delimiter=delimiter)
    rows: list[_Row] = []
    end = 0
    try:
        for cells in reader:
            start, end = end, reader.line_num
            if any(map(str.strip, cells)):
                rows.append(_Row(cells, skipped + start, skipped + end, is_quoted[start]))
            if len(rows) == MAX_ROWS:
                break
    except csv.Error:  # a cell is too long; the rows before it are enough
        pass
    return rows


_Rows = tuple[str, list[_Row], int]
"""A delimiter, the rows that it gives, and the index of the header among them."""


def _best_row(by_delimiter: Iterable[tuple[str, list[_Row]]], options: HeaderOptions) -> _Rows:
    """Return the row that has the most known names; by default the first row under the usual delimiter."""
    known = set(options.known) | set(options.reading.names)
    best, found, tried = 0.0, None, list[tuple[str, list[_Row]]]()
    for delimiter, rows in by_delimiter:
        tried.append((delimiter, rows))
        for index, row in enumerate(rows[:MAX_PREAMBLE] if options.skip_rows is None else rows[:1]):
            count = _score(row, known)
            if count == len(row.cells) == len(set(row.cells)):
                return delimiter, rows, index
            score = count + _fits(row, rows[index + 1 : index + 2])
            if count and score > best:
                best, found = score, (delimiter, rows, index)
    return found or (*_usual(tried), 0)


def _fits(row: _Row, following: Sequence[_Row]) -> float:
    """Return half a point if the next row has as many cells, as the row after a header has."""
    return 0.5 if following and len(following[0].cells) == len(row.cells) else 0.0


def _score(row: _Row, known: set[str]) -> int:
    return len(known.intersection(cell.strip() for cell in row.cells))


def _usual(tried: Sequence[tuple[str, list[_Row]]]) -> tuple[str, list[_Row]]:
    """Return the first delimiter under which the rows have the same number of cells, more than one, and these rows."""
    for delimiter, rows in tried:
        lengths = {len(row.cells) for row in rows[:SAMPLE_ROWS]}
        if len(lengths) == 1 and lengths.pop() > 1:
            return delimiter, rows
    return max(tried, key=lambda pair: len(pair[1][0].cells) if pair[1] else 0)


def _complete_names(cells: Sequence[str], following: Sequence[_Row]) -> tuple[list[str], list[Finding]]:
    """Return a distinct name for every column of the rows, as pandas does, and what was changed."""
    names, findings = list(cells), []
    extra = {len(row.cells) - len(names) for row in following}
    if extra == {1}:
        if all(not row.cells[-1].strip() for row in following):
            names.append("")
        elif _have_row_names(following):
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


def _looks_like_data(row: _Row, following: Sequence[_Row]) -> bool:
    """Return whether at least half of the cells are numbers or dates like those below, or all cells are like those below.

    Numbers in sequence, such as years, may be names.
    """
    cells = [cell.strip() for cell in row.cells]
    below = [[other.cells[i].strip() for other in following if i < len(other.cells) and other.cells != row.cells]
             for i in range(len(cells))]  # fmt: skip
    typed = [i for i, cell in enumerate(cells) if _is_typed_as(cell, below[i])]
    numbers = [float(cells[i]) for i in typed if PLAIN_NUMBER.fullmatch(cells[i])]
    if len(numbers) == len(typed) and _are_names(numbers, {cell for i in typed for cell in below[i]}):
        return False
    filled = [i for i, cell in enumerate(cells) if cell]
    return 2 * len(typed) >= len(filled) or all(i in typed or cells[i] in below[i] for i in filled)


def _is_typed_as(cell: str, below: Sequence[str]) -> bool:
    """Return whether the cell and most of those below are numbers, or dates."""
    filled = [other for other in below if other]
    return any(
        form.fullmatch(cell) and sum(form.fullmatch(other) is not None for other in filled) > 0.5 * len(filled)
        for form in (NUMBER_LIKE, DATE_LIKE)
    )


def _are_names(numbers: Sequence[float], below: set[str]) -> bool:
    """Return whether numbers are rather names of columns: a running number, years, equal steps, or a long ascending list."""
    steps = {round(b - a, 9) for a, b in itertools.pairwise(numbers)}
    is_ascending = bool(steps) and (min(steps) > 0 or max(steps) < 0)
    if not is_ascending:
        return False
    is_running = steps == {1.0} and numbers[0] in (0, 1) and not below <= {"0", "1"}
    are_years = all(map(_is_year, numbers)) and not all(
        PLAIN_NUMBER.fullmatch(cell) and _is_year(float(cell)) for cell in below
    )
    return is_running or are_years or (len(steps) == 1 and len(numbers) >= 4) or len(numbers) >= 6


def _is_year(number: float) -> bool:
    return 1800 <= number <= 2100 and number.is_integer()


def _have_row_names(rows: Sequence[_Row]) -> bool:
    """Return whether the first cells are a running number or distinct quoted texts, as R writes them."""
    cells = [row.cells[0].strip() for row in rows]
    if len(cells) < MIN_ROW_NAMES or len(set(cells)) < len(cells):
        return False
    if all(cell.isdecimal() for cell in cells):
        return [int(cell) for cell in cells] == list(range(int(cells[0]), int(cells[0]) + len(cells)))
    return all(row.is_quoted for row in rows)  # without quotes, they are rather the first part of a cell with a comma


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
