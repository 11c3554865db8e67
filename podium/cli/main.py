"""The `podium` command."""

from __future__ import annotations

import click

from podium import __version__
from podium.cli.champions import champions_
from podium.cli.common import CONFIGURATION_ERROR, PATIENCE_SECONDS, STORE_ERROR, echo_json, json_option, report_errors
from podium.cli.gc import gc
from podium.cli.import_model import import_
from podium.cli.keys import keys
from podium.cli.models import models
from podium.cli.predict import predict
from podium.cli.projects import projects
from podium.formatting import count
from podium.local.commands import accept, demo, smoke
from podium.registry.fsck import fsck
from podium.registry.signing import BadKey
from podium.settings import StoreSettings
from service.server import AuthNotConfigured
from service.server import serve as run_service
from service.settings import ServiceSettings

SECRETS = {"refresh_secrets", "signing_key", "promoters", "api_keys"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def podium() -> None:
    """Train models from a table on S3 and serve the best one.

    \b
    podium demo                             try everything on this machine
    luigi --module luigi_tasks Pipeline --project NAME
                                            train, publish and promote
    podium models list NAME                 show the versions
    podium serve                            serve the champions
    podium predict --project NAME rows.csv  predict a file

    S3 is configured by the standard AWS_… variables, everything else by PODIUM_… variables (`podium config show`).

    \b
    Exit codes:
      0  success
      1  invalid configuration, or a failed check
      2  wrong usage
      3  rejected by a gate, an import check or the data validation
      4  the champion has changed in the meantime
      5  not found, object store unavailable, or damaged data
    """


@podium.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", default=8000, show_default=True, help="port to listen on")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="worker processes")
def serve(host: str, port: int, workers: int) -> None:
    """Serve the champions of all projects over HTTP.

    `podium config show` lists the settings.
    """
    try:
        run_service(ServiceSettings(), host, port, workers)
    except (BadKey, AuthNotConfigured) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(CONFIGURATION_ERROR) from None


@podium.group()
def config() -> None:
    """Show the configuration."""


@config.command("show")
@json_option
def config_show(as_json: bool) -> None:
    """List all settings with their values and origins; secrets are masked."""
    settings = ServiceSettings()
    rows = []
    for name, field in ServiceSettings.model_fields.items():
        value = getattr(settings, name)
        rows.append(
            {
                "setting": f"PODIUM_{name.upper()}",
                "value": "•••" if name in SECRETS and value else str(value),
                "origin": "environment" if name in settings.model_fields_set else "default",
                "meaning": field.description or "",
            }
        )
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        click.echo(f"{row['setting']:<26} {row['value']:<40} {row['origin']:<12} {row['meaning']}")


@podium.command("fsck")
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


models.add_command(import_)
for command in (demo, smoke, accept, models, keys, gc, champions_, predict, projects):
    podium.add_command(command)


if __name__ == "__main__":
    podium()
