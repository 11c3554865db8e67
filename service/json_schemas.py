"""JSON Schemas of the requests and responses of the deployed models."""

from __future__ import annotations

from datetime import date
from typing import Any

from podium.inference.served_model import ServedModel
from podium.schema.columns import Column, format_date

TYPES = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "date": "string",
    "category": "string",
    "text": "string",
}
MAX_CATEGORIES = 200
MAX_LISTED_CATEGORIES = 12
CELL = {"type": ["string", "number", "boolean", "null"]}
UNIX_EPOCH = date(1970, 1, 1)


def record_schema(served: ServedModel) -> dict[str, Any]:
    """Return the schema of one record; ranges are those of the training rows, and values outside them get a warning."""
    columns, panel = served.signature.request_columns, served.signature.panel
    days = f" Send all rows of an entity: {panel.lags + 1} days are needed to predict the next day." if panel else ""
    return {
        "title": f"{served.project} record",
        "description": f"Inputs of version {served.version}, in training order.{days}",
        "type": "object",
        "properties": {column.name: _property(column) for column in columns},
        "required": [column.name for column in columns if not column.nullable],
        "additionalProperties": False,
        "examples": [example_record(served)],
        "x-version": served.version,
        "x-target": served.signature.target.name,
        "x-classes": list(served.signature.target.classes),
    }


def _property(column: Column) -> dict[str, Any]:
    types = [
        "number" if column.kind == "integer" and not column.require_whole else TYPES[column.kind],
        *(["string"] if column.has_number_format else []),
        *(["null"] if column.nullable else []),
    ]
    schema: dict[str, Any] = {"type": types if len(types) > 1 else types[0], "description": describe_column(column)}
    if column.kind == "date" and column.date_format == "%Y-%m-%d":
        schema["format"] = "date"
    if column.is_text and len(column.categories) <= MAX_CATEGORIES:
        schema["examples"] = list(column.categories[:5])
    return schema


def describe_column(column: Column) -> str:
    """Return the kind, unit and training values of a column as one phrase."""
    values = training_values(column)
    if column.kind == "text":
        return "free text, of which the frequent words count"
    if column.is_text:
        return f"One of: {values}" if values else "text"
    if column.kind == "boolean":
        return values
    kind = f"date in the format {column.date_format}" if column.kind == "date" else column.display_kind
    unit = f" in {column.unit}" if column.unit else ""
    return f"{kind}{unit}, trained on {values}" if values else f"{kind}{unit}"


def training_values(column: Column) -> str:
    """Return the training range of a column, or its first categories; empty if neither is known."""
    if column.is_text:
        hidden = len(column.categories) - MAX_LISTED_CATEGORIES
        shown = ", ".join(column.categories[:MAX_LISTED_CATEGORIES])
        return f"{shown}, … +{hidden} more" if hidden > 0 else shown
    if column.kind == "boolean":
        return "true or false"
    if column.low is None or column.high is None:
        return ""
    return f"{column.format_value(column.low)} to {column.format_value(column.high)}"


def example_record(served: ServedModel) -> dict[str, Any]:
    """Return a synthetic record, never a row of the data."""
    return {column.name: example_value(column) for column in served.signature.request_columns}


def example_value(column: Column) -> str | float | bool:
    """Return the middle of a column's training range, or its first category."""
    if column.is_text:
        return column.categories[0] if column.categories else "text"
    if column.kind == "boolean":
        return bool(column.high)
    middle = ((column.low or 0.0) + (column.high or 0.0)) / 2
    if column.kind == "date":
        return format_date(middle if column.low == column.high else round(middle), column.strptime_format)
    return round(middle) if column.kind == "integer" else float(f"{middle:.3g}")


def records_schema(record: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a request body: a record, or a list of records or of value arrays."""
    row = {"type": "array", "items": CELL, "description": "the values of a record in training order"}
    items = {"anyOf": [record, row, CELL]}
    return {"anyOf": [record, {"type": "array", "items": items, "minItems": 1, "description": "records or arrays of values"}]}


def prediction_schemas(served: ServedModel) -> dict[str, dict[str, Any]]:
    """Return the schemas of a project's responses: one model's prediction, one record's predictions, and the response."""
    project, target = served.project, served.signature.target
    by_model, by_record, response = (f"{name}-{project}" for name in ("model-prediction", "prediction", "predictions"))
    properties = _prediction_properties(served)
    details = {"type": "array", "items": _ref("ProblemDetail")}
    record_properties = {
        **properties,
        "models": {"type": "object", "additionalProperties": _ref(by_model), "description": "predictions by model name"},
        "inputs": {"type": "object", "description": "with ?inputs=true, the parsed inputs"},
        "explanation": _ref("Explanation"),
        "errors": {**details, "description": "with ?on_error=row, why this row has no prediction"},
    }
    texts = {name: {"type": "string"} for name in ("project", "version", "model", "prediction_id")}
    lists = {"predictions": {"type": "array", "items": _ref(by_record)}, "warnings": details}
    return {
        by_model: {"type": "object", "properties": properties, "description": f"{target.name} predicted by one model"},
        by_record: {"type": "object", "properties": record_properties, "description": f"{target.name} of one record"},
        response: {"type": "object", "properties": {**texts, **lists}, "required": [*texts, *lists]},
    }


def _prediction_properties(served: ServedModel) -> dict[str, Any]:
    signature, number = served.signature, {"type": ["number", "null"]}
    if panel := signature.panel:
        keys = {panel.entity: {"type": "string"}, "index": {"type": "integer"}, panel.time: {"type": ["string", "integer"]}}
        return {**keys, "prediction": number, "step": number, "actual": number}
    classes = signature.target.classes
    if not classes:
        description = "90% prediction interval"
        interval = {"type": "array", "items": number, "minItems": 2, "maxItems": 2, "description": description}
        return {"prediction": number, "interval": interval}
    label_type = "integer" if all(isinstance(label, int) for label in classes) else "string"
    probabilities = {"type": "object", "additionalProperties": {"type": ["number", "null"]}, "description": "by class"}
    return {"prediction": {"type": label_type, "examples": list(classes[:5])}, "probabilities": probabilities}


def _ref(component: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{component}"}


def query_parameters(served: ServedModel) -> list[dict[str, Any]]:
    """Return a record's fields as query parameters, each with the first of its types."""
    schema = record_schema(served)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema["required"],
            "schema": {**field, "type": _first_type(field["type"])},
        }
        for name, field in schema["properties"].items()
    ]


def _first_type(types: str | list[str]) -> str:
    return types if isinstance(types, str) else types[0]
