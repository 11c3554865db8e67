"""Infer column types, categories and ranges from text columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.project import ColumnOptions, Project
from podium.schema.columns import LAST_YEAR, Column, DecimalMark, Signature
from podium.schema.data_errors import BadData, Problem
from podium.schema.reading import DEFAULT_READING, Reading, na_values_setting, setting_key
from podium.tables.cell_rules import normalize_category
from podium.tables.fuzzy_categories import (
    VOCABULARIES,
    apply_corrections,
    infer_spellings,
    infer_vocabulary,
    vocabulary_aliases,
)
from podium.tables.kind_inference import (
    CATEGORY,
    LONG_INTEGER,
    MIN_TYPED_FRACTION,
    PANDAS_MARKS,
    CellKind,
    has_thousands_separators,
    infer_decimal,
    infer_kind,
    is_epoch,
)
from podium.tables.number_formats import MAGNITUDES
from podium.tables.number_notes import mixed_units
from podium.tables.target_inference import infer_target
from podium.tables.typed_columns import coerce_column, mask_missing

UUID = r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
ID_NAME = re.compile(r"(^|[_ .-])(id|ID|Id|uuid|guid|key)$|[a-z](Id|ID)$")
MANY_TEXTS = "different texts in"
MIN_WORDS = 4
"""Mean number of words of a column of free text."""
ROW_NAME = re.compile(r"(?i)^(Unnamed: [0-9]+|row.*|index|nr|no|number|#)$")
NUMBERED_NAME = re.compile(
    r"(?i)(id|nr|number|nummer|key|code)$|(^|[^a-z])(id|no|nr|number|nummer|key|code)([^a-z]|$)|[a-z]No$"
)
"""Names of columns whose running numbers, from any start, identify the rows."""
MIN_RUNNING_ROWS = 50
MIN_YEARS_BETWEEN = 10
"""Minimum number of years without dates that tell apart centuries."""
MAX_SHOWN = 5


def infer_signature(table: pa.Table, project: Project, reading: Reading = DEFAULT_READING) -> Signature:
    """Infer inputs, target and ignored columns from the cells and the project's options.

    Raises BadData with the problems of all columns.
    """
    _check_names(table, project)
    decimal = table_decimal(table, project, reading)
    inputs, ignored, problems = [], {project.target: "the target"}, list[Problem]()
    for name in table.column_names:
        if name == project.target:
            continue
        options = project.columns.get(name, ColumnOptions())
        if options.ignore:
            ignored[name] = "ignored by the project"
            continue
        try:
            column = infer_column(name, table[name], options, decimal)
        except BadData as error:
            problems += error.problems
            continue
        reason = _reason_to_drop(table[name], column)
        if MANY_TEXTS in reason and options.kind is None and _is_free_text(table[name]):
            column, reason = replace(column, kind="text", categories=(), fuzzy="exact", aliases=()), ""
        if reason and options.kind is None:
            ignored[name] = reason
        else:
            inputs.append(column)
    try:
        target = infer_target(table[project.target], project, decimal)
    except BadData as error:
        problems += error.problems
    if problems:
        raise BadData(problems)
    if not inputs:
        raise BadData([Problem("no-inputs", "no input column is left to train on")])
    return Signature(tuple(inputs), target, ignored, reading=replace(reading, decimal=decimal))


def table_decimal(table: pa.Table, project: Project, reading: Reading) -> DecimalMark:
    """Return the decimal mark for numbers that leave it open; a comma only if cells are not separated by commas."""
    return project.reading.decimal or ("." if reading.delimiter == "," else infer_decimal(table.columns))


def infer_column(name: str, cells: pa.ChunkedArray, options: ColumnOptions, decimal: DecimalMark = ".") -> Column:
    """Infer a column's kind, NA values, categories and range, except where the project sets them. Raises BadData."""
    plain = Column(name, "category", nullable=True, na_values=options.na_values)
    text = mask_missing(cells, plain)
    configured = _configured_kind(options, decimal)
    if options.number_format == "quantity" and configured and (unit := infer_kind(text, decimal).suffix) not in MAGNITUDES:
        configured = replace(configured, suffix=unit)
    kind = configured or _inferred_kind(name, text, decimal)
    column = Column(
        name,
        kind.kind,
        nullable=True,
        na_values=tuple(dict.fromkeys((*options.na_values, *kind.na_values, *_missing_marks(text, options)))),
        handle_unknown=options.handle_unknown if kind.kind == "category" else "warn",
        require_whole=options.kind == "integer",
        unit=options.unit or kind.suffix,
        date_format=kind.date_format,
        last_year=options.last_year or LAST_YEAR,
        number_format=kind.number_format,
        decimal=kind.decimal,
        grouped=kind.decimal == "." or has_thousands_separators(text),
        suffix=kind.suffix,
    )
    if options.kind is None and configured:
        column = replace(column, na_values=(*options.na_values, *_marks_of_format(column, text, decimal)))
    if kind.kind == "category":
        column = _with_fuzzy_spellings(column, mask_missing(text, column), options)
    values, problems = coerce_column(cells, column)
    if "%y" in column.date_format and options.last_year is None and (last_year := _last_year(values.dropna())) != LAST_YEAR:
        column = replace(column, last_year=last_year)
        values, problems = coerce_column(cells, column)
    if problems and options.number_format == "quantity" and (units := mixed_units(mask_missing(text, column))):
        message = f"has {units}; convert the numbers to one, or set {setting_key(name)}.ignore = true"
        raise BadData([Problem("invalid-type", message, column=name, setting=f"{setting_key(name)}.ignore = true")])
    if problems:
        raise BadData(_grouped(problems, name, options))
    return with_statistics(replace(column, nullable=False), values, options)


def _last_year(days: pd.Series) -> int:
    """Return the year before those that rather continue the years 100 years earlier, as a few births of 1930 do."""
    years = pd.to_datetime(days, unit="D").dt.year.to_numpy()
    distinct = np.unique(years)
    if len(distinct) < 2:
        return LAST_YEAR
    gaps = np.diff(distinct)
    first = int(distinct[gaps.argmax() + 1])
    is_continued = distinct[0] + 100 - distinct[-1] < MIN_YEARS_BETWEEN <= gaps.max()
    return first - 1 if is_continued and first > 1999 and np.mean(years >= first) < 0.5 else LAST_YEAR


def _marks_of_format(column: Column, text: pa.ChunkedArray, decimal: DecimalMark) -> tuple[str, ...]:
    """Return the strings that mean a missing value in a column of this format, as in one whose format is inferred."""
    marks = infer_kind(text, decimal).na_values
    values, _ = coerce_column(pa.chunked_array([pa.array(marks, pa.string())]), column)
    return tuple(mark for mark, is_missing in zip(marks, values.isna(), strict=True) if is_missing)


def _missing_marks(text: pa.ChunkedArray, options: ColumnOptions) -> list[str]:
    """Return the cells that mean a missing value in every column, unless they are categories or `na_values` is set to none."""
    if "na_values" in options.model_fields_set and not options.na_values:
        return []
    present = set(pc.unique(text).to_pylist()) - set(options.categories)
    return [mark for mark in PANDAS_MARKS if mark in present]


def _configured_kind(options: ColumnOptions, decimal: DecimalMark) -> CellKind | None:
    date_format = options.date_format
    if options.kind == "date" or (options.kind is None and "date_format" in options.model_fields_set):
        return CellKind("date", date_format=date_format)
    if options.kind is None and options.number_format is None:
        return None
    if options.kind == "weekday" or options.kind == "month":
        return CATEGORY
    return CellKind(options.kind or "number", options.number_format or "plain", decimal if options.kind != "integer" else ".")


def _inferred_kind(name: str, text: pa.ChunkedArray, decimal: DecimalMark) -> CellKind:
    """Infer the kind. Raises BadData if a considerable part of a column of numbers is something else."""
    kind = infer_kind(text, decimal)
    if is_epoch(name, text):
        return replace(kind, kind="date", odd=())
    if kind.must_ask:
        shown, key = ", ".join(kind.odd[:MAX_SHOWN]), setting_key(name)
        message = (
            f"is numbers, except for {kind.odd_fraction:.0%} of its cells ({shown}), more than the "
            f"{1 - MIN_TYPED_FRACTION:.0%} that are missing values by themselves; set {key}.na_values if they are missing "
            f'values, {key}.kind = "category", or {key}.ignore = true'
        )
        raise BadData([Problem("invalid-type", message, column=name, setting=na_values_setting(name, kind.odd))])
    return kind


def _grouped(problems: list[Problem], name: str, options: ColumnOptions) -> list[Problem]:
    """Return one problem for those that differ only in the row, with settings that avoid it."""
    category, ignore = f'{setting_key(name)}.kind = "category"', f"{setting_key(name)}.ignore = true"
    setting = ignore if options.number_format else category
    ways = f"; set {category}, or {ignore}"
    first: dict[tuple[str, str | None], list[Problem]] = {}
    for problem in problems:
        first.setdefault((problem.message, problem.column), []).append(problem)
    return [
        replace(
            group[0],
            message=f"{group[0].message}{f' (as {len(group) - 1} or more rows)' * (len(group) > 1)}{ways}",
            setting=setting,
        )
        for group in first.values()
    ]


def _with_fuzzy_spellings(column: Column, text: pa.ChunkedArray, options: ColumnOptions) -> Column:
    """Return the column with configured or inferred fuzzy matching."""
    counted = pc.value_counts(pc.utf8_normalize(text.drop_null(), "NFC")).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in counted}
    vocabulary = options.kind if options.kind in VOCABULARIES else infer_vocabulary(counts) if options.kind is None else None
    if options.fuzzy == "exact":
        return column
    if vocabulary:
        return replace(column, fuzzy=options.fuzzy or "nearest", aliases=vocabulary_aliases(vocabulary))
    if options.categories:
        return replace(column, fuzzy=options.fuzzy or "exact", categories=options.categories)
    spellings = infer_spellings(counts, options.fuzzy)
    if spellings.fuzzy == "exact":
        return column
    categories = apply_corrections(counts, spellings.aliases)
    return replace(column, fuzzy=spellings.fuzzy, aliases=spellings.aliases, categories=categories)


def _check_names(table: pa.Table, project: Project) -> None:
    known = ", ".join(table.column_names[:20])
    configured: Mapping[str, str] = {project.target: "target", **dict.fromkeys(project.columns, "columns")}
    if project.split.column:
        configured = {**configured, project.split.column: "split.column"}
    problems = [
        Problem("unknown-column", f"is set as {option}, but is not a column of the data (columns: {known})", column=name)
        for name, option in configured.items()
        if name not in table.column_names
    ]
    if problems:
        raise BadData(problems)


def _reason_to_drop(cells: pa.ChunkedArray, column: Column) -> str:
    """Return why a column cannot be a feature, or an empty string."""
    rows = len(cells)
    distinct = len(pc.unique(cells))
    if distinct <= 1 or (not column.categories and column.low is None):
        return "constant" if pc.any(pc.not_equal(pc.utf8_trim_whitespace(cells), "")).as_py() else "empty"
    if column.kind == "category" and distinct > max(rows // 2, 20):
        return _reason_for_text(cells) or f"{len(column.categories):,} {MANY_TEXTS} {rows:,} rows"
    is_unique = column.kind == "integer" and distinct == rows > 20
    if is_unique and ID_NAME.search(column.name):
        return "identifier, different in every row"
    is_named = ROW_NAME.search(column.name) or (rows >= MIN_RUNNING_ROWS and NUMBERED_NAME.search(column.name))
    is_running = is_unique and (column.low in (0, 1) or is_named) and _is_running(cells)
    return "row identifier" if is_running else ""


def _is_running(cells: pa.ChunkedArray) -> bool:
    """Return whether each number is the one before plus one."""
    text = pc.utf8_trim_whitespace(cells)
    if not pc.all(pc.match_substring_regex(text, "^[0-9]+$")).as_py():
        return False
    numbers = pc.cast(text, pa.float64()).to_numpy()
    return bool((numbers[1:] - numbers[:-1] == 1).all())


def _is_free_text(cells: pa.ChunkedArray) -> bool:
    """Return whether most cells are sentences rather than names."""
    words = pc.add(pc.count_substring(pc.utf8_trim_whitespace(cells.drop_null()), " "), 1)
    return bool(pc.mean(words).as_py() >= MIN_WORDS)


def _reason_for_text(cells: pa.ChunkedArray) -> str:
    """Return the form of texts that identify something, or an empty string."""
    for pattern, reason in ((LONG_INTEGER, "long whole numbers that identify something"), (UUID, "UUIDs")):
        if pc.mean(pc.match_substring_regex(cells, f"^({pattern})?$").cast(pa.int8())).as_py() > 0.9:
            return reason
    return ""


def with_statistics(column: Column, values: pd.Series, options: ColumnOptions) -> Column:
    """Return the column with the categories and range of these typed values; a nullable column stays nullable."""
    present = values.dropna()
    categories = tuple(sorted({normalize_category(level) for level in options.categories}))
    if column.kind == "text":
        return replace(column, nullable=_nullable(column, values, options))
    if column.is_text:
        known = categories or tuple(sorted(present.unique().tolist()))
        return replace(column, nullable=_nullable(column, values, options), categories=known)
    numbers = present.to_numpy(dtype=float)
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
    return replace(column, nullable=_nullable(column, values, options), low=low, high=high)


def _nullable(column: Column, values: pd.Series, options: ColumnOptions) -> bool:
    return column.nullable or bool(values.isna().any()) if options.nullable is None else options.nullable
