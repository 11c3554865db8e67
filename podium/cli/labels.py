"""`podium labels`: send the true values of predictions that are known by their inputs."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import click

from podium.cli.common import REJECTED, context_from_settings, echo_json, json_option, report_errors
from podium.formatting import count
from podium.inference.champion import load_champion
from podium.prediction_log.label_keys import FoundLabels, find_predictions
from podium.schema.data_errors import BadData
from podium.storage.object_store import AlreadyExists

MAX_SHOWN_ROWS = 10


@click.command("labels")
@click.argument("project")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--days", default=30, show_default=True, type=click.IntRange(1), help="how many logged days to search")
@click.option("--dry-run", is_flag=True, help="only show what was found")
@json_option
@report_errors
def labels_(project: str, file: Path, days: int, dry_run: bool, as_json: bool) -> None:
    """Find the predictions that the labels of FILE belong to, and put a file with their ids into the inbox.

    FILE is a CSV or Parquet file with the target (or `label`) and key columns: inputs of the model, or the entity and the
    time of a panel. Files with prediction ids need no search: put them into the inbox.

    \b
    podium labels crypto actual_closes.csv
    podium labels credit defaults.csv --days 90 --dry-run
    """
    context = context_from_settings(signing=False)
    try:
        found = find_predictions(context.store, project, load_champion(context, project).signature, file.read_bytes(), days)
    except BadData as error:
        for problem in error.problems:
            click.echo(f"Error: {problem}", err=True)
        raise SystemExit(REJECTED) from None
    key = ""
    if len(found.labels) and not dry_run:
        data = found.labels.to_csv(index=False).encode()
        key = f"inbox/{project}/labels-{hashlib.sha256(data).hexdigest()[:16]}.csv"
        with contextlib.suppress(AlreadyExists):
            context.store.create(key, data)
    _report(found, days, key, as_json)
    raise SystemExit(0 if len(found.labels) else REJECTED)


def _report(found: FoundLabels, days: int, key: str, as_json: bool) -> None:
    if as_json:
        return echo_json(
            {
                "keys": list(found.keys),
                "unused": list(found.unused),
                "rows": found.rows,
                "predictions": len(found.labels),
                "unmatched": list(found.unmatched),
                "unlabelled": found.unlabelled,
                "inbox": key or None,
            }
        )
    matched = found.rows - found.unlabelled - len(found.unmatched)
    predictions = f"{count(len(found.labels), 'prediction')} of the last {count(days, 'day')}"
    lines = [
        f"{count(matched, 'row')} of {found.rows:,} match {predictions}",
        f"  by {', '.join(found.keys)}" + (f"; not used: {', '.join(found.unused)}" if found.unused else ""),
    ]
    if found.unlabelled:
        lines.append(f"  {count(found.unlabelled, 'row')} without a label")
    if found.unmatched:
        rows = ", ".join(map(str, found.unmatched[:MAX_SHOWN_ROWS])) + ", …" * (len(found.unmatched) > MAX_SHOWN_ROWS)
        lines.append(f"  {count(len(found.unmatched), 'row')} without a prediction: {rows}")
    click.echo("\n".join([*lines, f"  written to {key}" if key else "  nothing was written"]))
