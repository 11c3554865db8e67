"""`podium keys`: keys for signing versions and promotions."""

from __future__ import annotations

import json

import click

from podium.registry.signing import Signer


@click.group()
def keys() -> None:
    """Create keys that sign versions and promotions."""


@keys.command()
def new() -> None:
    """Create an Ed25519 key pair and print it as environment variables.

    The first variable is secret: only trainers and promoters need it. Every service and command needs the second one.
    """
    signer = Signer.new()
    click.echo(f"PODIUM_SIGNING_KEY={signer.private}\nPODIUM_TRAINER_KEYS='{json.dumps([signer.public])}'")
