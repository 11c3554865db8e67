"""Convert a raw table to typed training rows, with a note on everything that was dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from podium.project import Project
from podium.schema.columns import Column, Signature
from podium.schema.data_errors import BadData, Problem
from podium.tables.frames import coerce_frame
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.labeled_rows import LabeledRows
from podium.tables.schema_inference import class_spellings, infer_signature, target_codes
from podium.tables.split_keys import split_keys
from podium.tables.typed_columns import coerce_column, mask_missing

MIN_ROWS = 20


def prepare_table(table: pa.Table, project: Project) -> LabeledRows:
    """Infer the signature, parse every cell, and drop rows and columns that cannot be used. Raises BadData."""
    signature = _without_sparse_columns(infer_signature(table, project), table, project)
    inputs = coerce_frame(table, signature.inputs, signature.ignored)
    target = target_codes(table[project.target], signature.target, project.target_na_values)
    keys = split_keys(table, project)
    keep = target.notna()
    notes = [f"{int((~keep).sum())} rows without a target were dropped"] if not keep.all() else []
    if project.cleaning.drop_duplicates:
        repeated = table.to_pandas().duplicated() & keep
        notes += [f"{int(repeated.sum())} repeated rows were dropped"] if repeated.any() else []
        keep &= ~repeated
    if signature.target.classes:
        notes += _spelling_notes(project.target, class_spellings(table[project.target], project))
    notes += _parsing_notes(table, signature)
    notes += dropped_columns({name: why for name, why in signature.ignored.items() if name != project.target})
    check_row_count(int(keep.sum()), "rows with a target")
    rows = np.flatnonzero(keep.to_numpy())
    result = LabeledRows(inputs, target, keys, signature, tuple(notes), table).rows(rows)
    return replace(
        result,
        inputs=result.inputs.reset_index(drop=True),
        target=result.target.reset_index(drop=True),
        order=keys.iloc[rows].reset_index(drop=True),
    )


def check_row_count(count: int, what: str) -> None:
    """Require at least MIN_ROWS usable rows. Raises BadData."""
    if count < MIN_ROWS:
        raise BadData([Problem("too-few-rows", f"only {count} usable rows ({what})", expected=f"at least {MIN_ROWS}")])


def dropped_columns(reasons: dict[str, str]) -> list[str]:
    """One note per dropped column."""
    return [f"{name} dropped: {reason}" for name, reason in reasons.items()]


def _spelling_notes(target: str, spellings: dict[str, str]) -> list[str]:
    """A note on labels of the target that were read as another spelling of a class."""
    others = [f"{label} → {spelling}" for label, spelling in spellings.items() if label != spelling]
    return [f"{target}: labels that differ only in case are one class ({', '.join(others[:5])})"] if others else []


def _parsing_notes(table: pa.Table, signature: Signature) -> list[str]:
    """Notes on columns whose strings were parsed as numbers or matched to categories."""
    formats = {
        form: [column.name for column in signature.inputs if column.number_format == form] for form in ("money", "percent")
    }
    notes = [f"{form} strings were parsed as numbers in {', '.join(names)}" for form, names in formats.items() if names]
    amounts = [*formats["money"], *([] if signature.target.classes else [signature.target.name])]
    grouped = [name for name in amounts if pc.any(pc.match_substring_regex(table[name].cast(pa.string()), ",[0-9]{3}")).as_py()]
    notes += [f"commas are thousands separators in {', '.join(grouped)}"] if grouped else []
    notes += [
        f"{column.name}: cells with {', '.join(column.na_values)} count as missing"
        for column in signature.inputs
        if column.na_values
    ]
    return notes + [_fuzzy_note(table, column) for column in signature.inputs if column.fuzzy != "exact"]


def _fuzzy_note(table: pa.Table, column: Column) -> str:
    texts = mask_missing(table[column.name], column).drop_null().to_pandas()
    variants = texts[~texts.isin(column.categories)]
    examples = ", ".join(f"{text} → {resolve_category(text, column)}" for text in variants.value_counts().index[:5])
    return f"{column.name}: {len(variants)} cells were matched to a category by spelling ({examples})"


def _without_sparse_columns(signature: Signature, table: pa.Table, project: Project) -> Signature:
    """Drop the columns with more than `cleaning.max_missing_fraction` missing values."""
    ignored, inputs = dict(signature.ignored), []
    for column in signature.inputs:
        fraction = coerce_column(table[column.name], column)[0].isna().mean()
        if fraction > project.cleaning.max_missing_fraction:
            ignored[column.name] = f"missing in {fraction:.0%} of the rows"
        else:
            inputs.append(column)
    return Signature(tuple(inputs), signature.target, ignored)
