"""`podium retrains`: what was trained again, why, and with which result."""

from __future__ import annotations

import click

from podium.cli.common import context_from_settings, echo_json, json_option, report_errors
from podium.formatting import format_interval, format_score, metric_label
from podium.registry.retrain_record import RetrainRecord, read_retrain, retrain_dates


@click.group()
def retrains() -> None:
    """List the retrainings of a project, and show one.

    \b
    podium retrains list crypto
    podium retrains show crypto 2018-01-07
    """


@retrains.command("list")
@click.argument("project")
@json_option
@report_errors
def list_(project: str, as_json: bool) -> None:
    """List all retrainings, newest last, after checking their signatures."""
    context = context_from_settings(signing=False)
    dates = retrain_dates(context.store, project)
    records = [read_retrain(context.store, project, day, context.trust.trainers.past) for day in dates]
    if as_json:
        return echo_json([record.model_dump(mode="json") for record in records])
    for record in records:
        facts = f"{record.date}  {record.trigger:<8}  {record.decision:<9}  {record.version:<26}  run {record.at[:10]}  "
        click.echo(f"{facts}{record.reason}".rstrip())
    if not records:
        click.echo(f"{project} was not retrained yet: luigi --module luigi_tasks Retrain --project {project} --date DAY")


@retrains.command()
@click.argument("project")
@click.argument("date")
@json_option
@report_errors
def show(project: str, date: str, as_json: bool) -> None:
    """Show one retraining: trigger, data, configuration, candidates, gates and decision."""
    context = context_from_settings(signing=False)
    record = read_retrain(context.store, project, date, context.trust.trainers.past)
    echo_json(record.model_dump(mode="json")) if as_json else click.echo(_text(record))


def _text(record: RetrainRecord) -> str:
    lines = [
        f"{record.project} as of {record.date}: {record.decision}{f' ({record.reason})' if record.reason else ''}",
        f"  trigger        {record.trigger}, by {record.by} at {record.at}",
        f"  version        {record.version}, trained at {record.created}, entry {record.number} of the history",
        f"  run            {record.run}",
        f"  data           snapshot {record.snapshot[:12]}; {'; '.join(record.data_changes) or 'no changes'}",
        f"  configuration  {'; '.join(record.configuration_changes) or 'no changes'}",
        f"  code           {record.git or 'unknown'}",
    ]
    for row in record.candidates:
        metric = str(row["eval_metric"])
        interval = f" ({format_interval(row['ci_low'], row['ci_high'], metric)})" if row.get("ci_low") is not None else ""
        lines.append(f"  {row['model']:<14} {metric_label(metric)} {format_score(row['score_test'], metric)}{interval}")
    lines += [f"  {'passed' if gate.passed else 'FAILED'}  {gate}" for gate in record.gates]
    return "\n".join(lines)
