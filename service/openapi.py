"""The live signature in the service's own description."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from podium.data.columns import Column
from podium.predict.inputs import ROWS
from podium.predict.snapshot import Snapshot
from service.live import Live

TYPES = {"number": "number", "integer": "integer", "boolean": "boolean", "date": "string", "category": "string"}
MOST_LEVELS = 200


def record_schema(snapshot: Snapshot) -> dict[str, Any]:
    """JSON Schema of one record; ranges are those of the training rows, outside of which an answer carries a warning."""
    columns, panel = snapshot.signature.asked, snapshot.signature.panel
    days = f" Send all rows of an entity: {panel.steps + 1} days are needed to predict the next." if panel else ""
    return {
        "title": f"{snapshot.project} record",
        "description": f"Inputs of version {snapshot.version}, in training order.{days}",
        "type": "object",
        "properties": {column.name: _property(column) for column in columns},
        "required": [column.name for column in columns if not column.nullable],
        "additionalProperties": False,
        "x-version": snapshot.version,
        "x-target": snapshot.signature.target.name,
        "x-classes": list(snapshot.signature.target.classes),
    }


def _property(column: Column) -> dict[str, Any]:
    kinds = [TYPES[column.kind], *(["string"] if column.notation != "plain" else []), *(["null"] if column.nullable else [])]
    schema: dict[str, Any] = {"type": kinds if len(kinds) > 1 else kinds[0], "description": describe(column)}
    if column.is_text and len(column.categories) <= MOST_LEVELS:
        schema["examples"] = list(column.categories[:5])
    return schema


def describe(column: Column) -> str:
    """A sentence for people: unit, range or categories."""
    unit = f" in {column.unit}" if column.unit else ""
    if column.is_text:
        known = ", ".join(column.categories[:12]) + (", …" if len(column.categories) > 12 else "")
        return f"One of: {known}"
    if column.low is None or column.high is None:
        return column.kind + unit
    if column.kind == "date":
        low, high = (date(1970, 1, 1) + timedelta(days=number) for number in (column.low, column.high))
        return f"date of the form {column.format}, trained on {low} to {high}"
    return f"{column.words}{unit}, trained on {column.low:g} to {column.high:g}"


PROJECT = {"name": "project", "in": "path", "required": True, "schema": {"type": "string"}}


def install_openapi(app: FastAPI, live: Live) -> None:
    """Describe the paths once and the live signatures at every call."""
    paths: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        if not paths:
            paths.update(get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes))
        schemas = {**paths.get("components", {}).get("schemas", {})}
        records = {f"record-{snapshot.project}": record_schema(snapshot) for snapshot in live.all()}
        operations = {**paths["paths"]}
        for path in [path for path in operations if path.endswith(("/predict", "/batch"))]:
            ways = {**operations[path], "post": {**operations[path]["post"], "requestBody": _body(list(records))}}
            named = [PROJECT] if "{project}" in path else []
            operations[path] = {way: {**own, "parameters": [*named, *own.get("parameters", [])]} for way, own in ways.items()}
        for snapshot in live.all():
            own = {**operations["/projects/{project}/predict"]["post"], "requestBody": _body([f"record-{snapshot.project}"])}
            own["parameters"] = [p for p in own.get("parameters", []) if p["name"] != "project"]
            own |= {"operationId": f"predict-{snapshot.project}", "summary": f"Predict {snapshot.signature.target.name}"}
            asked = {key: value for key, value in own.items() if key != "requestBody"}
            asked |= {"operationId": f"ask-{snapshot.project}", "summary": f"{snapshot.signature.target.name} of one record"}
            asked |= {"parameters": [*own["parameters"], *_query(snapshot)]}
            operations[f"/projects/{snapshot.project}/predict"] = {"get": asked, "post": own}
        return {**paths, "paths": operations, "components": {**paths.get("components", {}), "schemas": {**schemas, **records}}}

    app.openapi = described  # type: ignore[method-assign]


def _query(snapshot: Snapshot) -> list[dict[str, Any]]:
    """A record's fields as parameters, or a panel's rows."""
    if snapshot.signature.panel:
        rows = {"type": "string", "description": "the rows as CSV, with a header line"}
        return [{"name": ROWS, "in": "query", "required": True, "schema": rows}]
    schema = record_schema(snapshot)
    return [
        {"name": name, "in": "query", "required": name in schema["required"], "schema": field}
        for name, field in schema["properties"].items()
    ]


def _body(records: list[str]) -> dict[str, Any]:
    one = [{"$ref": f"#/components/schemas/{name}"} for name in records] or [{"type": "object"}]
    array = {"type": "array", "description": "values in training order, or a list of records"}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [*one, array]}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
