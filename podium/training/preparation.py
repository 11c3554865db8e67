"""Raw text table to typed rows that can be learned from, with a note on everything that was left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from podium.project import Project
from podium.schema.columns import Column, Signature
from podium.schema.data_errors import BadData, Problem
from podium.tables.frames import coerce_frame
from podium.tables.fuzzy_categories import resolve_category
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import DAY
from podium.tables.schema_inference import infer_signature, target_codes
from podium.tables.split_keys import split_keys
from podium.tables.text_columns import coerce_column, mask_missing
from podium.training.panel import prepare_windows, target_change

MIN_ROWS = 20


def prepare(table: pa.Table, project: Project, until: float | None = None) -> LabeledRows:
    """Infer the signature, type every cell, and drop what cannot be learned from; of a panel days up to `until`.

    Raises BadData.
    """
    if project.panel:
        return _prepare_panel(table, project, until)
    signature = _without_empty(infer_signature(table, project), table, project)
    inputs = coerce_frame(table, signature.inputs, signature.ignored)
    target = target_codes(table[project.target], signature.target, project.target_na_values)
    order = split_keys(table, project)
    keep = target.notna()
    notes = [f"{int((~keep).sum())} rows without a target were left out"] if not keep.all() else []
    if project.cleaning.drop_duplicates:
        twice = table.to_pandas().duplicated() & keep
        notes += [f"{int(twice.sum())} repeated rows were left out"] if twice.any() else []
        keep &= ~twice
    notes += _parsing_notes(table, signature)
    notes += [f"column {name} was left out: {reason}" for name, reason in signature.ignored.items() if name != project.target]
    if keep.sum() < MIN_ROWS:
        raise BadData([Problem("too-few-rows", f"{int(keep.sum())} usable rows", expected=f"at least {MIN_ROWS}")])
    rows = np.flatnonzero(keep.to_numpy())
    result = LabeledRows(inputs, target, order, signature, tuple(notes), table).rows(rows)
    return replace(
        result,
        inputs=result.inputs.reset_index(drop=True),
        target=result.target.reset_index(drop=True),
        order=order.iloc[rows].reset_index(drop=True),
    )


def _prepare_panel(table: pa.Table, project: Project, until: float | None) -> LabeledRows:
    made, signature, notes = prepare_windows(table, project, until)
    if len(made.keys) < MIN_ROWS:
        raise BadData([Problem("too-few-rows", f"{len(made.keys)} days with a day before", expected=f"at least {MIN_ROWS}")])
    return LabeledRows(made.inputs, target_change(made.keys), made.keys[DAY], signature, notes)


def _parsing_notes(table: pa.Table, signature: Signature) -> list[str]:
    """What was made of texts that had to be read."""
    written = {n: [column.name for column in signature.inputs if column.number_format == n] for n in ("money", "percent")}
    notes = [f"{number_format} was read as numbers in {', '.join(names)}" for number_format, names in written.items() if names]
    return notes + [_fuzzy_note(table, column) for column in signature.inputs if column.fuzzy != "exact"]


def _fuzzy_note(table: pa.Table, column: Column) -> str:
    texts = mask_missing(table[column.name], column).drop_null().to_pandas()
    other = texts[~texts.isin(column.categories)]
    some = ", ".join(f"{text} → {resolve_category(text, column)}" for text in other.value_counts().index[:5])
    return f"column {column.name}: {len(other)} cells were read as another fuzzy ({some})"


def _without_empty(signature: Signature, table: pa.Table, project: Project) -> Signature:
    """Leave out the columns that are missing almost everywhere."""
    ignored, inputs = dict(signature.ignored), []
    for column in signature.inputs:
        share = coerce_column(table[column.name], column)[0].isna().mean()
        if share > project.cleaning.max_missing_fraction:
            ignored[column.name] = f"missing in {share:.0%} of the rows"
        else:
            inputs.append(column)
    return Signature(tuple(inputs), signature.target, ignored)
