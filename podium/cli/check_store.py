"""`podium check-store`: whether the configured object store can be used."""

from __future__ import annotations

from dataclasses import asdict

import click

from podium.cli.common import STORE_ERROR, echo_json, json_option, report_errors
from podium.settings import StoreSettings
from podium.storage.store_check import check_store


@click.command("check-store")
@json_option
@report_errors
def check_store_(as_json: bool) -> None:
    """Check that the configured object store has what Podium needs, above all conditional writes.

    Writes a few objects under store-check/ of the bucket, which can be deleted afterwards. Exits with code 5 if something
    is missing: then versions and promotions would not be safe.
    """
    store, failed = StoreSettings().store(), 0
    checks = []
    for check in check_store(store):
        checks.append(check)
        failed += not check.passed
        if not as_json:
            click.secho(f"{'✓' if check.passed else '✗'} {check.name}{f': {check.detail}' if check.detail else ''}")
    if as_json:
        echo_json([asdict(check) for check in checks])
    elif failed:
        click.echo(f"{store.location} cannot be used: {failed} of {len(checks)} checks failed")
    else:
        click.echo(f"{store.location} can be used")
    raise SystemExit(STORE_ERROR if failed else 0)
