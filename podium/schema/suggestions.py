"""The closest known name for a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the closest known name, or an empty string."""
    names = {candidate.lower(): candidate for candidate in known}
    ending = [candidate for lower, candidate in names.items() if lower.endswith(f"_{name.lower()}")]
    close = [names[lower] for lower in get_close_matches(name.lower(), names, 1, 0.6)]
    return next((f"; did you mean `{candidate}`?" for candidate in [*ending, *close]), "")
