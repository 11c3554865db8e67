"""From text columns to their kinds: what a person would say on looking at the table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.data.columns import Column, Kind, Label, Notation, Signature, Target, Task
from podium.data.notation import MARKS, WRITTEN, plain_texts
from podium.data.problems import BadData, Problem
from podium.data.spelling import VOCABULARIES, corrected, spellings_of, vocabulary_aliases, vocabulary_of
from podium.data.typed import BOOLEANS, INTEGER, NUMBER, blank, tidy, typed_column
from podium.project import ColumnOptions, Project

MISSING_MARKS = ("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "?", "-")
"""Texts that mean "no value" in a column whose other cells are numbers or dates; in a column of text they are text."""
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
MOST_CLASSES = 20


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
        reason = _useless(table[name], column)
        if reason and options.kind is None:
            ignored[name] = reason
        else:
            inputs.append(column)
    if not inputs:
        raise BadData([Problem("no-inputs", "no column is left to learn from")])
    return Signature(tuple(inputs), infer_target(table[project.target], project), ignored)


def infer_column(name: str, cells: pa.ChunkedArray, options: ColumnOptions) -> Column:
    """One column's kind, missing marks, categories and range, overridden by what the project says."""
    plain = Column(name, "category", nullable=True, missing=options.missing)
    text = blank(cells, plain)
    kind, notation, marks = _kind_asked(options) or _kind_seen(text)
    column = Column(
        name,
        kind,
        nullable=True,
        missing=(*options.missing, *(mark for mark in marks if mark not in options.missing)),
        unknown=options.unknown,
        unit=options.unit,
        format=options.format,
        notation=notation,
    )
    if kind == "category":
        column = _spelt(column, text, options)
    values, wrong = typed_column(cells, column)
    if wrong:
        raise BadData(wrong)
    return described(replace(column, nullable=False), values, options)


Seen = tuple[Kind, Notation, tuple[str, ...]]
"""A kind, how its numbers are written, and the marks of missing values."""


def _kind_asked(options: ColumnOptions) -> Seen | None:
    if options.kind is None and "format" in options.model_fields_set:
        return "date", "plain", ()
    if options.kind is None and options.notation is None:
        return None
    if options.kind == "weekday" or options.kind == "month":
        return "category", "plain", ()
    return options.kind or "number", options.notation or "plain", ()


def _spelt(column: Column, text: pa.ChunkedArray, options: ColumnOptions) -> Column:
    """The column with the spellings that the project names, or that its texts show."""
    counted = pc.value_counts(pc.utf8_normalize(text.drop_null(), "NFC")).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in counted}
    vocabulary = options.kind if options.kind in VOCABULARIES else vocabulary_of(counts) if options.kind is None else None
    if options.spelling == "exact":
        return column
    if vocabulary:
        return replace(column, spelling=options.spelling or "nearest", aliases=vocabulary_aliases(vocabulary))
    if options.categories:
        return replace(column, spelling=options.spelling or "exact", categories=options.categories)
    found = spellings_of(counts, options.spelling)
    if found.spelling == "exact":
        return column
    categories = corrected(counts, found.aliases)
    return replace(column, spelling=found.spelling, aliases=found.aliases, categories=categories)


def infer_target(cells: pa.ChunkedArray, project: Project) -> Target:
    """The task and its classes; labels that are plainly whole numbers stay numbers."""
    text = _target_text(cells, project.target_missing)
    labels = sorted({tidy(label) for label in pc.unique(text.drop_null()).to_pylist()})
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
    return text.to_pandas().map(lambda label: codes.get(tidy(label)), na_action="ignore").astype(float)


def _target_text(cells: pa.ChunkedArray, missing: tuple[str, ...]) -> pa.ChunkedArray:
    """The target's texts, null where missing; the usual marks count where all else is numbers."""
    text = blank(cells, Column("target", "category", missing=missing))
    kind, notation, marks = _kind_seen(text)
    if kind == "category":
        return text
    numbers = blank(cells, Column("target", kind, missing=(*missing, *marks)))
    return numbers if notation == "plain" else plain_texts(numbers, notation)


def _is_plain(label: str) -> bool:
    """Whether a text is a whole number in the one spelling that it has as a number."""
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


def _kind_seen(text: pa.ChunkedArray) -> Seen:
    marks = tuple(mark for mark in MISSING_MARKS if pc.any(pc.equal(text, mark)).as_py())
    rest = pc.filter(text, pc.invert(pc.is_in(text, value_set=pa.array(marks, pa.string())))) if marks else text
    rest = rest.drop_null()
    if len(rest) == 0:
        return "category", "plain", ()
    if _all(rest, NUMBER):
        return ("integer" if _all(rest, INTEGER) else "number"), "plain", marks
    if _all(rest, DATE):
        return "date", "plain", marks
    if pc.all(pc.is_in(pc.utf8_lower(rest), value_set=pa.array(list(BOOLEANS)))).as_py():
        return "boolean", "plain", marks
    for notation, pattern in WRITTEN.items():
        if _all(rest, pattern) and pc.any(pc.match_substring_regex(rest, MARKS[notation])).as_py():
            return "number", notation, marks
    return "category", "plain", ()


def _all(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, f"^({pattern})$")).as_py())


def _task(labels: int, numeric: bool, whole: bool) -> Task:
    if labels == 2:
        return "binary"
    return "regression" if numeric and not (whole and labels <= MOST_CLASSES) else "multiclass"


def _useless(cells: pa.ChunkedArray, column: Column) -> str:
    """Why a column cannot help, or nothing."""
    rows = len(cells)
    distinct = len(pc.unique(cells))
    if distinct <= 1 or (not column.categories and column.low is None):
        return "the same in every row"
    if column.kind == "category" and distinct > max(rows // 2, 20):
        return "different in almost every row, like a name"
    running = column.kind == "integer" and distinct == rows > 20 and (column.high or 0) - (column.low or 0) == rows - 1
    return "a running number" if running else ""


def described(column: Column, values: pd.Series, options: ColumnOptions) -> Column:
    """The column with the categories and the range of these typed values; optional once, optional for good."""
    present = values.dropna()
    categories = tuple(sorted({tidy(level) for level in options.categories}))
    if column.is_text:
        known = categories or tuple(sorted(present.unique().tolist()))
        return replace(column, nullable=_nullable(column, values, options), categories=known)
    numbers = present.to_numpy(dtype=float)
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
    return replace(column, nullable=_nullable(column, values, options), low=low, high=high)


def _nullable(column: Column, values: pd.Series, options: ColumnOptions) -> bool:
    return column.nullable or bool(values.isna().any()) if options.nullable is None else options.nullable
