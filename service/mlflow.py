"""The bodies that MLflow's clients send to /invocations, as records.

https://mlflow.org/docs/latest/deployment/deploy-model-locally : dataframe_split, dataframe_records, instances, inputs.
"""

from __future__ import annotations

from typing import Any

from podium.schema.columns import Signature
from podium.schema.data_errors import MAX_REPORTED, BadData, Problem

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def parse_mlflow_records(body: Any, signature: Signature) -> Any:
    """What `podium.inference.json_rows.rows_from_records` takes. Raises BadData."""
    found = [form for form in FORMS if isinstance(body, dict) and form in body]
    if len(found) != 1:
        raise BadData([Problem("invalid-type", "needs exactly one of", expected=", ".join(FORMS))])
    content = body[found[0]]
    if found[0] == "dataframe_split":
        return _split(content)
    if isinstance(content, dict):
        return _columns(content)
    return content


def _split(content: Any) -> list[dict[str, Any]]:
    columns, rows = (content.get("columns"), content.get("data")) if isinstance(content, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in columns):
        raise BadData([Problem("invalid-type", "dataframe_split needs `columns` and `data`")])
    if len(set(columns)) != len(columns):
        raise BadData([Problem("duplicate-field", "`columns` names one twice")])
    wrong = [number for number, row in enumerate(rows, 1) if not isinstance(row, list) or len(row) != len(columns)]
    if wrong:
        message = "has another number of cells than there are columns"
        raise BadData([Problem("wrong-length", message, number) for number in wrong[:MAX_REPORTED]])
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _columns(content: dict[str, Any]) -> list[dict[str, Any]]:
    """A dictionary of columns, each a list of cells or of lists of one, or a single record."""
    if not any(isinstance(cells, list) for cells in content.values()):
        return [content]
    if not all(isinstance(cells, list) for cells in content.values()) or len({len(cells) for cells in content.values()}) != 1:
        raise BadData([Problem("wrong-length", "every column must be a list of the same length")])
    plain = {
        name: [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in cells]
        for name, cells in content.items()
    }
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
