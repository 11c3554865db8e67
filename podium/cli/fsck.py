"""`podium fsck`."""

from __future__ import annotations

import click

from podium.cli.common import PATIENCE_SECONDS, STORE_ERROR, echo_json, json_option, report_errors
from podium.formatting import count
from podium.registry.fsck import fsck
from podium.settings import StoreSettings


@click.command("fsck")
@json_option
@report_errors
def fsck_(as_json: bool) -> None:
    """Check the whole bucket for inconsistencies.

    Exits with code 5 if there are any.
    """
    settings = StoreSettings()
    inconsistencies = fsck(settings.store(PATIENCE_SECONDS), settings.trust())
    if as_json:
        echo_json(inconsistencies)
    else:
        for line in inconsistencies:
            click.echo(line)
        total = count(len(inconsistencies), "inconsistency", "inconsistencies") if inconsistencies else "No inconsistencies"
        click.echo(f"{total} found", err=True)
    raise SystemExit(STORE_ERROR if inconsistencies else 0)
