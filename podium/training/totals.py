"""Leave out rows of totals below a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

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
    (*("total", "totals", "grand total", "subtotal", "sub-total", "sum", "sums", "average", "avg", "mean", "median"),
     *("summe", "gesamt", "gesamtsumme", "zwischensumme", "insgesamt", "durchschnitt", "mittelwert"),
     *("total general", "suma", "media", "promedio", "somme", "moyenne", "totale", "somma", "totaal", "gemiddelde"))
)  # fmt: skip
MAX_FOOTER, MIN_ROWS, MIN_SUMMED, SAMPLE_ROWS = 10, 10, 3, 1_000
"""Maximum number of rows of totals, notes and blank rows, and minimum number of rows above them, or above exact sums."""
MAX_EMPTY, MAX_AS_EMPTY = 0.05, 0.01
"""Maximum fraction of empty cells above a total without a label, and of rows that are as empty as a total."""
Row = Literal["total", "maybe", "note", "blank", "data"]


def without_totals(table: pa.Table, skip: int | None) -> tuple[pa.Table, list[Finding]]:
    """Leave out the last `skip` rows; by default those that are surely totals, with the notes and blank rows around them.

    A row that may be a total is a finding, and so is a total that remains above the last `skip` rows, unless `skip` is 0.
    """
    if skip == 0:
        return table, []
    skipped = min(skip or 0, table.num_rows)
    rest = table.slice(0, table.num_rows - skipped)
    rows = _footer(rest)
    kinds = [kind for kind, _ in rows]
    findings = [Finding("", f"{counted(skipped, 'row')} at the end left out")] * bool(skipped)
    count = len(rows) - max((n + 1 for n, kind in enumerate(kinds) if kind == "maybe"), default=0)
    if "maybe" in kinds or (skipped and "total" in kinds):
        first = next(n for n, kind in enumerate(kinds) if kind in ("maybe", "total"))
        where = "the last row" if first == len(rows) - 1 and not skipped else f"row {len(rows) - first + skipped} from the end"
        message = f"{where} may be a total ({rows[first][1]}), but is not left out"
        findings.append(Finding("", message, f"reading.skip_footer = {len(rows) - first + skipped}"))
    if skipped or not {"total", "note"} & set(kinds[len(rows) - count :]):
        return rest, findings
    what = "totals" if "total" in kinds else "notes"
    shown = ", ".join(text for _, text in rows[len(rows) - count :])
    findings.append(
        Finding("", f"{counted(count, 'row')} with {what} at the end left out ({shown})", "reading.skip_footer = 0")
    )
    return table.slice(0, table.num_rows - count), findings


def _footer(table: pa.Table) -> list[tuple[Row, str]]:
    """Return the kinds of the last rows that are mostly empty or have a label, and how to show them; after the last data."""
    if table.num_columns < 2:
        return []
    last = table.slice(max(0, table.num_rows - MAX_FOOTER))
    rows = list(zip(*([cell or "" for cell in _trimmed(column).to_pylist()] for column in last.columns), strict=True))
    size = 0
    while size < len(rows) and (_label(rows[-1 - size]) or 2 * sum(map(bool, rows[-1 - size])) <= table.num_columns):
        size += 1
    body = table.slice(0, table.num_rows - size)
    kinds = [(kind := _kind(cells, body), _shown(cells, kind)) for cells in rows[len(rows) - size :]]
    after = max((n + 1 for n, (kind, _) in enumerate(kinds) if kind == "data"), default=0)
    return kinds[after:]


def _shown(cells: Sequence[str], kind: Row) -> str:
    names = {"blank": "blank", "note": "a note"}
    return names.get(kind) or _label(cells) or f"{sum(map(bool, cells))} of {len(cells)} cells"


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(column)


def _label(cells: Sequence[str]) -> str:
    """Return the first text of the row, other than a number, if it is a word for a total."""
    first = next((cell for cell in cells if re.search("[^0-9.]", cell)), "")
    return first if re.sub(r"[\s:]*(\(.*\)|[0-9]{4})?[\s:]*$", "", first.casefold()) in LABELS else ""


def _kind(cells: Sequence[str], body: pa.Table) -> Row:
    """Return what a row below the rows of `body` is."""
    filled = sum(map(bool, cells))
    if not filled or body.num_rows < MIN_SUMMED:
        return "data" if filled else "blank"
    sample = body.slice(max(0, body.num_rows - SAMPLE_ROWS))
    sizes = sum(pc.fill_null(pc.not_equal(_trimmed(column), ""), False).to_numpy().astype(int) for column in sample.columns)
    as_empty = float(np.mean(sizes <= filled))
    first = next(index for index, cell in enumerate(cells) if cell)
    label = _label(cells)
    text = label or cells[first]
    if not re.match(NUMBER, text) and pc.any(pc.equal(_trimmed(body.column(cells.index(text))), text)).as_py():
        return "data"
    sums = [_adds_up(cell, column, bool(label)) for cell, column in zip(cells, body.columns, strict=True) if cell]
    if label and 2 * sums.count(True) >= max(1, len(sums) - sums.count(None)):
        return "total"
    if body.num_rows < MIN_ROWS:
        return "data"
    if label:
        return "total" if filled <= (len(cells) + 1) / 2 and as_empty <= MAX_AS_EMPTY else "maybe"
    if filled == 1 and as_empty == 0 and sums == [None]:
        return "note"
    if filled > len(cells) / 2 or as_empty > 0 or np.mean(sizes) < (1 - MAX_EMPTY) * len(cells):
        return "data"
    return "total" if True in sums else "maybe"


def _adds_up(cell: str, column: pa.ChunkedArray, is_rounded: bool) -> bool | None:
    """Return whether a number is the sum or the mean, possibly rounded, of those above; None if it is not a number."""
    readings = [plain_text(cell, Column("x", "number", number_format="money", decimal=mark)) for mark in (".", ",")]
    if not any(readings):
        return None
    text = _trimmed(column)
    kind = infer_kind(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), infer_decimal([text]))
    if kind.kind not in ("number", "integer"):
        return False
    above = _numbers(text, Column("x", kind.kind, number_format=kind.number_format, decimal=kind.decimal, suffix=kind.suffix))
    usual = (above.sum(), above.sum() / max(1, len(above)))
    return any(
        np.isclose(
            float(number), usual, rtol=1e-4, atol=0.51 * 10.0 ** -len(number.partition(".")[2]) if is_rounded else 0
        ).any()
        for number in readings
        if number
    )


def _numbers(text: pa.ChunkedArray, column: Column) -> FloatVector:
    plain = plain_texts(text, column) if column.has_number_format else text
    is_number = pc.match_substring_regex(plain, f"^(?:{NUMBER})$")
    numbers: FloatVector = pc.cast(pc.if_else(is_number, pc.utf8_ltrim(plain, "+"), None), pa.float64()).to_numpy()
    return numbers[~np.isnan(numbers)]
