"""Stage outputs as JSON and Arrow; reading them constructs only Podium's own classes."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from podium.models.encoder import FEATURE_CLASSES, Encoder
from podium.models.serialization import UnsafePickle, dump, load
from podium.schema.columns import Column
from podium.tables.labeled_rows import UnreadableRows
from podium.training.candidates import Candidate

COLUMNS = TypeAdapter(tuple[Column, ...])
FEATURES: dict[str, TypeAdapter[Any]] = {kind.__name__: TypeAdapter(kind) for kind in FEATURE_CLASSES}
MODEL, FACTS = b"model", b"facts"
MEASUREMENTS = ("score_val", "fit_time", "pred_time")


def encoder_to_json(encoder: Encoder) -> bytes:
    features = [[type(feature).__name__, FEATURES[type(feature).__name__].dump_python(feature)] for feature in encoder.features]
    return json.dumps({"columns": COLUMNS.dump_python(encoder.columns), "features": features}).encode()


def encoder_from_json(data: bytes) -> Encoder:
    """Parse the output of `encoder_to_json`. Raises UnreadableRows."""
    try:
        document = json.loads(data)
        columns = COLUMNS.validate_python(document["columns"])
        features = tuple(FEATURES[name].validate_python(fields) for name, fields in document["features"])
        if any(not 0 <= feature.column < len(columns) for feature in features):
            raise ValueError("a feature refers to a column that does not exist")
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise UnreadableRows(f"the encoder of an earlier stage cannot be read ({type(error).__name__})") from None
    return Encoder(columns, features)


def candidate_to_arrow(candidate: Candidate) -> bytes:
    """Write validation rows and scores as columns, and the model and its measurements as metadata."""
    facts = {"params": candidate.params, **{name: float(getattr(candidate, name)) for name in MEASUREMENTS}}
    scores = {str(number): column for number, column in enumerate(candidate.validation_scores.T)}
    metadata = {MODEL: dump(candidate.model), FACTS: json.dumps(facts).encode()}
    table = pa.table({"row": candidate.validation_rows, **scores}).replace_schema_metadata(metadata)
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def candidate_from_arrow(data: bytes) -> Candidate:
    """Parse the output of `candidate_to_arrow`. Raises UnreadableRows."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        table.validate(full=True)
        metadata = table.schema.metadata or {}
        facts = json.loads(metadata[FACTS])
        scores = np.column_stack([column.to_numpy() for column in table.columns[1:]]).astype(float)
        measurements = {name: float(facts[name]) for name in MEASUREMENTS}
        rows = table["row"].to_numpy().astype(np.intp)
        return Candidate(load(metadata[MODEL]), dict(facts["params"]), rows, scores, **measurements)
    except (pa.ArrowException, UnsafePickle, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UnreadableRows(f"the candidate of an earlier stage cannot be read ({error})") from None
