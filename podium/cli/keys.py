"""`podium keys`: keys for signing versions and promotions."""

from __future__ import annotations

import base64
import json
import secrets
import shlex

import click

from podium.cli.common import echo_json, json_option
from podium.registry.signing import Signer


@click.group()
def keys() -> None:
    """Create keys that sign versions and promotions."""


@keys.command()
@click.option("--all", "all_secrets", is_flag=True, help="also the other secrets of a deployment, and S3 credentials")
@json_option
def new(all_secrets: bool, as_json: bool) -> None:
    """Create an Ed25519 key pair and print it as environment variables.

    The first variable is secret: only trainers and promoters need it. Every service and command needs the second one.

    \b
    podium keys new
    podium keys new --all > deploy/compose/.env
    """
    signer = Signer.new()
    variables = {"PODIUM_SIGNING_KEY": signer.private, "PODIUM_TRAINER_KEYS": json.dumps([signer.public])}
    if all_secrets:
        variables |= _other_secrets()
    if as_json:
        return echo_json(variables)
    click.echo("\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()))


def _other_secrets() -> dict[str, str]:
    log = Signer.new()
    webhook_keys = ["whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2)]
    return {
        "PODIUM_LOG_KEY": log.private,
        "PODIUM_LOG_KEYS": json.dumps([log.public]),
        "PODIUM_API_KEYS": json.dumps({"client": secrets.token_urlsafe(24)}),
        "PODIUM_REFRESH_SECRETS": json.dumps(webhook_keys[:1]),
        "PODIUM_ALARM_SECRET": webhook_keys[1],
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
    }
