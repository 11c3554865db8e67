"""Labels: the true values of predictions, sent when they become known, and kept as Parquet by the day of their arrival."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from podium.prediction_log.prediction_table import PREDICTION_ID
from podium.schema.columns import Target
from podium.schema.data_errors import BadData, Malformed, Problem
from podium.storage.object_store import Store

SCHEMA = pa.schema([("prediction_id", pa.string()), ("row", pa.int32()), ("label", pa.string()), ("by", pa.string())])
"""`row` is the number of the row in its request, from 1. `label` is a class, or a number as text."""


def labels_prefix(project: str, day: str) -> str:
    return f"labels/{project}/dt={day}/"


def is_label_file(data: bytes) -> bool:
    """Return whether a CSV file has labels: whether it has a column of prediction ids."""
    return b"prediction_id" in data.partition(b"\n")[0]


def read_label_file(data: bytes, target: Target, by: str) -> pa.Table:
    """Return the labels of a CSV file with the columns `prediction_id`, `label` (or the target's name) and optionally `row`.

    Raises BadData.
    """
    try:
        frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, sep=None, engine="python", encoding="utf-8-sig")
    except (ValueError, csv.Error) as error:
        raise Malformed([Problem("csv-header", f"the labels cannot be read: {error}")]) from None
    column = next((name for name in ("label", target.name) if name in frame), None)
    missing = [name for name, found in (("prediction_id", "prediction_id" in frame), ("label", column)) if not found]
    if missing:
        raise BadData([Problem("missing-field", "is required", column=name) for name in missing])
    rows = frame["row"] if "row" in frame else ["1"] * len(frame)
    return labels_table(frame["prediction_id"].tolist(), list(rows), frame[column].tolist(), target, by)


def labels_table(ids: Sequence[str], rows: Sequence[object], labels: Sequence[object], target: Target, by: str) -> pa.Table:
    """Return labels in the form in which they are kept. Raises BadData if any is not a value of the target."""
    problems, texts, numbers = [], [], []
    for position, (prediction_id, row, label) in enumerate(zip(ids, rows, labels, strict=True), 1):
        text, number = _label_text(label, target), str(row).strip()
        if not PREDICTION_ID.fullmatch(prediction_id):
            problems.append(Problem("invalid-type", "is not the id of a logged prediction", position, "prediction_id"))
        elif not number.isdecimal() or not 0 < int(number) < 1 << 31:
            problems.append(Problem("invalid-type", "is not the number of a row, from 1", position, "row"))
        elif text is None:
            classes = ", ".join(map(str, target.classes[:20]))
            problems.append(
                Problem("invalid-type", f"is not a value of {target.name}", position, "label", classes or "a number")
            )
        else:
            texts.append(text)
            numbers.append(int(number))
    if problems:
        raise BadData(problems)
    return pa.table([list(ids), numbers, texts, [by] * len(texts)], schema=SCHEMA)


def _label_text(label: object, target: Target) -> str | None:
    """Return a label as text, or None if it is not a value of the target."""
    text = str(label).lower() if isinstance(label, bool) else str(label).strip()
    if target.classes:
        return {str(known).casefold(): str(known) for known in target.classes}.get(text.casefold())
    try:
        number = float(text)
    except ValueError:
        return None
    return repr(number) if abs(number) < float("inf") else None


def read_labels(store: Store, project: str, day: str) -> pd.DataFrame:
    """Return the labels that arrived on a day; of several for one row, the last. Raises StoreError."""
    infos = sorted(store.list_objects(labels_prefix(project, day)), key=lambda info: (info.modified, info.key))
    tables = [pq.read_table(io.BytesIO(store.read(info.key).data)) for info in infos]
    frame = pa.concat_tables(tables).to_pandas() if tables else SCHEMA.empty_table().to_pandas()
    return frame.drop_duplicates(["prediction_id", "row"], keep="last")
