"""Match misspelled or differently capitalized values to categories."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from podium.schema.columns import Column, FuzzyMatching

MIN_LENGTH = 4
"""Minimum number of letters in a word that may be misspelled."""
MAX_LENGTH = 100
"""Longer strings are not compared with categories."""
RARE_FRACTION, MAX_FREQUENT, MAX_TEXTS = 0.005, 50, 2_000
"""Rarer values may be misspelled. Columns with more than MAX_FREQUENT frequent or MAX_TEXTS distinct values are skipped."""
MIN_EXPLAINED_FRACTION = 0.8
"""Fraction of the rare values that must be close to a frequent value before any is treated as a misspelling."""

WEEKDAYS = {"Monday": "mon", "Tuesday": "tue tues", "Wednesday": "wed", "Thursday": "thu thur thurs", "Friday": "fri",
            "Saturday": "sat", "Sunday": "sun"}  # fmt: skip
MONTHS = {"January": "jan", "February": "feb", "March": "mar", "April": "apr", "May": "", "June": "jun", "July": "jul",
          "August": "aug", "September": "sep sept", "October": "oct", "November": "nov", "December": "dec"}  # fmt: skip
VOCABULARIES = {"weekday": WEEKDAYS, "month": MONTHS}
"""Names with their abbreviations."""


@dataclass(frozen=True, slots=True)
class FuzzySpellings:
    """How the values of a column are matched to categories; see `Column`."""

    fuzzy: FuzzyMatching
    aliases: tuple[tuple[str, str], ...] = ()


def normalize_text(text: str) -> str:
    """Return the text with case and whitespace normalized, and without a trailing dot."""
    return " ".join(text.casefold().split()).rstrip(".")


def resolve_category(text: str, column: Column) -> str:
    """Return the category that matches the text, or the text itself if none does."""
    if column.fuzzy == "exact" or len(text) > MAX_LENGTH:
        return text
    return known_spellings(column).get(normalize_text(text)) or _nearest(text, column)


@lru_cache(maxsize=4096)
def known_spellings(column: Column) -> Mapping[str, str]:
    """Return a mapping from normalized spellings to categories."""
    return {**{normalize_text(level): level for level in column.categories}, **dict(column.aliases)}


@lru_cache(maxsize=4096)
def _nearest(text: str, column: Column) -> str:
    if column.fuzzy != "nearest":
        return text
    known = known_spellings(column)
    nearest = nearest_text(normalize_text(text), known, known)
    return known[nearest] if nearest else text


def nearest_text(text: str, known: Collection[str], meaning: Mapping[str, str]) -> str | None:
    """Return a known spelling that is one edit away, or None if there is none or if the candidates differ in meaning."""
    half = max(0, (len(text) - 3) // 2)  # one edit leaves the first or the last half unchanged
    head, tail = text[:half], text[len(text) - half :]
    candidates = (other for other in known if other.startswith(head) or other.endswith(tail))
    near = [other for other in candidates if _is_misspelling(text, other)]
    return near[0] if near and len({meaning[other] for other in near}) == 1 else None


def _is_misspelling(text: str, correct: str) -> bool:
    """Return whether the strings differ by one edit in a single alphabetic word of at least MIN_LENGTH letters."""
    words, correct_words = text.split(), correct.split()
    if abs(len(text) - len(correct)) > 1 or len(words) != len(correct_words):
        return False
    different = [pair for pair in zip(words, correct_words, strict=True) if pair[0] != pair[1]]
    if len(different) != 1 or min(map(len, different[0])) < MIN_LENGTH or not "".join(different[0]).isalpha():
        return False
    return _is_one_edit(*different[0])


def _is_one_edit(a: str, b: str) -> bool:
    """Return whether one insertion, deletion, substitution or transposition turns `a` into `b` (Damerau, 1964)."""
    pairs = zip(a, b, strict=False)
    start = next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    if len(a) == len(b):
        is_transposed = a[:2] == b[:2][::-1] and a[2:] == b[2:]
        return is_transposed or a[1:] == b[1:]
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return longer[1:] == shorter


# --- inference from training rows -------------------------------------------------------------------------------------------


def infer_vocabulary(counts: Mapping[str, int]) -> str | None:
    """Return `weekday` or `month` if all values are such names or close to one, and at least three of the names occur."""
    normalized = _normalized_counts(counts)
    for name in VOCABULARIES:
        known = dict(vocabulary_aliases(name))
        correct = {text: count for text, count in normalized.items() if text in known}
        rest = [text for text in normalized if text not in known]
        is_typical = len({known[text] for text in correct}) > 2 and sum(correct.values()) >= 0.5 * sum(normalized.values())
        if is_typical and all(nearest_text(text, known, known) for text in rest):
            return name
    return None


def vocabulary_aliases(name: str) -> tuple[tuple[str, str], ...]:
    """Return every normalized form of the names, paired with the full name."""
    names = VOCABULARIES[name]
    return tuple((form, full) for full, short in names.items() for form in (normalize_text(full), *short.split()))


def infer_spellings(counts: Mapping[str, int], configured: FuzzyMatching | None = None) -> FuzzySpellings:
    """Infer how to match the values of a column from the number of times each value occurs.

    Values that differ only in case are equivalent. Rare values close to a frequent value are misspellings if most rare values
    are close to one, or if matching is configured.
    """
    if configured == "loose" or configured == "exact" or len(counts) > MAX_TEXTS:
        return FuzzySpellings(configured or "exact")
    normalized = _normalized_counts(counts)
    usual_forms = _most_frequent_forms(counts)
    total = sum(normalized.values())
    frequent = {text for text, count in normalized.items() if count >= RARE_FRACTION * total}
    rare = sorted(normalized.keys() - frequent)
    if len(rare) >= 2 and 2 <= len(frequent) <= MAX_FREQUENT:
        nearest = {text: nearest_text(text, frequent, usual_forms) for text in rare}
        aliases = {text: usual_forms[other] for text, other in nearest.items() if other}
        if configured or len(aliases) >= MIN_EXPLAINED_FRACTION * len(rare):
            return FuzzySpellings("nearest", tuple(aliases.items()))
    if configured:
        return FuzzySpellings(configured)
    return FuzzySpellings("loose" if len(normalized) < len(counts) else "exact")


def _normalized_counts(counts: Mapping[str, int]) -> dict[str, int]:
    normalized: dict[str, int] = {}
    for text, count in counts.items():
        normalized[normalize_text(text)] = normalized.get(normalize_text(text), 0) + count
    return normalized


def _most_frequent_forms(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the most frequent form of each normalized value; ties break alphabetically."""
    forms: dict[str, str] = {}
    for text in sorted(counts, key=lambda text: (-counts[text], text)):
        forms.setdefault(normalize_text(text), text)
    return forms


def apply_corrections(counts: Mapping[str, int], aliases: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the categories that remain when every alias is replaced by its category."""
    known = {**_most_frequent_forms(counts), **dict(aliases)}
    return tuple(sorted({known[normalize_text(text)] for text in counts}))
