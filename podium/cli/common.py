"""Options, exit codes and error reporting shared by the commands."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from podium.importers.errors import ImportRefused
from podium.inference.served_model import UnknownModel
from podium.prediction_log.replay import replay_gate
from podium.project import BadProject
from podium.registry import provenance
from podium.registry.actors import signed_name
from podium.registry.audit_log import AliasMoved
from podium.registry.promotion import GateFailed, PromotionContext
from podium.registry.signing import BadKey, Signer
from podium.registry.versions import fetch_from
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError

PATIENCE_SECONDS = 3.0
"""Timeout of store requests in read-only commands; each request is sent at most twice."""
CONFIGURATION_ERROR, REJECTED, CHAMPION_CHANGED, STORE_ERROR = 1, 3, 4, 5
"""Exit codes; click itself uses 2 for wrong usage."""
EXIT_CODES: dict[type[Exception], int] = {
    GateFailed: REJECTED,
    ImportRefused: REJECTED,
    AliasMoved: CHAMPION_CHANGED,
    BadKey: CONFIGURATION_ERROR,
    BadProject: CONFIGURATION_ERROR,
}
Command = TypeVar("Command", bound=Callable[..., None])

json_option = click.option("--json", "as_json", is_flag=True, help="JSON output")


def report_errors(command: Command) -> Command:
    """Print expected errors as one message and exit with their code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (StoreError, BadKey, BadProject, ImportRefused, UnknownModel) as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(EXIT_CODES.get(type(error), STORE_ERROR)) from None

    return run  # type: ignore[return-value]


def echo_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1))


def context_from_settings(signing: bool) -> PromotionContext:
    """Return a promotion context configured from the environment; only `signing` needs a signing key. Raises BadKey."""
    settings = StoreSettings()
    store = settings.store() if signing else settings.store(PATIENCE_SECONDS)
    signer = settings.signer() if signing else Signer.new()
    by = signed_name(provenance.actor(settings.actor), signer)
    fetch = fetch_from(store)
    return PromotionContext(store, settings.trust(), signer, by, fetch, rules=settings.rules_for, replay=replay_gate)
