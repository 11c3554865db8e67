"""The HTML pages, rendered from the deployed models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from podium.inference.served_model import ServedModel
from podium.inference.table_rows import ROWS_FIELD
from podium.models.model import predicted_label
from podium.registry.audit_entry import AuditEntry
from podium.registry.versions import REPORT_FILE, Manifest
from podium.schema.columns import Column, Panel, Signature, Target
from podium.schema.data_errors import Problem
from podium.tables.frequency import shift_times, step_name
from service.json_schemas import describe_column, example_value, training_values
from service.page_filters import FILTERS, TESTS
from service.responses import json_number

MAX_SHOWN_ROWS = 100
MAX_CHOICES = 200
STATES = {"refuse": "rejected", "retire": "retired"}


class Pages:
    """Jinja templates with autoescaping; every page works without scripts."""

    def __init__(self, folder: Path) -> None:
        loader = FileSystemLoader(folder)
        self._templates = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters |= FILTERS
        self._templates.tests |= TESTS

    def page(self, name: str, **values: Any) -> str:
        """Render a template."""
        return self._templates.get_template(name).render(**values)

    def index(self, models: Sequence[ServedModel], evicted: Sequence[str] = ()) -> str:
        return self.page("index.html", projects=[_summary(served) for served in models], evicted=evicted)

    def docs(self) -> str:
        return self.page("docs.html")

    def job(self, job: Mapping[str, Any]) -> str:
        """Render the progress of a job; the page reloads itself until the job is done."""
        return self.page("job.html", job=job)

    def card(self, card: Mapping[str, Any]) -> str:
        return self.page("card.html", card=card)

    def status(self, status: Mapping[str, Any]) -> str:
        return self.page("status.html", status=status, now=datetime.now(UTC))

    def versions(
        self,
        served: ServedModel,
        manifests: Sequence[Manifest],
        history: Sequence[AuditEntry],
        swaps: Sequence[Mapping[str, Any]],
    ) -> str:
        """Render the published versions and the promotion history, newest first."""
        return self.page(
            "versions.html",
            title=_title(served),
            project=served.project,
            metric=served.manifest.leaderboard[0]["eval_metric"],
            versions=version_facts(served, manifests, history),
            history=history,
            swaps=swaps,
        )

    def project(
        self,
        served: ServedModel,
        values: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
        result: dict[str, Any] | None = None,
        single: bool = False,
    ) -> str:
        """Render the project page, with a prediction or with the errors in the submitted data."""
        signature, manifest = served.signature, served.manifest
        names = set() if signature.panel or not values else set(signature.names)
        field_errors = {problem.column: problem for problem in problems if problem.column in names and problem.row in (None, 1)}
        return self.page(
            "project.html",
            **_summary(served),
            rows=manifest.data.get("rows"),
            fields=[] if signature.panel else [_form_field(column) for column in signature.inputs],
            panel=signature.panel,
            step=step_name(signature.panel.frequency) if signature.panel else "",
            values=values or {},
            problems=[problem for problem in problems if problem not in field_errors.values()],
            field_errors=field_errors,
            board=manifest.leaderboard,
            findings=manifest.findings,
            predictions=_predictions(served, result) if result and single else None,
            table=_table(result, prediction_first=not signature.panel) if result and not single else None,
            result=result,
            has_report=REPORT_FILE in manifest.files,
            imported=_import_note(manifest.data),
            out_of_fold=manifest.is_out_of_fold,
        )


def version_facts(served: ServedModel, manifests: Sequence[Manifest], history: Sequence[AuditEntry]) -> list[dict[str, Any]]:
    """Return the state, test score and author of each version."""
    return [_version_facts(manifest, manifest.version == served.version, history) for manifest in manifests]


def _version_facts(manifest: Manifest, is_serving: bool, history: Sequence[AuditEntry]) -> dict[str, Any]:
    best = manifest.leaderboard[0]
    states = (STATES[entry.action] for entry in history if entry.version == manifest.version and entry.action in STATES)
    return {
        "version": manifest.version,
        "state": "serving" if is_serving else next(states, ""),
        "model": manifest.champion,
        "score": best["score_test"],
        "low": best["ci_low"],
        "high": best["ci_high"],
        "created": manifest.created,
        "author": manifest.author,
    }


def example_of(signature: Signature) -> dict[str, str]:
    """Return synthetic form values: the middle of each range, or the first category."""
    if signature.panel:
        return {ROWS_FIELD: _example_rows(signature.panel)}
    return {column.name: _example_text(column) for column in signature.inputs}


def _example_rows(panel: Panel) -> str:
    """Return CSV rows of one entity for as many days as the model uses, up to the last day of training."""
    days = panel.time_column
    lines = [",".join(column.name for column in panel.columns)]
    for offset in range(panel.lags, -1, -1):
        day = float(shift_times(np.array([days.high or 0.0]), panel.frequency, -offset)[0])
        columns = (replace(column, low=day, high=day) if column is days else column for column in panel.columns)
        lines.append(",".join(map(_example_text, columns)))
    return "\n".join(lines)


def _example_text(column: Column) -> str:
    value = example_value(column)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(served: ServedModel) -> str:
    return str(served.manifest.configuration.get("title") or served.project)


def _summary(served: ServedModel) -> dict[str, Any]:
    best = served.manifest.leaderboard[0]
    return {
        "project": served.project,
        "title": _title(served),
        "version": served.version,
        "champion": served.champion,
        "created": served.manifest.created,
        "target": served.signature.target,
        "features": len(served.signature.inputs),
        "metric": best["eval_metric"],
        "score": best["score_test"],
    }


def _form_field(column: Column) -> dict[str, Any]:
    """Return the form control for a column."""
    kinds = {"number": "number", "integer": "number", "boolean": "choice", "date": "date", "category": "choice", "text": "text"}
    choices = ["true", "false"] if column.kind == "boolean" else list(column.categories)
    has_own_date_format = column.kind == "date" and column.date_format != "%Y-%m-%d"
    needs_text = len(choices) > MAX_CHOICES or has_own_date_format or column.has_number_format
    return {
        "name": column.name,
        "kind": "text" if needs_text else kinds[column.kind],
        "step": "1" if column.require_whole else "any",
        "choices": choices,
        "unit": column.unit,
        "required": not column.nullable,
        "hint": "" if column.is_text or column.kind == "boolean" else training_values(column).replace(" to ", " – "),
        "help": describe_column(column),
    }


def _one_prediction(scores: Sequence[float], target: Target, half_width: float | None = None) -> dict[str, Any]:
    """Return `prediction` with `probabilities` by class or, for a regression, with the 90% prediction `interval`."""
    fields: dict[str, Any] = {"prediction": json_number(predicted_label(scores, target))}
    if target.classes:
        fields["probabilities"] = {str(label): json_number(score) for label, score in zip(target.classes, scores, strict=True)}
    elif half_width is not None:
        fields["interval"] = [json_number(scores[0] - half_width), json_number(scores[0] + half_width)]
    return fields


def _predictions(served: ServedModel, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the prediction of each model for a single record, the champion's first."""
    target = served.signature.target
    return [
        {
            "family": family,
            "champion": family == served.champion,
            **_one_prediction(list(map(float, rows[0])), target, served.half_width(family)),
        }
        for family, rows in result["scores"].items()
    ]


def _table(result: dict[str, Any], *, prediction_first: bool) -> dict[str, Any]:
    """Return the first rows of a result, with the predictions before the uploaded columns."""
    table = result["table"]
    names = table.column_names
    first = names.index(result["champion_column"]) if prediction_first else 0
    table = table.select([*names[first:], *names[:first]])
    shown = table.slice(0, MAX_SHOWN_ROWS)
    return {
        "count": table.num_rows,
        "shown": shown.num_rows,
        "names": table.column_names,
        "rows": list(zip(*shown.to_pydict().values(), strict=True)),
    }


def _import_note(data: Mapping[str, Any]) -> str:
    """Return a note on where an imported model came from; empty for a model trained by Podium."""
    if "compared" not in data:
        return ""
    note = (
        f"Imported from {data['file']} ({data['kind']}). Predictions differ from {data['reference']} by at most "
        f"{data['largest_difference']:.2g} (relative to 1 + |prediction|) on {data['compared']} rows. {data['warnings']}"
    )
    return note.strip()
