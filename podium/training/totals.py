"""Leave out rows of totals below a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.arrays import FloatVector
from podium.schema.columns import Column
from podium.schema.reading import Finding, counted
from podium.tables.cell_rules import NUMBER
from podium.tables.kind_inference import infer_decimal, infer_kind
from podium.tables.number_formats import plain_text, plain_texts

LABELS = frozenset(
    (*("total", "totals", "grand total", "subtotal", "sub-total", "sum", "sums", "average", "avg", "mean"),
     *("summe", "gesamt", "gesamtsumme", "zwischensumme", "insgesamt", "durchschnitt", "mittelwert"))
)  # fmt: skip
MAX_TOTALS, MIN_ROWS, SAMPLE_ROWS = 3, 10, 1_000
MAX_EMPTY, MAX_AS_EMPTY = 0.05, 0.01
"""Maximum fraction of empty cells above a total without a label, and of rows that are as empty as a total."""


def without_totals(table: pa.Table, skip: int | None) -> tuple[pa.Table, list[Finding]]:
    """Leave out the last `skip` rows; by default those that are surely totals. A row that may be a total is a finding."""
    if skip is None:
        count, findings = _count_totals(table)
    else:
        count, findings = min(skip, table.num_rows), [Finding("", f"{counted(skip, 'row')} at the end left out")] * bool(skip)
    return table.slice(0, table.num_rows - count), findings


def _count_totals(table: pa.Table) -> tuple[int, list[Finding]]:
    count, shown = 0, list[str]()
    body = table.slice(0, max(0, table.num_rows - MAX_TOTALS))
    if body.num_rows < MIN_ROWS or table.num_columns < 2:
        return 0, []
    for position in range(1, MAX_TOTALS + 1):
        cells = [_trimmed(column)[0].as_py() or "" for column in table.slice(table.num_rows - position, 1).columns]
        filled = [cell for cell in cells if cell]
        if not filled:
            continue
        is_total = _is_total(cells, body, table.slice(0, table.num_rows - position))
        if is_total is None and not count:
            message = f"the last row with cells may be a total ({len(filled)} of {len(cells)} cells), but is not left out"
            return 0, [Finding("", message, f"reading.skip_footer = {position}")]
        if not is_total:
            break
        count = position
        shown.append(_label(cells) or f"{len(filled)} of {len(cells)} cells")
    message = f"{counted(count, 'row')} with totals at the end left out ({', '.join(reversed(shown))})"
    return count, [Finding("", message, "reading.skip_footer = 0")] if count else []


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(column)


def _label(cells: list[str]) -> str:
    """Return the first text of the row if it is a word for a total."""
    first = next(cell for cell in cells if cell)
    return first if first.casefold().rstrip(": ") in LABELS else ""


def _is_total(cells: list[str], body: pa.Table, above: pa.Table) -> bool | None:
    """Return whether a row is a total of those above; None if it may be. `body` has no totals."""
    filled = sum(map(bool, cells))
    sample = body.slice(max(0, body.num_rows - SAMPLE_ROWS))
    sizes = sum(pc.fill_null(pc.not_equal(_trimmed(column), ""), False).to_numpy().astype(int) for column in sample.columns)
    as_empty = float(np.mean(sizes <= filled))
    if label := _label(cells):
        if pc.any(pc.equal(_trimmed(body.column(cells.index(label))), label)).as_py():
            return False
        return True if filled <= (len(cells) + 1) / 2 and as_empty <= MAX_AS_EMPTY else None
    if filled > len(cells) / 2 or as_empty > 0 or np.mean(sizes) < (1 - MAX_EMPTY) * len(cells):
        return False
    return True if any(cell and _adds_up(cell, column) for cell, column in zip(cells, above.columns, strict=True)) else None


def _adds_up(cell: str, column: pa.ChunkedArray) -> bool:
    """Return whether a number is the sum or the mean of those above."""
    text = _trimmed(column)
    kind = infer_kind(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), infer_decimal([text]))
    if kind.kind not in ("number", "integer"):
        return False
    above = _numbers(text, Column("x", kind.kind, number_format=kind.number_format, decimal=kind.decimal, suffix=kind.suffix))
    usual = (np.nansum(above), np.nanmean(above))
    readings = [plain_text(cell, Column("x", "number", number_format="money", decimal=mark)) for mark in (".", ",")]
    return any(np.isclose(float(number), usual, rtol=1e-4).any() for number in readings if number)


def _numbers(text: pa.ChunkedArray, column: Column) -> FloatVector:
    plain = plain_texts(text, column) if column.has_number_format else text
    is_number = pc.match_substring_regex(plain, f"^(?:{NUMBER})$")
    numbers: FloatVector = pc.cast(pc.if_else(is_number, pc.utf8_ltrim(plain, "+"), None), pa.float64()).to_numpy()
    return numbers
