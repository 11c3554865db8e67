"""Convert request bodies of MLflow clients to records: dataframe_split, dataframe_records, instances and inputs.

https://mlflow.org/docs/latest/deployment/deploy-model-locally
"""

from __future__ import annotations

from typing import Any

from podium.schema.data_errors import MAX_REPORTED, BadData, Problem

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def parse_mlflow_records(body: Any) -> Any:
    """Return the rows of a body for `rows_from_records`. Raises BadData."""
    formats = [name for name in FORMATS if isinstance(body, dict) and name in body]
    if len(formats) != 1:
        raise BadData([Problem("invalid-type", "needs exactly one of", expected=", ".join(FORMATS))])
    content = body[formats[0]]
    if formats[0] == "dataframe_split":
        return _split_records(content)
    if isinstance(content, dict):
        return _column_records(content)
    return content


def _split_records(content: Any) -> list[dict[str, Any]]:
    columns, rows = (content.get("columns"), content.get("data")) if isinstance(content, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in columns):
        raise BadData([Problem("invalid-type", "dataframe_split needs `columns` and `data`")])
    if len(set(columns)) != len(columns):
        raise BadData([Problem("duplicate-field", "`columns` contains a duplicate name")])
    invalid = [(number, row) for number, row in enumerate(rows, 1) if not isinstance(row, list) or len(row) != len(columns)]
    if invalid:
        raise BadData([_length_problem(number, row, len(columns)) for number, row in invalid[:MAX_REPORTED]])
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _length_problem(number: int, row: Any, expected: int) -> Problem:
    if isinstance(row, list):
        return Problem("wrong-length", f"expected {expected} cells, found {len(row)}", number)
    return Problem("wrong-length", "must be a list of cells", number)


def _column_records(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert columns (lists of cells or of one-element lists), or a single record, to records."""
    if not any(isinstance(cells, list) for cells in content.values()):
        return [content]
    if not all(isinstance(cells, list) for cells in content.values()) or len({len(cells) for cells in content.values()}) != 1:
        raise BadData([Problem("wrong-length", "every column must be a list of the same length")])
    columns = {
        name: [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in cells]
        for name, cells in content.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
