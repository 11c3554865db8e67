"""Labels: the true values of predictions, sent when they become known, and kept as Parquet by the day of their arrival."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from podium.prediction_log.prediction_table import PREDICTION_ID
from podium.schema.columns import Target
from podium.schema.data_errors import BadData, Malformed, Problem
from podium.storage.object_store import Store

SCHEMA = pa.schema([("prediction_id", pa.string()), ("row", pa.int32()), ("label", pa.string()), ("by", pa.string())])
"""`row` is the number of the row in its request, from 1. `label` is a class, or a number as text."""
HEADER_BYTES = 10_000


def labels_prefix(project: str, day: str) -> str:
    return f"labels/{project}/dt={day}/"


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels in the form in which they are kept, and the number of rows that have none yet."""

    table: pa.Table
    unlabelled: int = 0


def is_label_file(data: bytes, target: Target) -> bool:
    """Return whether a CSV or JSON file has labels: a column of prediction ids, and one of labels."""
    if data.lstrip()[:1] == b"[":
        return b'"prediction_id"' in data[:HEADER_BYTES]
    header = data[:HEADER_BYTES].decode("utf-8-sig", errors="replace").partition("\n")[0]
    names = {name.strip(" \"'\r") for name in re.split(r"[,;\t|]", header)}
    return "prediction_id" in names and bool(names & {"label", target.name})


def read_label_file(data: bytes, target: Target, by: str) -> Labels:
    """Return the labels of a CSV file or a JSON list of objects: `prediction_id`, `label` (or the target's name) and `row`.

    Without `row`, it is the first one. Raises BadData.
    """
    try:
        frame = _frame(data)
    except (ValueError, csv.Error) as error:
        raise Malformed([Problem("csv-header", f"the labels cannot be read: {error}")]) from None
    column = next((name for name in ("label", target.name) if name in frame), None)
    missing = [name for name, found in (("prediction_id", "prediction_id" in frame), ("label", column)) if not found]
    if missing:
        raise BadData([Problem("missing-field", "is required", column=name) for name in missing])
    rows = frame["row"].tolist() if "row" in frame else [1] * len(frame)
    return labels_of(frame["prediction_id"].tolist(), rows, frame[column].tolist(), target, by)


def _frame(data: bytes) -> pd.DataFrame:
    """Return the cells as texts or JSON values. Raises ValueError, csv.Error."""
    if data.lstrip()[:1] == b"[":
        return pd.DataFrame(json.loads(data), dtype=object)
    return pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, sep=None, engine="python", encoding="utf-8-sig")


def labels_of(ids: Sequence[object], rows: Sequence[object], labels: Sequence[object], target: Target, by: str) -> Labels:
    """Return labels as they are kept, without rows that have none. Raises BadData if any is not a value of the target."""
    known = {str(label).casefold(): str(label) for label in target.classes}
    problems, cells = list[Problem](), list[tuple[str, int, str]]()
    for position, (prediction_id, row, label) in enumerate(zip(map(_text, ids), rows, map(_text, labels), strict=True), 1):
        text, number = _label(label, known), _number(_text(row) or "1")
        if not PREDICTION_ID.fullmatch(prediction_id):
            problems.append(Problem("invalid-type", "is not the id of a logged prediction", position, "prediction_id"))
        elif number is None or not (number.is_integer() and 0 < number < 1 << 31):
            problems.append(Problem("invalid-type", "is not the number of a row, from 1", position, "row"))
        elif label and text is None:
            expected = ", ".join(map(str, target.classes[:20])) or "a number"
            problems.append(Problem("invalid-type", f"is not a value of {target.name}", position, "label", expected))
        elif text is not None:
            cells.append((prediction_id, int(number), text))
    if problems:
        raise BadData(problems)
    columns = list(zip(*cells, strict=True)) or [(), (), ()]
    return Labels(pa.table([*map(list, columns), [by] * len(cells)], schema=SCHEMA), len(ids) - len(cells))


def _text(cell: object) -> str:
    """Return a cell as text; empty for the missing values of pandas and JSON."""
    if cell is None or cell != cell:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else str(cell).strip()


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _label(text: str, known: Mapping[str, str]) -> str | None:
    """Return the class or the number of a text, or None. Whole numbers may have decimals, as pandas writes them."""
    number = _number(text)
    if not known:
        return None if number is None else repr(number)
    whole = f"{number:.0f}" if number is not None and number.is_integer() else text
    return known.get(text.casefold(), known.get(whole))


def read_labels(store: Store, project: str, day: str) -> pd.DataFrame:
    """Return the labels that arrived on a day; of several for one row, the last. Raises StoreError."""
    infos = sorted(store.list_objects(labels_prefix(project, day)), key=lambda info: (info.modified, info.key))
    tables = [pq.read_table(io.BytesIO(store.read(info.key).data)) for info in infos]
    frame = pa.concat_tables(tables).to_pandas() if tables else SCHEMA.empty_table().to_pandas()
    return frame.drop_duplicates(["prediction_id", "row"], keep="last")
