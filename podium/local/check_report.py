"""What a run that checks itself has seen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import click


@dataclass
class CheckReport:
    """What was checked, and the figures."""

    lines: list[tuple[bool, str]] = field(default_factory=list)
    figures: dict[str, float | int | str] = field(default_factory=dict)

    def check(self, right: bool, text: str) -> None:
        self.lines.append((right, text))
        click.secho(f"{'✓' if right else '✗'} {text}", fg=None if right else "red", err=True)

    def figure(self, name: str, value: float | int | str) -> None:
        self.figures[name] = round(value, 3) if isinstance(value, float) else value

    @property
    def wrong(self) -> int:
        return sum(not right for right, _ in self.lines)

    def as_dict(self) -> dict[str, object]:
        return {"wrong": self.wrong, "figures": self.figures, "checks": self.lines}

    def say(self, as_json: bool) -> None:
        """The figures, and how many checks were right."""
        if as_json:
            click.echo(json.dumps(self.as_dict(), indent=1))
            return
        width = max(map(len, self.figures))
        for name, value in self.figures.items():
            click.echo(f"  {name.replace('_', ' '):<{width}}  {value}")
        click.echo(f"{len(self.lines) - self.wrong} right, {self.wrong} wrong")
