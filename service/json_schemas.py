"""JSON Schemas of what the models in service take and answer."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from podium.inference.served_model import ServedModel
from podium.schema.columns import Column

TYPES = {"number": "number", "integer": "integer", "boolean": "boolean", "date": "string", "category": "string"}
MAX_CATEGORIES = 200
CELL = {"type": ["string", "number", "boolean", "null"]}


def record_schema(snapshot: ServedModel) -> dict[str, Any]:
    """JSON Schema of one record; ranges are those of the training rows, outside of which an answer carries a warning."""
    columns, panel = snapshot.signature.request_columns, snapshot.signature.panel
    days = f" Send all rows of an entity: {panel.lags + 1} days are needed to predict the next." if panel else ""
    return {
        "title": f"{snapshot.project} record",
        "description": f"Inputs of version {snapshot.version}, in training order.{days}",
        "type": "object",
        "properties": {column.name: _property(column) for column in columns},
        "required": [column.name for column in columns if not column.nullable],
        "additionalProperties": False,
        "examples": [example_record(snapshot)],
        "x-version": snapshot.version,
        "x-target": snapshot.signature.target.name,
        "x-classes": list(snapshot.signature.target.classes),
    }


def _property(column: Column) -> dict[str, Any]:
    kinds = [
        TYPES[column.kind],
        *(["string"] if column.number_format != "plain" else []),
        *(["null"] if column.nullable else []),
    ]
    schema: dict[str, Any] = {"type": kinds if len(kinds) > 1 else kinds[0], "description": describe_inputs(column)}
    if column.kind == "date" and column.date_format == "%Y-%m-%d":
        schema["format"] = "date"
    if column.is_text and len(column.categories) <= MAX_CATEGORIES:
        schema["examples"] = list(column.categories[:5])
    return schema


def describe_inputs(column: Column) -> str:
    """A sentence for people: unit, range or categories."""
    unit = f" in {column.unit}" if column.unit else ""
    if column.is_text:
        known = ", ".join(column.categories[:12]) + (", …" if len(column.categories) > 12 else "")
        return f"One of: {known}"
    if column.low is None or column.high is None:
        return column.kind + unit
    if column.kind == "date":
        low, high = (date(1970, 1, 1) + timedelta(days=number) for number in (column.low, column.high))
        return f"date of the form {column.date_format}, trained on {low} to {high}"
    return f"{column.display_kind}{unit}, trained on {column.low:g} to {column.high:g}"


def example_record(snapshot: ServedModel) -> dict[str, Any]:
    """A made-up record from the middle of the ranges and of the first categories, never a row of the data."""
    return {column.name: _example(column) for column in snapshot.signature.request_columns}


def _example(column: Column) -> str | float | bool:
    if column.is_text:
        return column.categories[0] if column.categories else "text"
    if column.kind == "boolean":
        return bool(column.high)
    middle = ((column.low or 0.0) + (column.high or 0.0)) / 2
    if column.kind == "date":
        return (date(1970, 1, 1) + timedelta(days=round(middle))).strftime(column.date_format)
    return round(middle) if column.kind == "integer" else float(f"{middle:.3g}")


def records_schema(record: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of a body: one record, or a list of records or of values in training order."""
    row = {"type": "array", "items": CELL, "description": "the values of a record in training order"}
    items = {"anyOf": [record, row, CELL]}
    return {"anyOf": [record, {"type": "array", "items": items, "minItems": 1, "description": "records, or arrays of values"}]}


def prediction_schemas(snapshot: ServedModel) -> dict[str, dict[str, Any]]:
    """Components of a project's answer by name: one model's prediction, that of one record, and all of them."""
    project = snapshot.project
    one, each, all_ = (f"{name}-{project}" for name in ("model-prediction", "prediction", "predictions"))
    single = _prediction(snapshot)
    full = {**single, "models": {"type": "object", "additionalProperties": _ref(one), "description": "with several models"}}
    full["inputs"] = {"type": "object", "description": "with ?inputs=true, what the model used"}
    full["errors"] = {"type": "array", "items": _ref("ProblemDetail"), "description": "with ?on_error=row, of a wrong row"}
    texts = {name: {"type": "string"} for name in ("project", "version", "model", "prediction_id")}
    lists = {
        "predictions": {"type": "array", "items": _ref(each)},
        "warnings": {"type": "array", "items": _ref("ProblemDetail")},
    }
    return {
        one: {"type": "object", "properties": single, "description": f"{snapshot.signature.target.name} by one model"},
        each: {"type": "object", "properties": full, "description": f"{snapshot.signature.target.name} of one record"},
        all_: {"type": "object", "properties": {**texts, **lists}, "required": [*texts, *lists]},
    }


def _prediction(snapshot: ServedModel) -> dict[str, Any]:
    """The properties of one prediction."""
    signature, number = snapshot.signature, {"type": ["number", "null"]}
    if panel := signature.panel:
        keys = {panel.entity: {"type": "string"}, "index": {"type": "integer"}, panel.time: {"type": ["string", "integer"]}}
        return {**keys, "prediction": number, "step": number, "actual": number}
    classes = signature.target.classes
    if not classes:
        interval = {"type": "array", "items": number, "minItems": 2, "maxItems": 2, "description": "holds 90 % of the targets"}
        return {"prediction": number, "interval": interval}
    kind = "integer" if all(isinstance(label, int) for label in classes) else "string"
    chances = {"type": "object", "additionalProperties": {"type": ["number", "null"]}, "description": "by class"}
    return {"prediction": {"type": kind, "examples": list(classes[:5])}, "probabilities": chances}


def _ref(component: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{component}"}


def query_parameters(snapshot: ServedModel) -> list[dict[str, Any]]:
    """A record's fields as parameters of a query, where there is neither null nor a type but text."""
    schema = record_schema(snapshot)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema["required"],
            "schema": {**field, "type": _plain(field["type"])},
        }
        for name, field in schema["properties"].items()
    ]


def _plain(kinds: str | list[str]) -> str:
    return kinds if isinstance(kinds, str) else kinds[0]
