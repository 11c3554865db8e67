"""Jinja filters for the pages: numbers, times, data problems and states as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from podium import formatting
from podium.schema.data_errors import Problem

SUGGESTION = re.compile(r"did you mean [^?)]*")


def problem_parts(problem: Problem | Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a data problem as a sentence in three parts: before the column name, the name, and after it."""
    fields = asdict(problem) if isinstance(problem, Problem) else dict(problem)
    code, message, expected = fields["code"], str(fields["message"]), str(fields.get("expected") or "")
    column, row = str(fields.get("column") or ""), fields.get("row")
    before = f"Row {row}{', ' if column else ''}" if row else ""
    if code == "unknown-field" and column:
        suggestion = SUGGESTION.search(message)
        return "Unknown column ", column, f". D{suggestion[0][1:]}?".replace("`", "") if suggestion else ". Remove it."
    if code == "missing-field" and column:
        details = f" ({expected})" if expected else ""
        return (before, column, f": required{details}") if row else ("Missing column ", column, details)
    if not before and not column:
        message = message[:1].upper() + message[1:]
    elif code == "invalid-type" and expected:
        return before, column, f": expected {expected}"
    else:
        message = f": {message}"
    return before, column, f"{message} (expected: {expected})" if expected and expected not in message else message


def field_error(problem: Problem) -> str:
    """Return the error message for a form field: what to enter, if known."""
    if problem.code == "missing-field":
        return f"Required: enter {problem.expected}"
    if problem.code == "invalid-type" and problem.expected:
        return f"Enter {problem.expected}"
    text = problem.message[:1].upper() + problem.message[1:]
    return f"{text}: {problem.expected}" if problem.expected and problem.expected not in problem.message else text


def warning_text(warning: Problem) -> str:
    """Return an input warning as text for the page."""
    column = f"Row {warning.row}, {warning.column}" if warning.row and warning.row > 1 else str(warning.column)
    if warning.code == "out-of-training-range":
        usual = (warning.expected or "").replace(" to ", " – ")
        return f"{column} is outside the training range ({usual}); the model is extrapolating."
    if warning.code == "unknown-category":
        return f"{column}: this category does not occur in the training data."
    return f"{column}: {warning.message}."


def data_source(data: Mapping[str, Any]) -> str:
    """Return where the training data came from, with its size and digest."""
    known = {"url", "file", "rows", "sha256"}
    details = [formatting.count(data["rows"], "row")] if data.get("rows") is not None else []
    details += [f"sha256 {str(data['sha256'])[:12]}…"] if data.get("sha256") else []
    details += [f"{key.replace('_', ' ')} {formatting.format_number(value)}" for key, value in data.items() if key not in known]
    source = str(data.get("url") or data.get("file") or "n/a")
    return f"{source} ({', '.join(details)})" if details else source


def dask_state(state: Mapping[str, Any]) -> str:
    """Return the state of the Dask cluster in words."""
    if state["mode"] == "cluster":
        counts = (("workers", "worker", ""), ("batches", "batch", "batches"), ("fallbacks", "fallback", ""))
        return ", ".join(["cluster", *(formatting.count(state[key], noun, plural) for key, noun, plural in counts)])
    return " ".join([str(state["mode"]), *(f"({state[key]})" for key in ("error",) if key in state)])


FILTERS: dict[str, Callable[..., Any]] = {
    "action_label": formatting.action_label,
    "age": formatting.format_age,
    "count": formatting.count,
    "dask_state": dask_state,
    "data_source": data_source,
    "duration": formatting.format_duration,
    "field_error": field_error,
    "gate_label": formatting.gate_label,
    "interval": formatting.format_interval,
    "metric_label": formatting.metric_label,
    "number": formatting.format_number,
    "problem_parts": problem_parts,
    "score": formatting.format_score,
    "size": formatting.format_size,
    "time": formatting.format_time,
    "warning_text": warning_text,
}
TESTS: dict[str, Callable[..., bool]] = {"error_metric": formatting.is_error_metric}
