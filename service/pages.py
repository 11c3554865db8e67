"""The pages, rendered from what serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from podium.inference.served_model import ServedModel
from podium.inference.table_rows import ROWS_FIELD
from podium.registry.audit_entry import AuditEntry
from podium.registry.versions import REPORT_FILE, Manifest
from podium.schema.columns import Column, Panel, Signature
from podium.schema.data_errors import Problem
from service.json_schemas import describe_inputs
from service.responses import one_prediction

SHOWN_ROWS = 100
MAX_CHOICES = 200


class Pages:
    """Jinja templates with escaping on; no page needs a script."""

    def __init__(self, folder: Path) -> None:
        self._pages = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        self._pages.filters["figure"] = _figure

    def index(self, snapshots: Sequence[ServedModel], evicted: Sequence[str] = ()) -> str:
        return self._pages.get_template("index.html").render(snapshots=snapshots, evicted=evicted, title=_title)

    def page(self, name: str, **values: Any) -> str:
        """Any template with its values."""
        return self._pages.get_template(name).render(**values)

    def docs(self) -> str:
        return self._pages.get_template("docs.html").render()

    def job(self, facts: Mapping[str, Any]) -> str:
        """How far a job is; the page asks again by itself until it is done."""
        return self._pages.get_template("job.html").render(job=facts, title=facts["project"])

    def card(self, card: Mapping[str, Any]) -> str:
        return self._pages.get_template("card.html").render(card=card)

    def status(self, status: Mapping[str, Any]) -> str:
        return self._pages.get_template("status.html").render(status=status)

    def versions(
        self,
        snapshot: ServedModel,
        manifests: Sequence[Manifest],
        acts: Sequence[AuditEntry],
        swaps: Sequence[Mapping[str, Any]],
    ) -> str:
        """What there is, what was done and why, the newest first."""
        rows = version_facts(snapshot, manifests, acts)
        page = self._pages.get_template("versions.html")
        return page.render(title=_title(snapshot), project=snapshot.project, versions=rows, acts=acts, swaps=swaps)

    def project(
        self,
        snapshot: ServedModel,
        values: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
        result: dict[str, Any] | None = None,
        single: bool = False,
    ) -> str:
        """The project page, with a result or with the problems of the last try."""
        names = set(snapshot.signature.names) if not snapshot.signature.panel else set()
        at_field = {
            problem.column: problem for problem in problems if problem.column in names and (problem.row or 1) == 1 and values
        }
        return self._pages.get_template("project.html").render(
            snapshot=snapshot,
            title=_title(snapshot),
            fields=[_field(column) for column in snapshot.signature.inputs] if not snapshot.signature.panel else [],
            panel=snapshot.signature.panel,
            values=values or {},
            problems=[problem for problem in problems if problem not in at_field.values()],
            at_field=at_field,
            board=snapshot.manifest.leaderboard,
            models=_models(snapshot, result) if result and single else None,
            table=_rows(result, reorder=not snapshot.signature.panel) if result and not single else None,
            result=result,
            has_report=REPORT_FILE in snapshot.manifest.files,
            imported=_imported(snapshot.manifest.data),
        )


def _imported(data: Mapping[str, Any]) -> str:
    """Where an imported model came from; nothing for one that was trained here."""
    if "compared" not in data:
        return ""
    return (
        f"Imported from {data['file']} ({data['kind']}). Compared with the original on {data['compared']} rows, it differs by "
        f"{data['largest_difference']:.2g} at most."
    )


def version_facts(snapshot: ServedModel, manifests: Sequence[Manifest], acts: Sequence[AuditEntry]) -> list[dict[str, Any]]:
    """State, score and author of each version, for the page and for programs."""
    return [_version(manifest, manifest.version == snapshot.version, acts) for manifest in manifests]


def _version(manifest: Manifest, serving: bool, acts: Sequence[AuditEntry]) -> dict[str, Any]:
    best = manifest.leaderboard[0]
    told = next((act.action for act in acts if act.version == manifest.version and act.action in ("refuse", "retire")), "")
    return {
        "version": manifest.version,
        "state": "in service" if serving else {"refuse": "refused", "retire": "retired"}.get(told, ""),
        "model": manifest.champion,
        "score": best["score_test"],
        "low": best["ci_low"],
        "high": best["ci_high"],
        "created": manifest.created,
        "author": manifest.author,
    }


def example_of(signature: Signature) -> dict[str, str]:
    """A record in the texts of a form, from the middle of each range and the first of each category."""
    if signature.panel:
        return {ROWS_FIELD: _example_rows(signature.panel)}
    return {column.name: _example(column) for column in signature.inputs}


def _example_rows(panel: Panel) -> str:
    """As many days of one entity as a model sees, the last ones of the training."""
    time = panel.time_column
    lines = [",".join(column.name for column in panel.columns)]
    for day in range(panel.lags, -1, -1):
        here = replace(time, low=(time.high or 0.0) - day, high=(time.high or 0.0) - day)
        lines.append(",".join(_example(here if column is time else column) for column in panel.columns))
    return "\n".join(lines)


def _example(column: Column) -> str:
    if column.is_text:
        return column.categories[0] if column.categories else "text"
    if column.kind == "boolean":
        return "true" if column.high else "false"
    middle = ((column.low or 0.0) + (column.high or 0.0)) / 2
    if column.kind == "date":
        return (date(1970, 1, 1) + timedelta(days=round(middle))).strftime(column.date_format)
    return f"{middle:.0f}" if column.kind == "integer" else f"{middle:.3g}"


def _title(snapshot: ServedModel) -> str:
    return str(snapshot.manifest.configuration.get("title") or snapshot.project)


def _field(column: Column) -> dict[str, Any]:
    """How a column is asked for."""
    kinds = {"number": "number", "integer": "number", "boolean": "choice", "date": "date", "category": "choice"}
    kind = kinds[column.kind]
    choices = ["true", "false"] if column.kind == "boolean" else list(column.categories)
    odd_date = column.kind == "date" and column.date_format != "%Y-%m-%d"
    if len(choices) > MAX_CHOICES or odd_date or column.number_format != "plain":
        kind = "text"
    return {
        "name": column.name,
        "kind": kind,
        "step": "1" if column.kind == "integer" else "any",
        "choices": choices,
        "unit": column.unit,
        "required": not column.nullable,
        "hint": _range(column) if not column.is_text and column.kind != "boolean" else "",
        "help": describe_inputs(column),
    }


def _range(column: Column) -> str:
    if column.low is None or column.high is None:
        return ""
    return f"{column.format_value(column.low)} – {column.format_value(column.high)}"


def _models(snapshot: ServedModel, result: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a model for a single record, the champion first."""
    target = snapshot.signature.target
    return [
        {
            "family": family,
            "champion": family == snapshot.champion,
            **one_prediction(list(map(float, rows[0])), target, snapshot.half_width(family)),
        }
        for family, rows in result["scores"].items()
    ]


def _rows(result: dict[str, Any], *, reorder: bool) -> dict[str, Any]:
    """The first rows, what was predicted before what came."""
    table = result["table"]
    names = table.column_names
    place = names.index(result["champion_column"]) if reorder else 0
    table = table.select([*names[place:], *names[:place]])
    shown = table.slice(0, SHOWN_ROWS)
    return {
        "count": table.num_rows,
        "shown": shown.num_rows,
        "names": table.column_names,
        "rows": list(zip(*shown.to_pydict().values(), strict=True)),
    }


def _figure(value: object) -> str:
    """Numbers to four digits or to the unit, everything else as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return "" if value is None else str(value)
