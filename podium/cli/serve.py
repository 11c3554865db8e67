"""`podium serve` and `podium config`."""

from __future__ import annotations

import click

from podium.cli.common import CONFIGURATION_ERROR, echo_json, json_option
from podium.registry.signing import BadKey
from service.server import AuthNotConfigured
from service.server import serve as run_service
from service.settings import ServiceSettings

SECRETS = {"refresh_secrets", "signing_key", "promoters", "api_keys"}


@click.command()
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


@click.group()
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
