"""`podium monitor`: the report of a day that has not ended."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click

from podium.cli.common import context_from_settings, echo_json, json_option, report_errors
from podium.monitoring.daily_report import Reporter
from podium.monitoring.report_text import report_text
from podium.prediction_log.verification import loader
from podium.registry.loading import fetcher
from podium.storage.model_cache import ModelCache
from podium.storage.reports import latest_report


@click.command("monitor")
@click.argument("project")
@json_option
@report_errors
def monitor_(project: str, as_json: bool) -> None:
    """Print the report of today (UTC) so far: volume, drift and errors. Nothing is stored, and no alarm is sent.

    Days that have ended are reported by `luigi --module luigi_tasks Monitor --project PROJECT --local-scheduler`.
    """
    context, today = context_from_settings(signing=False), f"{datetime.now(UTC):%Y-%m-%d}"
    with tempfile.TemporaryDirectory() as folder:
        fetch = fetcher(context.store, ModelCache(Path(folder)))
        reporter = Reporter(context.store, loader(fetch, context.trust.trainers.past), fetch)
        report = reporter.report(project, today, latest_report(context.store, project))
    if as_json:
        echo_json(report)
    else:
        click.echo(report_text(report))
