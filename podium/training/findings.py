"""What was read differently, changed or left out, as findings with the setting that decides it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from podium.models.leakage import leaking_inputs
from podium.project import Project
from podium.schema.columns import Column, DecimalMark, Signature
from podium.schema.reading import Finding, counted, na_values_setting, printable, setting_key
from podium.tables.cell_rules import BOOLEANS, NUMBER, missing_sentinels
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.kind_inference import NA_TEXTS, infer_kind
from podium.tables.labeled_rows import LabeledRows
from podium.tables.missing_codes import missing_codes
from podium.tables.number_notes import mixed_units, number_message, number_setting
from podium.tables.schema_inference import MANY_TEXTS, NUMBERED_NAME
from podium.tables.target_inference import target_findings
from podium.tables.typed_columns import coerce_column, mask_missing

MAX_SHOWN = 5
MAX_LINES, MAX_WIDTH = 40, 30
TABLE = "(table)"
MAX_LENGTH, MAX_MARK = 20, 100
MAX_CATEGORIES, MIN_UNIQUE_ROWS = 20, 100
TIME_NAME = re.compile(r"(?i)year|month|week|day|date|time|hour|minute|second")
OFFSET = r":[0-9]{2}([.,][0-9]+)? ?[+-][0-9]{2}:?[0-9]{2}\s*$"
EXPECTED: dict[str, tuple[str, str]] = {
    "number": ("a number", "numbers"),
    "integer": ("a number", "numbers"),
    "date": ("a date", "dates"),
    "boolean": ("true or false", "true or false"),
    "category": ("a category", "categories"),
    "text": ("a text", "texts"),
}


def target_notes(table: pa.Table, signature: Signature, project: Project) -> list[Finding]:
    """Return what was noticed in the target."""
    return target_findings(table[project.target], signature.target, project, signature.reading.decimal)


def column_findings(table: pa.Table, signature: Signature, project: Project) -> list[Finding]:
    """Return what was noticed in the other columns of the rows that are used."""
    findings = [_left_out(table, name, reason) for name, reason in signature.ignored.items() if name != project.target]
    for column in signature.request_columns:
        findings += _column_findings(table[column.name], column, project, signature.reading.decimal)
    return findings


def leakage_findings(data: LabeledRows) -> list[Finding]:
    """Return the inputs that alone predict nearly all of the target."""
    target = data.signature.target
    return [
        Finding(
            name,
            f"predicts {fraction:.1%} of {target.name} alone: is it known before the prediction?",
            f"{setting_key(name)}.ignore = true",
        )
        for name, fraction in leaking_inputs(data.inputs, data.target, target).items()
    ]


def findings_text(findings: Sequence[Finding]) -> list[str]:
    """Return the lines of a section on what was read, changed and left out; none if there is nothing to say."""
    if not findings:
        return []
    names = [printable(finding.column) or TABLE for finding in findings]
    width = min(MAX_WIDTH, max(map(len, names)))
    lines = [
        f"  {name:<{width}}  {printable(finding.message)}" + (f"   ({finding.setting})" if finding.setting else "")
        for name, finding in zip(names[:MAX_LINES], findings, strict=False)
    ]
    more = [f"  … and {len(findings) - MAX_LINES} more in the report"] if len(findings) > MAX_LINES else []
    return ["What was read, changed and left out", *lines, *more]


def _left_out(table: pa.Table, name: str, reason: str) -> Finding:
    units = mixed_units(pc.utf8_trim_whitespace(table[name])) if MANY_TEXTS in reason else ""
    setting = f'{setting_key(name)}.number_format = "money"' if "currencies" in units else _way_back(name, reason)
    return Finding(name, f"left out: {reason}{units and f', numbers with {units}'}", setting)


def _way_back(name: str, reason: str) -> str:
    """Return the setting that keeps a column."""
    if reason in ("ignored by the project", "computed from other columns", "constant", "empty"):
        return ""
    if reason.startswith("missing"):
        return "cleaning.max_missing_fraction = 1"
    kind = "category" if "text" in reason or "UUID" in reason or "long" in reason else "integer"
    return f'{setting_key(name)}.kind = "{kind}"' if reason != "not a number" else ""


def _column_findings(cells: pa.ChunkedArray, column: Column, project: Project, decimal: DecimalMark) -> Iterator[Finding]:
    name, options = column.name, project.columns.get(column.name)
    if column.kind in ("number", "integer"):
        yield from _odd_numbers(cells, column, options.na_values if options else ())
    if column.na_values:
        yield from _missing_marks(cells, column, options.na_values if options else ())
    if column.strptime_format and column.kind == "date" and (options is None or "date_format" not in options.model_fields_set):
        yield from _date_format(cells, column)
    if column.kind == "date" and "%y" in column.date_format and (options is None or options.last_year is None):
        message = f"two-digit years are read as {column.last_year - 99} to {column.last_year}"
        yield Finding(name, message, f"{setting_key(name)}.last_year = {column.last_year}")
    if column.kind == "date":
        yield from _time_offsets(cells, column)
    if column.kind == "boolean" and (options is None or options.kind is None):
        yield from _spellings(cells, column)
    if column.has_number_format and (options is None or options.number_format is None):
        yield from _number_format(cells, column, decimal)
    if column.number_format == "money" and (units := mixed_units(mask_missing(cells.cast(pa.string()), column))):
        yield Finding(name, f"amounts in {units} are read as if they were one")
    if column.kind == "category" and (options is None or options.kind is None):
        yield from _nearly_numbers(cells, column)
    if column.kind == "text" and (options is None or options.kind is None):
        yield Finding(name, "read as free text: its frequent words are features", f'{setting_key(name)}.kind = "text"')
    if column.fuzzy != "exact":
        yield from _fuzzy_matches(cells, column)


def _number_format(cells: pa.ChunkedArray, column: Column, decimal: DecimalMark) -> Iterator[Finding]:
    texts = mask_missing(cells.cast(pa.string()), column)
    if message := number_message(texts, column):
        yield Finding(column.name, message, number_setting(texts, column, decimal))


def _odd_numbers(cells: pa.ChunkedArray, column: Column, na_values: tuple[str, ...]) -> Iterator[Finding]:
    """Yield numbers that may mean a missing value, and that a column of whole numbers may identify the rows."""
    values = coerce_column(cells.cast(pa.string()), column)[0].to_numpy()
    if codes := missing_codes(values):
        marks = [f"{code:.0f}" for code in codes]
        message = f"{', '.join(marks)} may mean a missing value, far from the other values"
        yield Finding(column.name, message, na_values_setting(column.name, (*na_values, *marks)))
    if column.kind == "integer" and len(values) >= MIN_UNIQUE_ROWS and len(np.unique(values[~np.isnan(values)])) == len(values):
        are_years = values.min() >= 1800 and values.max() <= 2100
        is_dense = np.ptp(values) < len(values) ** 2 / 10 and not are_years  # random numbers of this range would repeat
        if NUMBERED_NAME.search(column.name) or (is_dense and not TIME_NAME.search(column.name)):
            yield Finding(column.name, "unique in every row; an identifier?", f"{setting_key(column.name)}.ignore = true")


def _nearly_numbers(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield that most cells of a category column are numbers or dates."""
    texts = mask_missing(cells.cast(pa.string()), column)
    kind = infer_kind(texts)
    if len(column.categories) > MAX_CATEGORIES and (units := mixed_units(texts)):
        key = setting_key(column.name)
        setting = f'{key}.number_format = "money"' if "currencies" in units else f"{key}.ignore = true"
        yield Finding(column.name, f"{len(column.categories):,} categories, because its numbers have {units}", setting)
    elif kind.odd:
        counts = _counts(texts, kind.odd)
        shown = ", ".join(_shown(text, counts.get(text, 1)) for text in kind.odd[:MAX_SHOWN])
        message = f"a category, because {kind.odd_fraction:.0%} of its cells are not numbers or dates as the others ({shown})"
        marks = _repeatable(counts)
        is_enough = infer_kind(mask_missing(texts, replace(column, na_values=marks))).kind != "category"
        key = setting_key(column.name)
        yield Finding(column.name, message, _na_values(column.name, marks) if is_enough else f'{key}.kind = "category"')


def _spellings(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield the spellings of true and false if there are several of one."""
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(mask_missing(cells.cast(pa.string()), column)))
    texts = sorted(pc.unique(lower).drop_null().to_pylist())
    true, false = ([text for text in texts if BOOLEANS.get(text) == value] for value in (1.0, 0.0))
    if len(true) > 1 or len(false) > 1:
        message = f"read as true ({', '.join(true)}) or false ({', '.join(false)})"
        yield Finding(column.name, message, f'{setting_key(column.name)}.kind = "category"')


def _date_format(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield the date format, and whether day and month could be exchanged."""
    other = column.date_format.translate(str.maketrans("dm", "md"))
    is_ambiguous = infer_kind(mask_missing(cells.cast(pa.string()), column)).is_ambiguous
    doubt = "; day and month may be the other way round" if is_ambiguous else ""
    setting = f'{setting_key(column.name)}.date_format = "{other if is_ambiguous else column.date_format}"'
    yield Finding(column.name, f"read as dates of the form {column.date_format}{doubt}", setting)


def _time_offsets(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield that times are converted to UTC, unless their offset is zero."""
    has_offset = pc.match_substring_regex(cells.cast(pa.string()), OFFSET)
    is_utc = pc.match_substring_regex(cells.cast(pa.string()), r"00:?00\s*$")
    count = pc.sum(pc.and_not(has_offset, is_utc)).as_py()
    if count:
        have, are = ("has", "is") if count == 1 else ("have", "are")
        yield Finding(
            column.name, f"{counted(count, 'cell')} {have} an offset and {are} converted to UTC: 10:00+02:00 is 08:00"
        )


def _missing_marks(cells: pa.ChunkedArray, column: Column, known: tuple[str, ...]) -> Iterator[Finding]:
    """Yield the marks of missing values; strings that occur once are shown by their form, because they may be personal.

    The `known` ones are set in the project; if these are all, there is nothing to add to its file.
    """
    counts = _counts(cells, (*column.na_values, *_sentinel_texts(cells, column)))
    if counts:
        marks = _repeatable(counts, known)
        forms = [_shown(text, count) for text, count in counts.items() if text not in marks]
        count = sum(counts.values())
        are, means = ("is", "a missing value") if count == 1 else ("are", "missing values")
        reason = f" that {are} not {EXPECTED[column.kind][count != 1]}" if forms and column.kind in EXPECTED else ""
        shown = [_listed(": ", [_short(mark) for mark in marks]), _listed("; by form: ", forms)]
        message = f"{counted(count, 'cell')}{reason} {are} {means}{''.join(shown)}"
        yield Finding(column.name, message, "" if known and set(marks) <= set(known) else _keeps_marks(column, marks))


def _sentinel_texts(cells: pa.ChunkedArray, column: Column) -> list[str]:
    """Return the cells that are a number among the NA values in another form, such as 99.0."""
    sentinels = missing_sentinels(column)
    texts = pc.unique(pc.utf8_trim_whitespace(cells.cast(pa.string()))).drop_null() if sentinels else pa.array([], pa.string())
    texts = pc.filter(texts, pc.match_substring_regex(texts, f"^(?:{NUMBER})$"))
    return [text for text in texts.to_pylist() if float(text) in sentinels and text not in column.na_values]


def _counts(cells: pa.ChunkedArray, marks: Sequence[str]) -> dict[str, int]:
    """Return how often each of the marks occurs."""
    text = pc.utf8_trim_whitespace(cells.cast(pa.string()))
    found = pc.value_counts(pc.filter(text, pc.is_in(text, value_set=pa.array(marks, pa.string())))).to_pylist()
    return {entry["values"]: entry["counts"] for entry in found}


def _repeatable(counts: Mapping[str, int], known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the strings that may be shown and set in a project file, or are set there."""
    may_be_shown = {text for text, count in counts.items() if count > 1 or text.lower() in NA_TEXTS or text in known}
    return tuple(text for text in counts if text in may_be_shown and len(text) <= MAX_MARK)


def _na_values(name: str, marks: Sequence[str]) -> str:
    return na_values_setting(name, marks) if marks else ""


def _listed(start: str, texts: Sequence[str]) -> str:
    """Return the first of the texts after a start; nothing if there are none."""
    more = f" and {len(texts) - MAX_SHOWN} more" if len(texts) > MAX_SHOWN else ""
    return f"{start}{', '.join(texts[:MAX_SHOWN])}{more}" if texts else ""


def _keeps_marks(column: Column, marks: Sequence[str]) -> str:
    """Return the setting under which these marks are categories, or else the one that lists them."""
    key = setting_key(column.name)
    if column.is_text:
        return f"{key}.na_values = []"
    return f'{key} = {{ kind = "category", na_values = [] }}' if column.kind == "boolean" else _na_values(column.name, marks)


def _shown(text: str, count: int) -> str:
    return _short(text if count > 1 or text.lower() in NA_TEXTS else re.sub("[^\\W\\d_]", "a", re.sub("[0-9]", "9", text)))


def _short(text: str) -> str:
    return text[:MAX_LENGTH] + "…" * (len(text) > MAX_LENGTH)


def _fuzzy_matches(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    texts = mask_missing(cells, column).drop_null().to_pandas()
    variants = texts[~texts.isin(column.categories)]
    if len(variants):
        examples = ", ".join(f"{text} → {resolve_category(text, column)}" for text in variants.value_counts().index[:MAX_SHOWN])
        message = f"{len(variants)} cells were matched to a category by spelling ({examples})"
        yield Finding(column.name, message, f'{setting_key(column.name)}.fuzzy = "exact"')
