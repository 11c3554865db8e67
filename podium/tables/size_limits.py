"""How much a table may hold once it is decoded."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EXTRA = 1_000
"""Columns or fields of a request that the model does not know."""
OFFSET = 4
"""Bytes that a cell of text takes besides its letters."""
TEXT_COPIES = 3
"""A text that Parquet stores once for many rows is copied for each row, and up to this many times on its way."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds that hold before anything is copied or cast, whatever form the table comes in.

    `decoded_bytes` counts the letters of all cells and four bytes a cell for CSV; for Parquet, the columns in memory and
    every text as often as rows repeat it.
    """

    rows: int = 1 << 40
    columns: int = 10_000
    cell_bytes: int = 1 << 20
    decoded_bytes: int = 1 << 32

    @property
    def footer_bytes(self) -> int:
        """The structures of a Parquet footer take up to 300 times their encoded size."""
        return self.decoded_bytes // 256


TRAINING = Limits()
REQUEST = Limits(decoded_bytes=400_000_000)
"""A table that is answered from memory."""
FILE = Limits(decoded_bytes=600_000_000)
"""A table that is answered piece by piece."""
