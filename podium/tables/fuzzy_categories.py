"""What a misspelt or mixed-case text means: the category that was meant, decided once and stored with the column."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from podium.schema.columns import Column, FuzzyMatching

MIN_LENGTH = 4
"""Letters of the shortest word that may be misspelt."""
MAX_LENGTH = 100
"""Longer texts are not compared with categories."""
RARE, MOST_FREQUENT, MOST_LEVELS = 0.005, 50, 2_000
"""A level of a smaller share of the rows may be a misspelling; columns with more levels than this are not looked at."""
EXPLAINED = 0.8
"""Share of the rare levels that must be near a frequent one, before any of them is taken for a misspelling."""

WEEKDAYS = {"Monday": "mon", "Tuesday": "tue tues", "Wednesday": "wed", "Thursday": "thu thur thurs", "Friday": "fri",
            "Saturday": "sat", "Sunday": "sun"}  # fmt: skip
MONTHS = {"January": "jan", "February": "feb", "March": "mar", "April": "apr", "May": "", "June": "jun", "July": "jul",
          "August": "aug", "September": "sep sept", "October": "oct", "November": "nov", "December": "dec"}  # fmt: skip
VOCABULARIES = {"weekday": WEEKDAYS, "month": MONTHS}
"""Names that every table spells differently, with what they are cut to."""


@dataclass(frozen=True, slots=True)
class FuzzySpellings:
    """How the texts of a column are read."""

    fuzzy: FuzzyMatching
    aliases: tuple[tuple[str, str], ...] = ()


def normalize_text(text: str) -> str:
    """A text as it is compared when case, blanks and a dot at the end do not matter."""
    return " ".join(text.casefold().split()).rstrip(".")


def resolve_category(text: str, column: Column) -> str:
    """The category that a text means, or the text itself when it means none."""
    if column.fuzzy == "exact" or len(text) > MAX_LENGTH:
        return text
    return known_spellings(column).get(normalize_text(text)) or _nearest(text, column)


@lru_cache(maxsize=4096)
def known_spellings(column: Column) -> Mapping[str, str]:
    """Folded texts and the categories they stand for."""
    return {**{normalize_text(level): level for level in column.categories}, **dict(column.aliases)}


@lru_cache(maxsize=4096)
def _nearest(text: str, column: Column) -> str:
    if column.fuzzy != "nearest":
        return text
    known = known_spellings(column)
    found = nearest_text(normalize_text(text), known, known)
    return known[found] if found else text


def nearest_text(text: str, known: Collection[str], meaning: Mapping[str, str]) -> str | None:
    """The one that is a letter away, when all that are mean the same."""
    half = max(0, (len(text) - 3) // 2)  # one mistake leaves the beginning or the end as it is
    head, tail = text[:half], text[len(text) - half :]
    alike = (other for other in known if other.startswith(head) or other.endswith(tail))
    near = [other for other in alike if _is_misspelt(text, other)]
    return near[0] if near and len({meaning[other] for other in near}) == 1 else None


def _is_misspelt(text: str, right: str) -> bool:
    """Whether one word of some letters has one wrong: left out, added, another, or two that changed places; digits never."""
    words, others = text.split(), right.split()
    if abs(len(text) - len(right)) > 1 or len(words) != len(others):
        return False
    wrong = [(one, other) for one, other in zip(words, others, strict=True) if one != other]
    if len(wrong) != 1 or min(map(len, wrong[0])) < MIN_LENGTH or not "".join(wrong[0]).isalpha():
        return False
    return _one_edit(*wrong[0])


def _one_edit(one: str, other: str) -> bool:
    """Damerau (1964): whether a single mistake of typing makes one of the other."""
    pairs = zip(one, other, strict=False)
    start = next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
    rest, others = one[start:], other[start:]
    if len(one) == len(other):
        swapped = rest[:2] == others[:2][::-1] and rest[2:] == others[2:]
        return swapped or rest[1:] == others[1:]
    longer, shorter = (rest, others) if len(one) > len(other) else (others, rest)
    return longer[1:] == shorter


# --- what training rows show -------------------------------------------------------------------------------------------


def vocabulary_of(counts: Mapping[str, int]) -> str | None:
    """`weekday` or `month`, when all texts are such names or near one; a column of "May" alone is not."""
    folded = _folded(counts)
    for name in VOCABULARIES:
        known = dict(vocabulary_aliases(name))
        right = {text: count for text, count in folded.items() if text in known}
        rest = [text for text in folded if text not in known]
        enough = len({known[text] for text in right}) > 2 and sum(right.values()) >= 0.5 * sum(folded.values())
        if enough and all(nearest_text(text, known, known) for text in rest):
            return name
    return None


def vocabulary_aliases(name: str) -> tuple[tuple[str, str], ...]:
    """Every folded form of the names, and what it stands for."""
    names = VOCABULARIES[name]
    return tuple((form, full) for full, short in names.items() for form in (normalize_text(full), *short.split()))


def spellings_of(counts: Mapping[str, int], asked: FuzzyMatching | None = None) -> FuzzySpellings:
    """How the texts of a column should be read, from how often each comes.

    Texts that differ in case alone mean the same; rare ones near a frequent one are misspellings if nearly all rare ones are,
    or if it is asked for.
    """
    if asked == "loose" or asked == "exact" or len(counts) > MOST_LEVELS:
        return FuzzySpellings(asked or "exact")
    folded = _folded(counts)
    best = _most_frequent(counts)
    total = sum(folded.values())
    frequent = {text for text, count in folded.items() if count >= RARE * total}
    rare = sorted(folded.keys() - frequent)
    if len(rare) >= 2 and 2 <= len(frequent) <= MOST_FREQUENT:
        found = {text: nearest_text(text, frequent, best) for text in rare}
        known = {text: best[other] for text, other in found.items() if other}
        if asked or len(known) >= EXPLAINED * len(rare):
            return FuzzySpellings("nearest", tuple(known.items()))
    if asked:
        return FuzzySpellings(asked)
    return FuzzySpellings("loose" if len(folded) < len(counts) else "exact")


def _folded(counts: Mapping[str, int]) -> dict[str, int]:
    folded: dict[str, int] = {}
    for text, count in counts.items():
        folded[normalize_text(text)] = folded.get(normalize_text(text), 0) + count
    return folded


def _most_frequent(counts: Mapping[str, int]) -> dict[str, str]:
    """For each folded text its most frequent form, the first in order of equals."""
    best: dict[str, str] = {}
    for text in sorted(counts, key=lambda text: (-counts[text], text)):
        best.setdefault(normalize_text(text), text)
    return best


def apply_corrections(counts: Mapping[str, int], aliases: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The categories that remain when every fuzzy means its category."""
    known = {**_most_frequent(counts), **dict(aliases)}
    return tuple(sorted({known[normalize_text(text)] for text in counts}))
