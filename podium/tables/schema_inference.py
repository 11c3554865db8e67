"""From text columns to their kinds: what a person would say on looking at the table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.project import ColumnOptions, Project
from podium.schema.columns import Column, Kind, Label, NumberFormat, Signature, Target, Task
from podium.schema.data_errors import BadData, Problem
from podium.tables.cell_rules import BOOLEANS, INTEGER, NUMBER, normalize_category
from podium.tables.fuzzy_categories import VOCABULARIES, apply_corrections, spellings_of, vocabulary_aliases, vocabulary_of
from podium.tables.number_formats import MARKS, PATTERNS, plain_texts
from podium.tables.text_columns import coerce_column, mask_missing

MISSING_MARKS = ("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "?", "-")
"""Texts that mean "no value" in a column whose other cells are numbers or dates; in a column of text they are text."""
ISO_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
MAX_CLASSES = 20


def infer_signature(table: pa.Table, project: Project) -> Signature:
    """Name the inputs, the target and what is left out, from the cells and the project's overrides."""
    _check_names(table, project)
    inputs, ignored = [], {project.target: "the target"}
    for name in table.column_names:
        if name == project.target:
            continue
        options = project.columns.get(name, ColumnOptions())
        if options.ignore:
            ignored[name] = "left out by the project"
            continue
        column = infer_column(name, table[name], options)
        reason = _reason_to_drop(table[name], column)
        if reason and options.kind is None:
            ignored[name] = reason
        else:
            inputs.append(column)
    if not inputs:
        raise BadData([Problem("no-inputs", "no column is left to learn from")])
    return Signature(tuple(inputs), infer_target(table[project.target], project), ignored)


def infer_column(name: str, cells: pa.ChunkedArray, options: ColumnOptions) -> Column:
    """One column's kind, missing marks, categories and range, overridden by what the project says."""
    plain = Column(name, "category", nullable=True, na_values=options.na_values)
    text = mask_missing(cells, plain)
    kind, number_format, marks = _configured_kind(options) or _inferred_kind(text)
    column = Column(
        name,
        kind,
        nullable=True,
        na_values=(*options.na_values, *(mark for mark in marks if mark not in options.na_values)),
        handle_unknown=options.handle_unknown,
        unit=options.unit,
        date_format=options.date_format,
        number_format=number_format,
    )
    if kind == "category":
        column = _with_fuzzy_spellings(column, text, options)
    values, wrong = coerce_column(cells, column)
    if wrong:
        raise BadData(wrong)
    return with_statistics(replace(column, nullable=False), values, options)


Seen = tuple[Kind, NumberFormat, tuple[str, ...]]
"""A kind, how its numbers are written, and the marks of missing values."""


def _configured_kind(options: ColumnOptions) -> Seen | None:
    if options.kind is None and "date_format" in options.model_fields_set:
        return "date", "plain", ()
    if options.kind is None and options.number_format is None:
        return None
    if options.kind == "weekday" or options.kind == "month":
        return "category", "plain", ()
    return options.kind or "number", options.number_format or "plain", ()


def _with_fuzzy_spellings(column: Column, text: pa.ChunkedArray, options: ColumnOptions) -> Column:
    """The column with the spellings that the project names, or that its texts show."""
    counted = pc.value_counts(pc.utf8_normalize(text.drop_null(), "NFC")).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in counted}
    vocabulary = options.kind if options.kind in VOCABULARIES else vocabulary_of(counts) if options.kind is None else None
    if options.fuzzy == "exact":
        return column
    if vocabulary:
        return replace(column, fuzzy=options.fuzzy or "nearest", aliases=vocabulary_aliases(vocabulary))
    if options.categories:
        return replace(column, fuzzy=options.fuzzy or "exact", categories=options.categories)
    found = spellings_of(counts, options.fuzzy)
    if found.fuzzy == "exact":
        return column
    categories = apply_corrections(counts, found.aliases)
    return replace(column, fuzzy=found.fuzzy, aliases=found.aliases, categories=categories)


def infer_target(cells: pa.ChunkedArray, project: Project) -> Target:
    """The task and its classes; labels that are plainly whole numbers stay numbers."""
    text = _target_text(cells, project.target_na_values)
    labels = sorted({normalize_category(label) for label in pc.unique(text.drop_null()).to_pylist()})
    numeric, whole = _all(text, NUMBER), all(_is_plain(label) for label in labels)
    task = project.task or _task(len(labels), numeric, _all(text, INTEGER))
    if len(labels) < 2:
        raise BadData([Problem("one-class", "the target has a single value", column=project.target)])
    if task == "regression":
        if not numeric:
            raise BadData([Problem("invalid-type", "a regression target must be numbers", column=project.target)])
        return Target(project.target, task)
    if task == "binary" and len(labels) != 2:
        raise BadData([Problem("classes", f"a binary target has two classes, this has {len(labels)}", column=project.target)])
    classes: list[Label] = sorted(int(label) for label in labels) if whole else list(labels)
    return Target(project.target, task, tuple(classes))


def target_codes(cells: pa.ChunkedArray, target: Target, missing: tuple[str, ...]) -> pd.Series:
    """The target as numbers: the class's place, or the value itself; NaN where it is missing."""
    text = _target_text(cells, missing)
    if target.task == "regression":
        numbers = pc.cast(text, pa.float64()).to_pandas().astype(float)
        if not np.isfinite(numbers.dropna()).all():
            raise BadData([Problem("out-of-range", "the target has a number that is too large", column=target.name)])
        return numbers
    codes = {str(label): float(code) for code, label in enumerate(target.classes)}
    return text.to_pandas().map(lambda label: codes.get(normalize_category(label)), na_action="ignore").astype(float)


def _target_text(cells: pa.ChunkedArray, missing: tuple[str, ...]) -> pa.ChunkedArray:
    """The target's texts, null where missing; the usual marks count where all else is numbers."""
    text = mask_missing(cells, Column("target", "category", na_values=missing))
    kind, number_format, marks = _inferred_kind(text)
    if kind == "category":
        return text
    numbers = mask_missing(cells, Column("target", kind, na_values=(*missing, *marks)))
    return numbers if number_format == "plain" else plain_texts(numbers, number_format)


def _is_plain(label: str) -> bool:
    """Whether a text is a whole number in the one fuzzy that it has as a number."""
    return re.fullmatch(r"-?[1-9][0-9]{0,14}|0", label) is not None


def _check_names(table: pa.Table, project: Project) -> None:
    known = ", ".join(table.column_names[:20])
    wanted: Mapping[str, str] = {project.target: "target", **dict.fromkeys(project.columns, "columns")}
    if project.split.column:
        wanted = {**wanted, project.split.column: "split.column"}
    problems = [
        Problem("unknown-column", f"{place} names a column that the data does not have (it has: {known})", column=name)
        for name, place in wanted.items()
        if name not in table.column_names
    ]
    if problems:
        raise BadData(problems)


def _inferred_kind(text: pa.ChunkedArray) -> Seen:
    marks = tuple(mark for mark in MISSING_MARKS if pc.any(pc.equal(text, mark)).as_py())
    rest = pc.filter(text, pc.invert(pc.is_in(text, value_set=pa.array(marks, pa.string())))) if marks else text
    rest = rest.drop_null()
    if len(rest) == 0:
        return "category", "plain", ()
    if _all(rest, NUMBER):
        return ("integer" if _all(rest, INTEGER) else "number"), "plain", marks
    if _all(rest, ISO_DATE):
        return "date", "plain", marks
    if pc.all(pc.is_in(pc.utf8_lower(rest), value_set=pa.array(list(BOOLEANS)))).as_py():
        return "boolean", "plain", marks
    for number_format, pattern in PATTERNS.items():
        if _all(rest, pattern) and pc.any(pc.match_substring_regex(rest, MARKS[number_format])).as_py():
            return "number", number_format, marks
    return "category", "plain", ()


def _all(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, f"^({pattern})$")).as_py())


def _task(labels: int, numeric: bool, whole: bool) -> Task:
    if labels == 2:
        return "binary"
    return "regression" if numeric and not (whole and labels <= MAX_CLASSES) else "multiclass"


def _reason_to_drop(cells: pa.ChunkedArray, column: Column) -> str:
    """Why a column cannot help, or nothing."""
    rows = len(cells)
    distinct = len(pc.unique(cells))
    if distinct <= 1 or (not column.categories and column.low is None):
        return "the same in every row"
    if column.kind == "category" and distinct > max(rows // 2, 20):
        return "different in almost every row, like a name"
    running = column.kind == "integer" and distinct == rows > 20 and (column.high or 0) - (column.low or 0) == rows - 1
    return "a running number" if running else ""


def with_statistics(column: Column, values: pd.Series, options: ColumnOptions) -> Column:
    """The column with the categories and the range of these typed values; optional once, optional for good."""
    present = values.dropna()
    categories = tuple(sorted({normalize_category(level) for level in options.categories}))
    if column.is_text:
        known = categories or tuple(sorted(present.unique().tolist()))
        return replace(column, nullable=_nullable(column, values, options), categories=known)
    numbers = present.to_numpy(dtype=float)
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
    return replace(column, nullable=_nullable(column, values, options), low=low, high=high)


def _nullable(column: Column, values: pd.Series, options: ColumnOptions) -> bool:
    return column.nullable or bool(values.isna().any()) if options.nullable is None else options.nullable
