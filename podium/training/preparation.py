"""Convert a raw table to typed training rows, with a note on everything that was dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from podium.project import Project
from podium.schema.columns import Signature
from podium.schema.data_errors import BadData, Problem
from podium.schema.reading import Finding, counted
from podium.tables.frames import coerce_frame
from podium.tables.labeled_rows import LabeledRows
from podium.tables.readers import SourceTable
from podium.tables.schema_inference import infer_signature
from podium.tables.split_keys import split_keys
from podium.tables.target_inference import missing_targets, target_codes
from podium.tables.typed_columns import coerce_column
from podium.training.findings import column_findings, target_notes

MIN_ROWS, FEW_ROWS = 10, 20


def prepare_table(source: SourceTable, project: Project) -> LabeledRows:
    """Infer the signature, parse every cell, and drop rows and columns that cannot be used. Raises BadData."""
    table = source.table
    signature = _without_sparse_columns(infer_signature(table, project, source.reading), table, project)
    inputs = coerce_frame(table, signature.inputs, signature.ignored)
    target = target_codes(table[project.target], signature.target, project.target_na_values, signature.reading.decimal)
    keys = split_keys(table, project)
    keep = target.notna()
    about_rows = list[Finding]()
    if missing := missing_targets(table[project.target], project, signature.reading.decimal):
        marks = ", ".join(f"{mark} {count}" for mark, count in missing.items()) if len(missing) > 1 else next(iter(missing))
        about_rows.append(
            Finding(project.target, f"{counted(sum(missing.values()), 'row')} without a target left out: {marks}")
        )
    if project.cleaning.drop_duplicates:
        repeated = table.to_pandas().duplicated() & keep
        if repeated.any():
            about_rows.append(
                Finding("", f"{counted(int(repeated.sum()), 'repeated row')} left out", "cleaning.drop_duplicates = false")
            )
        keep &= ~repeated
    check_row_count(int(keep.sum()), "rows with a target")
    if keep.sum() < FEW_ROWS:
        about_rows.append(
            Finding("", f"{counted(int(keep.sum()), 'row')} only: scores are rough, and a champion is not likely")
        )
    rows = np.flatnonzero(keep.to_numpy())
    result = LabeledRows(inputs, target, keys, signature, raw=table).rows(rows)
    assert result.raw is not None
    about_columns = column_findings(result.raw, signature, project)
    return replace(
        result,
        inputs=result.inputs.reset_index(drop=True),
        target=result.target.reset_index(drop=True),
        order=keys.iloc[rows].reset_index(drop=True),
        findings=(*source.findings, *target_notes(table, signature, project), *about_columns, *about_rows),
    )


def check_row_count(count: int, what: str) -> None:
    """Require at least MIN_ROWS usable rows. Raises BadData."""
    if count < MIN_ROWS:
        raise BadData([Problem("too-few-rows", f"only {count} usable rows ({what})", expected=f"at least {MIN_ROWS}")])


def _without_sparse_columns(signature: Signature, table: pa.Table, project: Project) -> Signature:
    """Drop the columns with more than `cleaning.max_missing_fraction` missing values."""
    ignored, inputs = dict(signature.ignored), []
    for column in signature.inputs:
        fraction = coerce_column(table[column.name], column)[0].isna().mean()
        if fraction > project.cleaning.max_missing_fraction:
            ignored[column.name] = f"missing in {fraction:.0%} of the rows"
        else:
            inputs.append(column)
    return replace(signature, inputs=tuple(inputs), ignored=ignored)
