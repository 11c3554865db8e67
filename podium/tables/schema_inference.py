"""Infer column types, categories and ranges from text columns."""

from __future__ import annotations

import re
from collections import Counter
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
from podium.tables.fuzzy_categories import (
    VOCABULARIES,
    apply_corrections,
    infer_spellings,
    infer_vocabulary,
    vocabulary_aliases,
)
from podium.tables.number_formats import MARKS, PATTERNS, plain_texts
from podium.tables.typed_columns import coerce_column, mask_missing

NA_TEXTS = (
    *("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "?", "-"),
    *(
        "na",
        "Na",
        "N.A.",
        "n.a.",
        "<NA>",
        "#NA",
        "#N/A",
        "#N/A N/A",
        "NAN",
        "-nan",
        "-NaN",
        "1.#QNAN",
        "-1.#IND",
        "NaT",
    ),  # pandas, R
    *("inf", "-inf", "+inf", "Inf", "-Inf", "INF", "-INF", "Infinity", "-Infinity"),
    *("#VALUE!", "#DIV/0!", "#REF!", "#NAME?", "#NUM!", "#NULL!"),  # Excel
    *("(null)", "[NULL]", "<null>", "\\N", "Null", "nil", "NIL"),  # SQL
    *("none", "NONE", "missing", "Missing", "MISSING", "unknown", "Unknown", "UNKNOWN", "--", "---", "–", "—", ".", "..", "*"),
)
"""Strings that mean "missing" if all other cells are numbers, dates or booleans; in a text column, they are plain values."""
NA_LABELS = ("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "<NA>", "#NA", "#N/A", "(null)", "\\N")
"""Strings that are never a class of the target."""
ISO_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
MAX_CLASSES = 20


def infer_signature(table: pa.Table, project: Project) -> Signature:
    """Infer inputs, target and ignored columns from the cells and the project's options. Raises BadData."""
    _check_names(table, project)
    inputs, ignored = [], {project.target: "the target"}
    for name in table.column_names:
        if name == project.target:
            continue
        options = project.columns.get(name, ColumnOptions())
        if options.ignore:
            ignored[name] = "ignored by the project"
            continue
        column = infer_column(name, table[name], options)
        reason = _reason_to_drop(table[name], column)
        if reason and options.kind is None:
            ignored[name] = reason
        else:
            inputs.append(column)
    if not inputs:
        raise BadData([Problem("no-inputs", "no input column is left to train on")])
    return Signature(tuple(inputs), infer_target(table[project.target], project), ignored)


def infer_column(name: str, cells: pa.ChunkedArray, options: ColumnOptions) -> Column:
    """Infer a column's kind, NA values, categories and range, except where the project sets them. Raises BadData."""
    plain = Column(name, "category", nullable=True, na_values=options.na_values)
    text = mask_missing(cells, plain)
    kind, number_format, na_texts = _configured_kind(options) or _inferred_kind(text)
    column = Column(
        name,
        kind,
        nullable=True,
        na_values=(*options.na_values, *(text for text in na_texts if text not in options.na_values)),
        handle_unknown=options.handle_unknown,
        unit=options.unit,
        date_format=options.date_format,
        number_format=number_format,
    )
    if kind == "category":
        column = _with_fuzzy_spellings(column, text, options)
    values, problems = coerce_column(cells, column)
    if problems:
        raise BadData(problems)
    return with_statistics(replace(column, nullable=False), values, options)


InferredKind = tuple[Kind, NumberFormat, tuple[str, ...]]
"""A kind, the format of its numbers, and its NA values."""


def _configured_kind(options: ColumnOptions) -> InferredKind | None:
    if options.kind is None and "date_format" in options.model_fields_set:
        return "date", "plain", ()
    if options.kind is None and options.number_format is None:
        return None
    if options.kind == "weekday" or options.kind == "month":
        return "category", "plain", ()
    return options.kind or "number", options.number_format or "plain", ()


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


def infer_target(cells: pa.ChunkedArray, project: Project) -> Target:
    """Infer the task and its classes; labels become integers if all of them are canonical integers. Raises BadData."""
    text = _target_text(cells, project.target_na_values)
    labels = sorted(set(class_spellings(cells, project).values()))
    is_numeric, all_integers = _all(text, NUMBER), all(_is_canonical_integer(label) for label in labels)
    has_format = _inferred_kind(mask_missing(cells, Column("target", "category")))[1] != "plain"
    task = project.task or _infer_task(len(labels), is_numeric, _all(text, INTEGER) and not has_format)
    if len(labels) < 2:
        raise BadData([Problem("one-class", "has a single value; a target needs at least two", column=project.target)])
    if task == "regression":
        if not is_numeric:
            raise BadData([Problem("invalid-type", "must be numeric for regression", column=project.target)])
        return Target(project.target, task)
    if task == "binary" and len(labels) != 2:
        raise BadData([Problem("classes", f"has {len(labels)} classes; a binary target needs two", column=project.target)])
    classes: list[Label] = sorted(int(label) for label in labels) if all_integers else list(labels)
    return Target(project.target, task, tuple(classes))


def class_spellings(cells: pa.ChunkedArray, project: Project) -> dict[str, str]:
    """Return the class of each label of the target: the most frequent of the labels that differ only in case.

    With `fuzzy = "exact"` for the target's column, each label is a class.
    """
    counted = pc.value_counts(_target_text(cells, project.target_na_values).drop_null()).to_pylist()
    counts: Counter[str] = Counter()
    for entry in counted:
        counts[normalize_category(entry["values"])] += entry["counts"]
    if project.columns.get(project.target, ColumnOptions()).fuzzy == "exact":
        return {label: label for label in counts}
    classes: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        classes.setdefault(label.casefold(), label)
    return {label: classes[label.casefold()] for label in counts}


def target_codes(cells: pa.ChunkedArray, target: Target, na_values: tuple[str, ...]) -> pd.Series:
    """Return the target as numbers: the index of the class, or the value; NaN if missing. Raises BadData."""
    text = _target_text(cells, na_values)
    if target.task == "regression":
        numbers = pc.cast(text, pa.float64()).to_pandas().astype(float)
        if not np.isfinite(numbers.dropna()).all():
            raise BadData([Problem("out-of-range", "has a number that is too large", column=target.name)])
        return numbers
    exact = {str(label): float(code) for code, label in enumerate(target.classes)}
    loose = {label.casefold(): code for label, code in exact.items()}
    if len(loose) < len(exact):
        loose = {}

    def code(label: str) -> float | None:
        label = normalize_category(label)
        return exact.get(label, loose.get(label.casefold()))

    return text.to_pandas().map(code, na_action="ignore").astype(float)


def _target_text(cells: pa.ChunkedArray, na_values: tuple[str, ...]) -> pa.ChunkedArray:
    """Return the target as text, null where missing: NA_TEXTS, or NA_LABELS if the target is text."""
    text = mask_missing(cells, Column("target", "category", na_values=na_values))
    kind, number_format, na_texts = _inferred_kind(text)
    if kind == "category":
        return mask_missing(cells, Column("target", "category", na_values=(*na_values, *NA_LABELS)))
    numbers = mask_missing(cells, Column("target", kind, na_values=(*na_values, *na_texts)))
    return numbers if number_format == "plain" else plain_texts(numbers, number_format)


def _is_canonical_integer(label: str) -> bool:
    """Return whether the text equals `str(int(text))`."""
    return re.fullmatch(r"-?[1-9][0-9]{0,14}|0", label) is not None


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


def _inferred_kind(text: pa.ChunkedArray) -> InferredKind:
    is_missing = pc.is_in(text, value_set=pa.array(NA_TEXTS))
    found = set(pc.unique(pc.filter(text, is_missing)).to_pylist())
    na_texts = tuple(na_text for na_text in NA_TEXTS if na_text in found)
    rest = pc.filter(text, pc.invert(is_missing)).drop_null()
    if len(rest) == 0:
        return "category", "plain", ()
    if _all(rest, NUMBER):
        return ("integer" if _all(rest, INTEGER) else "number"), "plain", na_texts
    if _all(rest, ISO_DATE):
        return "date", "plain", na_texts
    if pc.all(pc.is_in(pc.utf8_lower(rest), value_set=pa.array(list(BOOLEANS)))).as_py():
        return "boolean", "plain", na_texts
    for number_format, pattern in PATTERNS.items():
        if _all(rest, pattern) and pc.any(pc.match_substring_regex(rest, MARKS[number_format])).as_py():
            return "number", number_format, na_texts
    return "category", "plain", ()


def _all(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, f"^({pattern})$")).as_py())


def _infer_task(labels: int, is_numeric: bool, is_integer: bool) -> Task:
    if labels == 2:
        return "binary"
    return "regression" if is_numeric and not (is_integer and labels <= MAX_CLASSES) else "multiclass"


def _reason_to_drop(cells: pa.ChunkedArray, column: Column) -> str:
    """Return why a column cannot be a feature, or an empty string."""
    rows = len(cells)
    distinct = len(pc.unique(cells))
    if distinct <= 1 or (not column.categories and column.low is None):
        return "constant"
    if column.kind == "category" and distinct > max(rows // 2, 20):
        return "nearly unique text"
    is_identifier = column.kind == "integer" and distinct == rows > 20 and (column.high or 0) - (column.low or 0) == rows - 1
    return "row identifier" if is_identifier else ""


def with_statistics(column: Column, values: pd.Series, options: ColumnOptions) -> Column:
    """Return the column with the categories and range of these typed values; a nullable column stays nullable."""
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
