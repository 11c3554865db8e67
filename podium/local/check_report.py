"""Results of the checks and measurements of a smoke or acceptance run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import click


@dataclass
class CheckReport:
    """The results of the checks, in order, and the measurements by name."""

    checks: list[tuple[bool, str]] = field(default_factory=list)
    figures: dict[str, float | int | str] = field(default_factory=dict)

    def check(self, passed: bool, text: str) -> None:
        """Record a check and print it to standard error."""
        self.checks.append((passed, text))
        click.secho(f"{'✓' if passed else '✗'} {text}", fg=None if passed else "red", err=True)

    def figure(self, name: str, value: float | int | str) -> None:
        """Record a measurement."""
        self.figures[name] = round(value, 3) if isinstance(value, float) else value

    @property
    def failed(self) -> int:
        return sum(not passed for passed, _ in self.checks)

    def as_dict(self) -> dict[str, object]:
        return {"failed": self.failed, "figures": self.figures, "checks": self.checks}

    def print_summary(self, as_json: bool) -> None:
        """Print the measurements and the number of passed and failed checks."""
        if as_json:
            click.echo(json.dumps(self.as_dict(), indent=1))
            return
        width = max(map(len, self.figures), default=0)
        for name, value in self.figures.items():
            click.echo(f"  {name.replace('_', ' '):<{width}}  {value}")
        click.echo(f"{len(self.checks) - self.failed} passed, {self.failed} failed")
