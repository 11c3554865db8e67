"""Infer the task, the classes and the missing values of the target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.project import ColumnOptions, Project
from podium.schema.columns import Column, DecimalMark, Decision, Label, Target, Task
from podium.schema.data_errors import BadData, Problem
from podium.schema.reading import Finding, quoted_list, setting_key
from podium.tables.cell_rules import BOOLEANS, INTEGER, NUMBER, normalize_category
from podium.tables.kind_inference import CellKind, has_thousands_separators, infer_kind
from podium.tables.missing_codes import missing_answers, missing_codes
from podium.tables.number_formats import plain_texts, with_hyphens
from podium.tables.number_notes import decimal_setting, number_message
from podium.tables.typed_columns import mask_missing

NA_LABELS = ("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "<NA>", "#NA", "#N/A", "(null)", "\\N")
"""Strings that are never a class of the target."""
MAX_CLASSES = 20
"""Maximum number of distinct integers that are classes by default."""
MIN_CLASS_ROWS = 3
"""The smallest class that can be kept: a row to test on and one for each of two folds."""
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _TargetText:
    """The target as text: numbers without formatting, or labels; null where missing."""

    text: pa.ChunkedArray
    kind: CellKind

    @classmethod
    def of(cls, cells: pa.ChunkedArray, na_values: tuple[str, ...], decimal: DecimalMark) -> _TargetText:
        plain = Column("target", "category", na_values=na_values)
        kind = infer_kind(mask_missing(cells, plain), decimal)
        if kind.kind not in ("number", "integer"):
            labels = Column("target", "category", na_values=(*na_values, *NA_LABELS))
            return cls(mask_missing(cells, labels), kind)
        if kind.kind == "integer" and not kind.has_format and not kind.na_values:
            plain = replace(plain, na_values=(*na_values, *NA_LABELS))
            return cls(pc.replace_substring_regex(with_hyphens(mask_missing(cells, plain)), r"\.0*$", ""), kind)
        column = Column(
            "target",
            kind.kind,
            na_values=(*na_values, *kind.na_values),
            number_format=kind.number_format,
            decimal=kind.decimal,
            grouped=kind.decimal == "." or has_thousands_separators(cells),
            suffix=kind.suffix,
        )
        text = mask_missing(cells, column)
        return cls(plain_texts(text, column) if column.has_number_format else with_hyphens(text), kind)


def infer_target(cells: pa.ChunkedArray, project: Project, decimal: DecimalMark = ".") -> Target:
    """Infer the task and its classes; labels become integers if all of them are canonical integers. Raises BadData."""
    target = _TargetText.of(cells, project.target_na_values, decimal)
    _check_target(target, project)
    counts = _class_counts(cells, project, decimal)
    is_numeric, is_integer = (_all(target.text, pattern) for pattern in (NUMBER, INTEGER))
    task = project.task or _infer_task(len(counts), is_numeric, is_integer and not target.kind.has_format)
    if task == "regression":
        if not is_numeric:
            raise _bad_target(project, "must be numeric for regression")
        return Target(project.target, task)
    labels = _frequent_classes(counts, project)
    if len(labels) < 2:
        raise _bad_target(project, "has a single class with enough rows; a target needs at least two", "one-class")
    if task == "binary" and len(labels) != 2:
        raise _bad_target(project, f"has {len(labels)} classes; a binary target needs two", "classes")
    classes: list[Label] = sorted(map(int, labels)) if all(map(_is_canonical_integer, labels)) else sorted(labels)
    return Target(project.target, task, tuple(classes), _decision(project, classes))


def _decision(project: Project, classes: list[Label]) -> Decision | None:
    if project.decision is None:
        return None
    names = list(map(str, classes))
    if str(project.decision.class_) not in names:
        raise _bad_target(project, f"has no class {project.decision.class_}; set decision.class to one of {', '.join(names)}")
    return Decision(names.index(str(project.decision.class_)), project.decision.cut)


def _check_target(target: _TargetText, project: Project) -> None:
    """Raise BadData for a target without values, with a single value, with mixed cells, or that identifies the rows."""
    texts = target.text.drop_null()
    distinct = len(pc.unique(texts))
    if distinct < 2:
        message = "has a single value; a target needs at least two" if distinct else "has no values; check the target's name"
        raise _bad_target(project, message, "one-class")
    if project.task is not None:
        return
    if target.kind.must_ask:
        shown = ", ".join(target.kind.odd[:MAX_SHOWN])
        message = (
            f"looks like numbers, but {target.kind.odd_fraction:.0%} of its cells are not: {shown}; if they mean a missing"
        )
        setting = f"target_na_values = {quoted_list((*project.target_na_values, *target.kind.odd))}"
        raise _bad_target(project, f"{message} value, list them in `target_na_values`, else set `task`", setting=setting)
    if target.kind.kind == "date":
        raise _bad_target(project, "is a date; predict a number or a class, such as the days until then")
    if target.kind.kind == "category" and distinct > max(len(texts) // 2, MAX_CLASSES):
        raise _bad_target(project, f"has {distinct} different values in {len(texts)} rows, like a name; set `task` to keep it")
    if target.kind.kind == "integer" and distinct == len(texts) > MAX_CLASSES:
        numbers = pc.cast(pc.utf8_ltrim(texts, "+"), pa.float64())
        if np.array_equal(numbers, np.arange(distinct) + numbers[0].as_py()):
            raise _bad_target(project, 'is a running number of the rows; set `task = "regression"` to keep it')


def _bad_target(project: Project, message: str, code: str = "invalid-type", setting: str | None = None) -> BadData:
    return BadData([Problem(code, message, column=project.target, setting=setting)])


def _class_counts(cells: pa.ChunkedArray, project: Project, decimal: DecimalMark) -> Counter[str]:
    """Return the number of rows of each class, after merging spellings."""
    spellings = class_spellings(cells, project, decimal)
    counts: Counter[str] = Counter()
    for entry in pc.value_counts(_TargetText.of(cells, project.target_na_values, decimal).text.drop_null()).to_pylist():
        counts[spellings[normalize_category(entry["values"])]] += entry["counts"]
    return counts


def _frequent_classes(counts: Counter[str], project: Project) -> list[str]:
    """Return the classes that have a row for each fold. Raises BadData if fewer than two do."""
    rare = _rare_classes(counts, project)
    if rare and len(counts) - len(rare) < 2:
        shown = ", ".join(f"{label} ({count})" for label, count in rare.items())
        raise _bad_target(
            project, f"has classes with fewer than {_smallest_class(project)} rows: {shown}; gather more rows", "split"
        )
    return [label for label in counts if label not in rare]


def _rare_classes(counts: Counter[str], project: Project) -> dict[str, int]:
    if sum(counts.values()) < 20 or len(counts) > sum(counts.values()) / 2:
        return {}
    return {label: count for label, count in counts.items() if count < _smallest_class(project)}


def _smallest_class(project: Project) -> int:
    """Return the number of rows that a class needs."""
    return project.split.folds or 5


def target_findings(cells: pa.ChunkedArray, target: Target, project: Project, decimal: DecimalMark) -> list[Finding]:
    """Return how the target's cells were read: missing marks, separators, merged and rare classes, and the task."""
    name, text = target.name, _TargetText.of(cells, project.target_na_values, decimal)
    findings = list(_missing_answers(text.text, target, project))
    if not target.classes:
        cells = mask_missing(cells, Column(name, "number", na_values=(*project.target_na_values, *text.kind.na_values)))
        if text.kind.has_format and (message := number_message(cells, text.kind)):
            findings.append(Finding(name, message, decimal_setting(cells, text.kind, decimal)))
        return findings
    counts = _class_counts(cells, project, decimal)
    others = [
        f"{label} → {spelling}" for label, spelling in class_spellings(cells, project, decimal).items() if label != spelling
    ]
    if others:
        message = f"labels that differ only in spelling are one class ({', '.join(others[:MAX_SHOWN])})"
        findings.append(Finding(name, message, f'{setting_key(name)}.fuzzy = "exact"'))
    rare = {label: count for label, count in counts.items() if label not in map(str, target.classes)}
    if rare:
        shown = ", ".join(f"{label} ({count})" for label, count in list(rare.items())[:MAX_SHOWN])
        enough = [count for count in rare.values() if count >= MIN_CLASS_ROWS]
        setting = f"split.folds = {min(enough)}" if enough else ""
        findings.append(Finding(name, f"rows of rare classes are left out: {shown}", setting))
    if project.task is None and len(target.classes) > 2 and _all(text.text, INTEGER):
        message = f"its {len(target.classes)} whole numbers are classes, not amounts"
        findings.append(Finding(name, message, 'task = "regression"'))
    return findings


def _missing_answers(text: pa.ChunkedArray, target: Target, project: Project) -> Iterator[Finding]:
    """Yield that numbers or labels of the target may mean a missing value."""
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(text.drop_null()).to_pylist()}
    if target.classes:
        marks = missing_answers(counts)
        marks = marks if len(target.classes) - len(marks) >= 2 else []
    else:
        codes = missing_codes(pc.cast(pc.utf8_ltrim(text, "+"), pa.float64()).to_numpy())
        marks = [label for label in counts if float(label) in codes]
    if marks:
        shown = ", ".join(f"{mark} ({counts[mark]})" for mark in marks[:MAX_SHOWN])
        setting = f"target_na_values = {quoted_list((*project.target_na_values, *marks))}"
        yield Finding(target.name, f"{shown} may mean a missing value", setting)


def missing_targets(cells: pa.ChunkedArray, project: Project, decimal: DecimalMark) -> dict[str, int]:
    """Return how often each mark stands for a missing target, the most frequent first; empty cells count as `empty`."""
    is_missing = _TargetText.of(cells, project.target_na_values, decimal).text.is_null()
    marks = pc.fill_null(pc.utf8_trim_whitespace(pc.filter(cells.cast(pa.string()), is_missing)), "").to_pylist()
    return dict(Counter(mark or "empty" for mark in marks).most_common())


def class_spellings(cells: pa.ChunkedArray, project: Project, decimal: DecimalMark) -> dict[str, str]:
    """Return the class of each label of the target: the most frequent of the labels that differ only in spelling.

    These are labels that differ in case, and if all labels mean true or false, those of the same meaning. With
    `fuzzy = "exact"` for the target's column, each label is a class.
    """
    counted = pc.value_counts(_TargetText.of(cells, project.target_na_values, decimal).text.drop_null()).to_pylist()
    counts: Counter[str] = Counter()
    for entry in counted:
        counts[normalize_category(entry["values"])] += entry["counts"]
    if project.columns.get(project.target, ColumnOptions()).fuzzy == "exact":
        return {label: label for label in counts}
    meaning = _meaning(counts)
    classes: dict[object, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        classes.setdefault(meaning[label], label)
    return {label: classes[meaning[label]] for label in counts}


def _meaning(labels: Collection[str]) -> dict[str, object]:
    """Map each label to a key that equal classes share."""
    folded: dict[str, object] = {label: label.casefold() for label in labels}
    is_boolean = len(set(folded.values())) > 2 and set(folded.values()) <= BOOLEANS.keys()
    has_words = any(not label[:1].isdigit() for label in labels)
    return {label: BOOLEANS[label.casefold()] for label in labels} if is_boolean and has_words else folded


def target_codes(cells: pa.ChunkedArray, target: Target, na_values: tuple[str, ...], decimal: DecimalMark = ".") -> pd.Series:
    """Return the target as numbers: the index of the class, or the value; NaN if missing or of no class. Raises BadData."""
    text = _TargetText.of(cells, na_values, decimal).text
    if target.task == "regression":
        numbers = pc.cast(pc.utf8_ltrim(text, "+"), pa.float64()).to_pandas().astype(float)
        if not np.isfinite(numbers.dropna()).all():
            raise BadData([Problem("out-of-range", "has a number that is too large", column=target.name)])
        return numbers
    codes = {str(label): float(code) for code, label in enumerate(target.classes)}
    labels = {label: normalize_category(label) for label in pc.unique(text).drop_null().to_pylist()}
    meaning = _meaning({*labels.values(), *codes})
    loose = {meaning[label]: code for label, code in codes.items()}
    if len(loose) < len(codes):  # spellings are classes of their own
        loose = {}
    known = {text: codes.get(label, loose.get(meaning[label])) for text, label in labels.items()}
    return text.to_pandas().map(known.get, na_action="ignore").astype(float)


def _is_canonical_integer(label: str) -> bool:
    """Return whether the text equals `str(int(text))`."""
    return re.fullmatch(r"-?[1-9][0-9]{0,14}|0", label) is not None


def _all(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, f"^({pattern})$")).as_py())


def _infer_task(labels: int, is_numeric: bool, is_integer: bool) -> Task:
    if labels == 2:
        return "binary"
    return "regression" if is_numeric and not (is_integer and labels <= MAX_CLASSES) else "multiclass"
