"""Infer what the text cells of a column are: numbers in some format, dates, booleans or categories."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from podium.schema.columns import ISO_FORMAT, DecimalMark, Kind, NumberFormat
from podium.tables.cell_rules import BOOLEANS, INTEGER, NUMBER, parse_date
from podium.tables.number_formats import (
    CURRENCY,
    LIMITS,
    MAGNITUDES,
    SEPARATORS,
    SPACES,
    format_pattern,
    number_pattern,
    with_hyphens,
)

NA_TEXTS = frozenset(
    (*("?", "??", "???", "-", "--", "---", "–", "—", ".", "..", "...", "*", "#", "na", "n/a", "n.a.", "n. a."),
     *("nan", "-nan", "nat", "null", "none", "nil", "<na>", "<null>", "(null)", "[null]", "\\n", "#na", "#n/a", "#n/a n/a"),
     *("1.#qnan", "-1.#ind"),
     *("inf", "-inf", "+inf", "infinity", "-infinity", "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!"),
     *("missing", "unknown", "not available", "not applicable", "no data", "no answer", "tbd", "n/k"),
     *("k.a.", "k. a.", "k.a", "k/a", "o.a.", "o. a.", "n/v", "n.v.", "n. v.", "keine angabe", "keine angaben", "ohne angabe"),
     *("unbekannt", "nicht verfügbar", "fehlt", "s/d", "s.d.", "s. d.", "s/i", "n/d", "n.d.", "n. d.", "nd", "n/r"),
     *("sin dato", "sin datos", "no disponible", "desconocido", "non disponible", "non renseigné", "inconnu"),
     *("non disponibile", "sconosciuto", "não disponível", "sem dados", "onbekend", "b/d", "brak", "brak danych", "нет данных"))
)  # fmt: skip
"""Strings in lower case that mean "missing" if the other cells are numbers, dates or booleans."""
PANDAS_MARKS = (
    *("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#NA", "#N/A", "#N/A N/A"),
    *("-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""Strings that mean "missing" in every column, as in `pandas.read_csv`."""
MIN_TYPED_FRACTION = 0.95
"""Minimum fraction of the cells that have a kind for the others, which do not, to be missing values."""
MAX_ODD_CELLS = 2
"""Number of odd cells that a small column may have if it is at least 80 % typed."""
MAX_ODD_TEXTS = 20
"""A column with more distinct numbers and at most as many distinct other texts is not a category column."""
MIN_UNIT_FRACTION, MIN_UNIT_CELLS = 0.01, 3
"""Minimum fraction and number of cells with the same unit, if the others are plain numbers."""
UNITS = (*"gmlLhstWVK°", *MAGNITUDES)
"""Units of one letter; other letters after a number make it a code."""
LONG_INTEGER = r"[+-]?[0-9]{16,}(\.0*)?"
"""Integers that float64 does not represent exactly; they identify something."""
LEADING_ZERO = r"0[0-9]+"
MIN_LEADING_ZEROS = 0.05
MAX_DATE_SAMPLE = 2_000


@dataclass(frozen=True, slots=True)
class CellKind:
    """The kind and format of a column's cells, and the strings that are missing values in it."""

    kind: Kind
    number_format: NumberFormat = "plain"
    decimal: DecimalMark = "."
    suffix: str = ""
    date_format: str = ISO_FORMAT
    na_values: tuple[str, ...] = ()
    is_ambiguous: bool = False
    """Whether day and month cannot be told apart."""
    odd: tuple[str, ...] = ()
    odd_fraction: float = 0.0
    """The strings, and their fraction, that keep a category column from being numbers or dates."""
    must_ask: bool = False
    """Whether these are so few that the column is hardly meant as categories."""

    @property
    def has_format(self) -> bool:
        """Return whether the cells are formatted numbers."""
        return self.number_format != "plain" or self.decimal != "."


CATEGORY = CellKind("category")


@dataclass(frozen=True, slots=True)
class _Counts:
    """The distinct cells and how often each occurs."""

    texts: pa.Array
    counts: pa.Array
    total: int

    def fraction(self, mask: pa.Array) -> float:
        return (pc.sum(pc.filter(self.counts, mask)).as_py() or 0) / self.total

    def matching(self, pattern: str) -> pa.Array:
        return pc.match_substring_regex(self.texts, f"^(?:{pattern})$")


def infer_kind(text: pa.ChunkedArray, decimal: DecimalMark = ".") -> CellKind:
    """Infer the kind of trimmed cells, null where missing. `decimal` decides for cells such as `1,500`.

    A few cells of another form than the rest are missing values, and so are any number of NA_TEXTS.
    """
    is_mark = pc.is_in(pc.utf8_lower(text), value_set=pa.array(sorted(NA_TEXTS)))
    marks = pc.unique(pc.filter(text, is_mark)).to_pylist()
    counted = pc.value_counts(pc.filter(text, pc.invert(is_mark)).drop_null())
    counts = _Counts(
        with_hyphens(counted.field("values")), counted.field("counts"), pc.sum(counted.field("counts")).as_py() or 0
    )
    if not counts.total:
        return CATEGORY
    best, best_mask, best_fraction = CATEGORY, None, 0.0
    for kind, mask in _candidates(counts, decimal):
        fraction = counts.fraction(mask)
        if fraction > best_fraction:
            best, best_mask, best_fraction = kind, mask, fraction
        if fraction == 1.0:
            break
    if best_mask is None:
        return CATEGORY
    odd = tuple(pc.filter(counted.field("values"), pc.invert(best_mask)).to_pylist())
    if _is_enough(best_fraction, counts.total):
        return replace(best, na_values=(*marks, *odd))
    if best_fraction < 0.5:
        return CATEGORY
    must_ask = best.kind in ("number", "integer") and len(odd) <= MAX_ODD_TEXTS < len(counts.texts) - len(odd)
    return replace(CATEGORY, odd=odd[:MAX_ODD_TEXTS], odd_fraction=1 - best_fraction, must_ask=must_ask)


def _is_enough(fraction: float, total: int) -> bool:
    return fraction >= MIN_TYPED_FRACTION or (fraction >= 0.8 and round((1 - fraction) * total) <= MAX_ODD_CELLS)


def _candidates(counts: _Counts, decimal: DecimalMark) -> Iterator[tuple[CellKind, pa.Array]]:
    """Yield kinds with the mask of the distinct cells that have it, the more likely first."""
    if counts.fraction(counts.matching(LEADING_ZERO)) >= MIN_LEADING_ZEROS and counts.fraction(counts.matching("[0-9]+")) == 1:
        return  # codes such as postcodes
    if counts.fraction(counts.matching(LONG_INTEGER)) > 0.5:
        return
    lower = pc.utf8_lower(counts.texts)
    is_boolean = pc.is_in(lower, value_set=pa.array(list(BOOLEANS)))
    spellings = set(pc.unique(pc.filter(lower, is_boolean)).to_pylist())
    is_number = counts.matching(NUMBER)
    if ({"true", "false"} & spellings or len(spellings) > 2) and not spellings <= {"0", "1", "0.0", "1.0"}:
        yield CellKind("boolean"), is_boolean
    if counts.fraction(counts.matching("0[0-9].*")) >= MIN_LEADING_ZEROS:
        yield from _dates(counts, day_first=decimal == ",")
        return
    yield CellKind("integer"), counts.matching("[+-]?[0-9]+")
    if decimal == ",":
        yield from _formatted(counts, ",")
    if pc.any(is_number).as_py():
        integers = pc.and_(is_number, counts.matching(INTEGER))
        kind: Kind = "integer" if pc.equal(pc.sum(integers), pc.sum(is_number)).as_py() else "number"
        yield CellKind(kind), is_number
    yield from _dates(counts, day_first=decimal == ",")
    yield from _formatted(counts, ".")
    if decimal == ".":
        yield from _formatted(counts, ",")


def _formatted(counts: _Counts, decimal: DecimalMark) -> Iterator[tuple[CellKind, pa.Array]]:
    """Yield the number formats with this decimal mark; each must have more cells than plain numbers do."""
    if decimal == ",":
        yield CellKind("number", decimal=","), counts.matching(format_pattern("plain", ","))
    money = counts.matching(format_pattern("money", decimal))
    currencies = pc.unique(pc.struct_field(pc.extract_regex(pc.filter(counts.texts, money), f"(?P<sign>{CURRENCY})"), [0]))
    if len(currencies.drop_null()) <= 1:
        yield CellKind("number", "money", decimal), money
    yield CellKind("number", "percent", decimal), counts.matching(format_pattern("percent", decimal))
    suffix = _suffix(counts, decimal)
    if suffix is not None:
        quantity = counts.matching(format_pattern("quantity", decimal, suffix))
        is_limit = counts.matching(f"{LIMITS}.*")
        if counts.fraction(is_limit) < counts.fraction(quantity) / 2:  # otherwise they are groups, such as <40 and >=40
            yield CellKind("number", "quantity", decimal, suffix), quantity


def _suffix(counts: _Counts, decimal: DecimalMark) -> str | None:
    """Return the unit that numbers have, empty if there is none; None if there are several, or codes such as 136A."""
    pattern = (
        rf"^{LIMITS}?[{SPACES}]?[+-]?{number_pattern(decimal)}[{SPACES}]?(?P<suffix>[A-Za-zµ°%][A-Za-zµ°²³0-9/%.]{{0,11}})?$"
    )
    found = pc.struct_field(pc.extract_regex(counts.texts, pattern), [0])
    suffixes = set(pc.unique(found).drop_null().to_pylist()) - {""}
    has_plain = pc.any(pc.equal(found, "")).as_py()
    if suffixes <= MAGNITUDES.keys() and (len(suffixes) != 1 or has_plain or _is_magnitude(next(iter(suffixes)), counts)):
        return ""
    suffix = next(iter(suffixes))
    is_unit = len(suffixes) == 1 and (len(suffix) > 1 or suffix in UNITS)
    share = counts.fraction(pc.fill_null(pc.equal(found, suffix), False))
    is_usual = share >= MIN_UNIT_FRACTION and round(share * counts.total) >= MIN_UNIT_CELLS
    return suffix if is_unit and (is_usual or share >= 0.5 * counts.fraction(pc.is_valid(found))) else None


def _is_magnitude(suffix: str, counts: _Counts) -> bool:
    """Return whether a suffix of all numbers is a magnitude: not 300 K, which is kelvin, nor 32B, which is a size."""
    unlikely = {"K": ".* K", "B": "[0-9]+ ?B"}.get(suffix)
    return unlikely is None or counts.fraction(counts.matching(unlikely)) < 0.5


def infer_decimal(columns: Sequence[pa.ChunkedArray]) -> DecimalMark:
    """Return "," if a column has numbers with an unmistakable decimal comma, such as 12,5, and no decimal point."""
    return "," if any(_has_decimal_commas(text) for text in columns) else "."


def _has_decimal_commas(text: pa.ChunkedArray) -> bool:
    cells = text.drop_null()
    comma = pc.sum(pc.match_substring_regex(cells, r"^[^0-9]{0,4}[0-9.]*[0-9],([0-9]{1,2}|[0-9]{4,})([^0-9,.]{0,4})$")).as_py()
    return bool(comma) and comma >= len(cells) / 4


def has_thousands_separators(text: pa.ChunkedArray) -> bool:
    """Return whether numbers with a decimal comma have thousands separators, as 1.500,25 does."""
    return bool(pc.any(pc.match_substring_regex(text, rf"[0-9][{SEPARATORS[',']}][0-9]{{3}}")).as_py())


ISO_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?)?"
TIMES = {
    "": "", r" [0-9]{1,2}:[0-9]{2}": " %H:%M", r" [0-9]{1,2}:[0-9]{2}:[0-9]{2}": " %H:%M:%S",
    r" [0-9]{1,2}:[0-9]{2} [AaPp][Mm]": " %I:%M %p", r" [0-9]{1,2}:[0-9]{2}:[0-9]{2} [AaPp][Mm]": " %I:%M:%S %p",
}  # fmt: skip
MONTH = r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
DAYS = {
    r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}": ("%m/%d/%Y", "%d/%m/%Y"),
    r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{2}": ("%m/%d/%y", "%d/%m/%y"),
    r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}": ("%d.%m.%Y",),
    r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{2}": ("%d.%m.%y",),
    r"[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}": ("%d-%m-%Y", "%m-%d-%Y"),
    r"[0-9]{4}/[0-9]{1,2}/[0-9]{1,2}": ("%Y/%m/%d",),
    r"[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,2}": ("%Y.%m.%d",),
    rf"[0-9]{{1,2}}-{MONTH}-[0-9]{{4}}": ("%d-%b-%Y",),
    rf"[0-9]{{1,2}}-{MONTH}-[0-9]{{2}}": ("%d-%b-%y",),
    rf"[0-9]{{1,2}} {MONTH} [0-9]{{4}}": ("%d %b %Y",),
    rf"{MONTH} [0-9]{{1,2}}, [0-9]{{4}}": ("%b %d, %Y",),
    rf"{MONTH} [0-9]{{1,2}} [0-9]{{4}}": ("%b %d %Y",),
    rf"{MONTH}[a-z]+ [0-9]{{1,2}}, [0-9]{{4}}": ("%B %d, %Y",),
    rf"[0-9]{{1,2}} {MONTH}[a-z]+ [0-9]{{4}}": ("%d %B %Y",),
}  # fmt: skip
"""The forms of dates, each with its strptime formats; a form with two is ambiguous if every cell has both."""


def _dates(counts: _Counts, *, day_first: bool) -> Iterator[tuple[CellKind, pa.Array]]:
    iso = counts.matching(ISO_TIME)
    if pc.any(iso).as_py():
        yield CellKind("date"), _parsed(counts.texts, iso, ISO_FORMAT)
    for day, day_formats in DAYS.items():
        if not pc.any(pc.match_substring_regex(counts.texts, f"^{day}")).as_py():
            continue
        for time, time_format in TIMES.items():
            shape = counts.matching(day + time)
            if not pc.any(shape).as_py():
                continue
            formats = [form + time_format for form in (reversed(day_formats) if day_first else day_formats)]
            masks = [_parsed(counts.texts, shape, form) for form in formats]
            is_ambiguous = len(masks) > 1 and masks[0].equals(masks[1])
            for form, mask in zip(formats, masks, strict=True):
                yield CellKind("date", date_format=form, is_ambiguous=is_ambiguous), mask


def _parsed(texts: pa.Array, shape: pa.Array, date_format: str) -> pa.Array:
    """Return the mask of the texts of this shape that are dates in the format; only some texts are tried if there are many."""
    candidates = pc.filter(texts, shape)
    sample = candidates[:: max(1, len(candidates) // MAX_DATE_SAMPLE)].to_pylist()
    valid = {text for text in sample if parse_date(text, date_format) is not None}
    if len(valid) == len(sample):
        return shape
    if len(valid) < len(sample) / 2:
        return pa.array([False] * len(texts))
    return pa.array(
        [
            ok and parse_date(text, date_format) is not None
            for text, ok in zip(texts.to_pylist(), shape.to_pylist(), strict=True)
        ]
    )


EPOCH_NAME = re.compile(
    r"(?i)^(time|date|ts|datetime)$|timestamp|epoch|_at$|(event|start|end|created?|updated?|modified)_?(time|at)$"
)

LONG_EPOCH_NAME = re.compile(r"(?i)(time|date|(^|[^a-z])(ts|at))$|(?-i:[a-z](Ts|At))$")
"""Names under which whole numbers of 13 digits and more are times, because seconds since 1970 have ten."""


def is_epoch(name: str, text: pa.ChunkedArray) -> bool:
    """Return whether whole numbers under this name are times since 1970, between 1990 and 2050."""
    digits = 9 if EPOCH_NAME.search(name) else 13
    if digits > 9 and not LONG_EPOCH_NAME.search(name):
        return False
    sample = pc.unique(text).drop_null()[:100].to_pylist()
    days = [parse_date(cell, ISO_FORMAT) for cell in sample if re.fullmatch(rf"[0-9]{{{digits},19}}(\.0*)?", cell)]
    return sum(day is not None and 7_300 < day < 29_200 for day in days) >= MIN_TYPED_FRACTION * max(1, len(sample))
