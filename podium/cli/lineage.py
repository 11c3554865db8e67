"""`podium lineage`: where versions come from, and what came from them."""

from __future__ import annotations

from dataclasses import asdict

import click

from podium.cli.common import context_from_settings, echo_json, json_option, report_errors
from podium.formatting import count
from podium.prediction_log.lineage import VersionLineage, lineage


@click.command("lineage")
@click.argument("project")
@click.argument("name", default="")
@json_option
@report_errors
def lineage_(project: str, name: str, as_json: bool) -> None:
    """Show the data, the parent, the retrainings, the promotions and the logged predictions of versions.

    NAME is a version, or the SHA-256 of a data snapshot or its start; by default, all versions are shown.
    """
    context = context_from_settings(signing=False)
    found = lineage(context.store, context.trust, project, name)
    echo_json([asdict(each) for each in found]) if as_json else click.echo("\n\n".join(map(_text, found)))


def _text(each: VersionLineage) -> str:
    days = ", ".join(f"{day} ({count(files, 'file')})" for day, files in sorted(each.logged.items()))
    facts = {
        "data": f"{each.source}, snapshot {each.snapshot[:12]}",
        "run": each.run,
        "parent": each.parent,
        "children": ", ".join(each.children),
        "retrained": ", ".join(each.retrains),
        "history": "; ".join(each.promotions),
        "predictions": days,
    }
    return "\n".join([each.version, *(f"  {name:<12} {text or 'none'}" for name, text in facts.items())])
