"""Say how formatted numbers are read, and which setting decides it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.columns import Column, DecimalMark
from podium.schema.reading import counted, setting_key
from podium.tables.kind_inference import MIN_TYPED_FRACTION, MIN_UNIT_CELLS, UNITS, CellKind, infer_kind
from podium.tables.number_formats import CURRENCY, MAGNITUDES, SEPARATORS, SPACES, number_pattern

FORMATS = {"plain": "numbers", "money": "amounts", "percent": "percentages", "quantity": "numbers"}
SIGNS = "<>≤≥~≈"
NOT_UNITS = {"st", "nd", "rd", "th", "am", "pm"}
SEPARATOR_NAMES = {",": "commas", ".": "points", "'": "apostrophes", **dict.fromkeys(SPACES, "spaces")}


def number_message(texts: pa.ChunkedArray, column: Column | CellKind) -> str:
    """Return how these cells, null where missing, are read as numbers; empty if they are plain numbers."""
    cells = pc.unique(texts).drop_null()
    notes = [*_removed(texts, cells), *_separators(cells, column.decimal), *_magnitudes(cells, column), *_negative(cells)]
    if _other_decimal(texts, column):
        mark = "," if _has(cells, ",") else "."
        readings = ("1.5", "1500") if mark == column.decimal else ("1500", "1.5")
        notes.append(f"1{mark}500 is {readings[0]}, not {readings[1]}")
    if column.number_format == "plain" and not notes:
        return ""
    unit = "%" if column.number_format == "percent" else column.suffix
    return "; ".join([f"read as {FORMATS[column.number_format]}{_unit(texts.drop_null(), unit)}", *notes])


def _unit(texts: pa.ChunkedArray, suffix: str) -> str:
    """Return which unit the cells have, and how many if not all of them have it."""
    if not suffix:
        return ""
    count = pc.sum(pc.ends_with(texts, suffix)).as_py() or 0
    if count < len(texts):
        return f"; {counted(count, 'cell')} {'has' if count == 1 else 'have'} the unit {suffix}, the others none"
    power = MAGNITUDES.get(suffix)
    if suffix == "%":
        return ": 12% is 12"
    return f" with the unit {suffix}{f', not × {10**power:,}' if power else ''}"


def mixed_units(texts: pa.ChunkedArray) -> str:
    """Return which units or currencies the numbers have if they have several, such as `two units: kg and g`; else nothing."""
    cells = texts.drop_null()
    number = rf"[+-]?(?:{number_pattern('.')}|{number_pattern(',')})"
    for name, pattern in (
        ("currencies", rf"^-?\(?(?P<a>{CURRENCY})?[{SPACES}]?{number}[{SPACES}]?(?P<b>{CURRENCY})?\)?$"),
        (
            "units",
            rf"^(?P<a>)[{SPACES}]?{number}[{SPACES}]?(?P<b>[A-Za-zµ°%²³/]{{2,}}|[{''.join({*UNITS} - MAGNITUDES.keys())}])$",
        ),
    ):
        found = pc.extract_regex(cells, pattern)
        signs = pc.binary_join_element_wise(pc.struct_field(found, [0]), pc.struct_field(found, [1]), "").drop_null()
        counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(signs).to_pylist() if entry["values"]}
        usual = [sign for sign in sorted(counts, key=lambda sign: -counts[sign]) if counts[sign] >= MIN_UNIT_CELLS]
        if len(usual) > 1 and len(signs) >= MIN_TYPED_FRACTION * len(cells) and not NOT_UNITS & set(map(str.lower, usual)):
            return f"{'two' if len(usual) == 2 else len(usual)} {name}: {', '.join(usual[:-1])} and {usual[-1]}"
    return ""


def number_setting(texts: pa.ChunkedArray, column: Column, decimal: DecimalMark) -> str:
    """Return the setting that decides how a column's formatted numbers are read, in a table with this decimal mark."""
    key = setting_key(column.name)
    if setting := decimal_setting(texts, column, decimal):
        return setting
    return f'{key}.number_format = "{column.number_format}"' if column.decimal == decimal else ""


def decimal_setting(texts: pa.ChunkedArray, column: Column | CellKind, decimal: DecimalMark) -> str:
    """Return the other decimal mark if the cells can be read with it, else a comma that the table does not have by default."""
    if other := _other_decimal(texts, column):
        return f'reading.decimal = "{other}"'
    return 'reading.decimal = ","' if column.decimal == "," and (decimal == "." or column.number_format == "plain") else ""


def _other_decimal(texts: pa.ChunkedArray, column: Column | CellKind) -> DecimalMark | None:
    """Return the other decimal mark if the cells can be read with it; amounts of money do not have three decimals."""
    other: DecimalMark = "," if column.decimal == "." else "."
    is_clear = _has(texts, CURRENCY) and not _has(texts, re.escape(column.decimal))
    return other if _has(texts, "[.,]") and not is_clear and infer_kind(texts, other).decimal == other else None


def _has(cells: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cells, pattern)).as_py())


def _removed(texts: pa.ChunkedArray, cells: pa.Array) -> Iterator[str]:
    if _has(cells, CURRENCY):
        count = pc.sum(pc.match_substring_regex(texts, CURRENCY)).as_py()
        some = f" from {counted(count, 'cell')}" if count < len(texts) - texts.null_count else ""
        yield f"currency signs are removed{some}"
    signs = [sign for sign in SIGNS if _has(cells, sign)]
    if signs:
        yield f"{', '.join(signs)} {'is' if len(signs) == 1 else 'are'} removed"


def _separators(cells: pa.Array, decimal: DecimalMark) -> Iterator[str]:
    for name in dict.fromkeys(SEPARATOR_NAMES.values()):
        marks = "".join(re.escape(mark) for mark in SEPARATORS[decimal] if SEPARATOR_NAMES[mark] == name)
        if marks and _has(cells, f"[0-9][{marks}][0-9]{{3}}"):
            yield f"{name} are thousands separators"
    if decimal == "," and _has(cells, ","):
        yield "commas are decimal marks"


def _magnitudes(cells: pa.Array, column: Column | CellKind) -> Iterator[str]:
    if column.number_format in ("money", "quantity") and not column.suffix:
        for name, power in MAGNITUDES.items():
            if _has(cells, f"[0-9.,][{SPACES}]?{name}([^A-Za-z]|$)"):
                yield f"{name} is × {10**power:,}"


def _negative(cells: pa.Array) -> Iterator[str]:
    if _has(cells, r"^\("):
        yield "numbers in parentheses are negative"
    if _has(cells, "-$"):
        yield "numbers before a minus are negative"
