"""Jinja filters of the pages: numbers, times, data problems and states as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from markupsafe import Markup, escape

from podium import formatting
from podium.schema.data_errors import Problem

SUGGESTION = re.compile(r"did you mean [^?)]*")


def problem_html(problem: Problem | Mapping[str, Any]) -> Markup:
    """Return a data problem as a sentence: where it is, what is wrong and what is expected."""
    fields = asdict(problem) if isinstance(problem, Problem) else dict(problem)
    code, message, expected = fields["code"], str(fields["message"]), fields.get("expected")
    column = Markup("<b>{}</b>").format(fields["column"]) if fields.get("column") else Markup()
    row = f"Row {fields['row']}" if fields.get("row") else ""
    where = Markup(", ").join(part for part in (escape(row), column) if part)
    if code == "unknown-field" and column:
        suggestion = SUGGESTION.search(message)
        return Markup("Unknown column {}. {}").format(column, f"D{suggestion[0][1:]}?" if suggestion else "Remove it.")
    if code == "missing-field" and column:
        subject = Markup("{}: required").format(where) if row else Markup("Missing column {}").format(column)
        return Markup("{} ({})").format(subject, expected) if expected else subject
    if code == "invalid-type" and where and expected:
        return Markup("{}: expected {}").format(where, expected)
    text = Markup("{}: {}").format(where, message) if where else escape(message[:1].upper() + message[1:])
    hint = expected if expected and expected not in message else ""
    return Markup('{} <span class="faint">(expected: {})</span>').format(text, hint) if hint else text


def field_error(problem: Problem) -> str:
    """Return what to enter in a form field."""
    if problem.code == "missing-field":
        return f"Required: enter {problem.expected}"
    if problem.code == "invalid-type" and problem.expected:
        return f"Enter {problem.expected}"
    text = problem.message[:1].upper() + problem.message[1:]
    return f"{text}: {problem.expected}" if problem.expected and problem.expected not in problem.message else text


def warning_text(warning: Problem) -> str:
    """Return an input warning with its consequence."""
    column = f"Row {warning.row}, {warning.column}" if warning.row and warning.row > 1 else str(warning.column)
    if warning.code == "out-of-training-range":
        usual = (warning.expected or "").replace(" to ", " – ")
        return f"{column} is outside the training range ({usual}); the model is extrapolating."
    if warning.code == "unknown-category":
        return f"{column}: this category does not occur in the training data."
    return f"{column}: {warning.message}."


def inline_code(text: str) -> Markup:
    """Return text with its `quoted` parts as code."""
    parts = text.split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


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
    "inline_code": inline_code,
    "interval": formatting.format_interval,
    "metric_label": formatting.metric_label,
    "number": formatting.format_number,
    "problem_html": problem_html,
    "score": formatting.format_score,
    "size": formatting.format_size,
    "time": formatting.format_time,
    "warning_text": warning_text,
}
TESTS: dict[str, Callable[..., bool]] = {"error_metric": formatting.is_error_metric}
