"""Size limits for decoded tables."""

from __future__ import annotations

from dataclasses import dataclass

from podium.schema.data_errors import Problem, TooLarge

MAX_EXTRA = 1_000
"""Maximum number of columns or fields in a request that the model does not know."""
OFFSET_BYTES = 4
"""Bytes that a text cell takes in addition to its characters."""
TEXT_COPIES = 3
"""Copies of each row's string in memory while dictionary-encoded Parquet is decoded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, checked before anything is copied or cast.

    `decoded_bytes` counts the characters of all cells plus four bytes per cell for CSV. For Parquet, it counts the columns
    in memory, with repeated strings counted in every row.
    """

    rows: int = 1 << 40
    columns: int = 10_000
    cell_bytes: int = 1 << 20
    decoded_bytes: int = 1 << 32

    @property
    def footer_bytes(self) -> int:
        """Maximum size of a Parquet footer, whose structures take up to 300 times their encoded size in memory."""
        return self.decoded_bytes // 256


TRAINING = Limits()
REQUEST = Limits(decoded_bytes=400_000_000)
"""Limits for a table processed in memory."""
FILE = Limits(decoded_bytes=600_000_000)
"""Limits for a table processed in chunks."""


def too_large(max_bytes: int) -> TooLarge:
    """The error for a table that is too large when decoded."""
    expected = f"at most {max_bytes} decoded bytes; send fewer rows at a time"
    return TooLarge([Problem("too-large", "the decoded table is too large", expected=expected)])
