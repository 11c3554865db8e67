"""A command group that imports each command on first use, so that a command needs only its own optional dependencies."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A click group; `lazy_commands` maps command names to "module:attribute"."""

    def __init__(self, *arguments: Any, lazy_commands: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy_commands = lazy_commands

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *self._lazy_commands})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._lazy_commands:
            return super().get_command(context, name)
        module, attribute = self._lazy_commands[name].split(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            return _unavailable(name, str(error.name))
        return command


def _unavailable(name: str, package: str) -> click.Command:
    message = f"needs the package {package}: install podium[serve], podium[train], podium[import] or podium[local]"

    def fail() -> None:
        raise click.ClickException(f"`{name}` {message}")

    return click.Command(
        name, callback=fail, help=f"Not available: {message}.", context_settings={"ignore_unknown_options": True}
    )
