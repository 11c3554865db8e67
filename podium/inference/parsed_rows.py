"""Typed rows of a request in any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from podium.schema.arrays import Columns
from podium.schema.columns import Value
from podium.schema.data_errors import Problem


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """How to parse a table.

    `by_row` accepts the valid rows if others are invalid; `keep_extra` accepts columns that the model does not use and
    returns them with the result. The `delimiter` is detected by default.
    """

    by_row: bool = False
    keep_extra: bool = False
    gzipped: bool = False
    delimiter: str | None = None


DEFAULT_OPTIONS = ParseOptions()


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """The valid rows as typed tuples and as a typed frame, and all `total` rows as a text table.

    `invalid_rows` maps the index of each invalid row to its problems; it is empty unless rows are parsed `by_row`.
    """

    total: int
    warnings: list[Problem]
    as_rows: Callable[[], list[tuple[Value, ...]]]
    as_frame: Callable[[], pd.DataFrame]
    as_table: Callable[[], pa.Table]
    invalid_rows: Mapping[int, list[Problem]]
    keys: Columns | None = None
    """For panels: the entity and day of each window; the rows are these windows."""

    @property
    def count(self) -> int:
        return self.total - len(self.invalid_rows)
