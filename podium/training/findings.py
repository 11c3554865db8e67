"""What was read differently, changed or left out, as findings with the setting that decides it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from podium.models.leakage import leaking_inputs
from podium.project import Project
from podium.schema.columns import Column, Signature
from podium.schema.reading import Finding, counted, setting_key
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.kind_inference import NA_TEXTS, PANDAS_MARKS, infer_kind
from podium.tables.labeled_rows import LabeledRows
from podium.tables.number_formats import MAGNITUDES
from podium.tables.target_inference import target_findings
from podium.tables.typed_columns import mask_missing

FORMATS = {"plain": "numbers", "money": "amounts", "percent": "percentages", "quantity": "amounts"}
MAX_SHOWN = 5
MAX_LINES, MAX_WIDTH = 40, 30
TABLE = "(table)"
MAX_LENGTH = 20


def table_findings(table: pa.Table, signature: Signature, project: Project) -> list[Finding]:
    """Return what was noticed in the columns of a table."""
    findings: list[Finding] = []
    if not signature.panel:
        findings += target_findings(table[project.target], signature.target, project, signature.reading.decimal)
    for name, reason in signature.ignored.items():
        if name != project.target:
            findings.append(Finding(name, f"left out: {reason}", _way_back(name, reason)))
    for column in signature.request_columns:
        findings += _column_findings(table[column.name], column, project)
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
    width = min(MAX_WIDTH, max(len(finding.column or TABLE) for finding in findings))
    lines = [
        f"  {finding.column or TABLE:<{width}}  {finding.message}" + (f"   ({finding.setting})" if finding.setting else "")
        for finding in findings[:MAX_LINES]
    ]
    more = [f"  … and {len(findings) - MAX_LINES} more in the report"] if len(findings) > MAX_LINES else []
    return ["What was read, changed and left out", *lines, *more]


def _way_back(name: str, reason: str) -> str:
    """Return the setting that keeps a column."""
    if reason in ("ignored by the project", "computed from other columns", "constant", "empty"):
        return ""
    kind = "category" if "text" in reason or "UUID" in reason or "long" in reason else "integer"
    return f'{setting_key(name)}.kind = "{kind}"' if reason != "not a number" else ""


def _column_findings(cells: pa.ChunkedArray, column: Column, project: Project) -> Iterator[Finding]:
    key, name, options = setting_key(column.name), column.name, project.columns.get(column.name)
    if column.na_values:
        yield from _missing_marks(cells, column)
    if column.strptime_format and column.kind == "date" and (options is None or "date_format" not in options.model_fields_set):
        yield from _date_format(cells, column)
    if column.has_number_format and (options is None or options.number_format is None):
        unit = _unit(cells, column)
        separators = {".": "; commas are thousands separators", ",": "; commas are decimal marks"}[column.decimal]
        has_commas = pc.any(pc.match_substring(cells.cast(pa.string()), ",")).as_py()
        if column.decimal == "," and column.grouped:
            unit += ", points are thousands separators"
        message = f"read as {FORMATS[column.number_format]}{unit}{separators if has_commas else ''}"
        yield Finding(name, message, f'{key}.kind = "category"')
    if column.kind == "category" and (options is None or options.kind is None):
        yield from _nearly_numbers(cells, column)
    if column.kind == "text" and (options is None or options.kind is None):
        yield Finding(name, "read as free text: its frequent words are features", f"{key}.ignore = true")
    if column.fuzzy != "exact":
        yield from _fuzzy_matches(cells, column)


def _unit(cells: pa.ChunkedArray, column: Column) -> str:
    """Return which unit or magnitudes the cells of a number column have."""
    texts = mask_missing(cells.cast(pa.string()), column).drop_null()
    if not column.suffix:
        found = pc.struct_field(pc.extract_regex(texts, f"[0-9] ?(?P<mark>{'|'.join(MAGNITUDES)})$"), [0])
        marks = sorted(pc.unique(found.drop_null()).to_pylist()) if column.number_format == "quantity" else []
        return f" ({', '.join(f'{mark} = {10 ** MAGNITUDES[mark]:,}' for mark in marks)})" if marks else ""
    count = pc.sum(pc.ends_with(texts, column.suffix)).as_py() or 0
    if count == len(texts):
        return f" with the unit {column.suffix}"
    return f"; {counted(count, 'cell')} have the unit {column.suffix}, the others none"


def _nearly_numbers(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield that most cells of a category column are numbers or dates."""
    kind = infer_kind(mask_missing(cells.cast(pa.string()), column))
    if kind.odd:
        shown = ", ".join(_shown(text, 1) for text in kind.odd[:MAX_SHOWN])
        message = f"a category, because {kind.odd_fraction:.0%} of its cells are not numbers or dates as the others ({shown})"
        yield Finding(column.name, message, f"{setting_key(column.name)}.na_values = […]")


def _date_format(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield the date format, and whether day and month could be exchanged."""
    other = column.date_format.translate(str.maketrans("dm", "md"))
    is_ambiguous = infer_kind(mask_missing(cells.cast(pa.string()), column)).is_ambiguous
    doubt = "; day and month may be the other way round" if is_ambiguous else ""
    setting = f'{setting_key(column.name)}.date_format = "{other if is_ambiguous else column.date_format}"'
    yield Finding(column.name, f"read as dates of the form {column.date_format}{doubt}", setting)


def _missing_marks(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    """Yield the marks of missing values; strings that occur once are shown by their form, because they may be personal."""
    text = pc.utf8_trim_whitespace(cells.cast(pa.string()))
    found = pc.value_counts(pc.filter(text, pc.is_in(text, value_set=pa.array(column.na_values)))).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in found}
    if counts:
        shown = ", ".join(_shown(mark, count) for mark, count in list(counts.items())[:MAX_SHOWN])
        more = f" and {len(counts) - MAX_SHOWN} more" if len(counts) > MAX_SHOWN else ""
        message = f"{counted(sum(counts.values()), 'cell')} missing: {shown}{more}"
        yield Finding(column.name, message, _way_to_keep(counts.keys(), column))


def _way_to_keep(marks: Collection[str], column: Column) -> str:
    """Return the setting under which marks of missing values are categories."""
    key = setting_key(column.name)
    if column.is_text:
        return f"{key}.na_values = []"
    return f'{key} = {{ kind = "category", na_values = [] }}' if set(marks) & set(PANDAS_MARKS) else f'{key}.kind = "category"'


def _shown(text: str, count: int) -> str:
    form = text if count > 1 or text in NA_TEXTS else re.sub("[^\\W\\d_]", "a", re.sub("[0-9]", "9", text))
    return form[:MAX_LENGTH] + "…" * (len(form) > MAX_LENGTH)


def _fuzzy_matches(cells: pa.ChunkedArray, column: Column) -> Iterator[Finding]:
    texts = mask_missing(cells, column).drop_null().to_pandas()
    variants = texts[~texts.isin(column.categories)]
    if len(variants):
        examples = ", ".join(f"{text} → {resolve_category(text, column)}" for text in variants.value_counts().index[:MAX_SHOWN])
        message = f"{len(variants)} cells were matched to a category by spelling ({examples})"
        yield Finding(column.name, message, f'{setting_key(column.name)}.fuzzy = "exact"')
