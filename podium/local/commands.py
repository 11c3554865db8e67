"""`podium demo`, `podium smoke`, `podium drill` and `podium accept`."""

from __future__ import annotations

from pathlib import Path

import click

from podium.cli.common import context_from_settings, report_errors
from podium.local.acceptance import project_names, run_acceptance
from podium.local.demo import run_demo
from podium.local.drill import run_drill
from podium.local.smoke import run_smoke
from podium.settings import ROOT

DEMO_FOLDER = Path(".podium/demo")
folder_option = click.option("--folder", type=click.Path(path_type=Path), help="output folder (default: a temporary folder)")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON output")


@click.command()
@click.option("--port", default=8000, show_default=True, help="service port; falls back to a free port if in use")
@click.option("--s3-port", default=0, help="port of the embedded S3; a free port by default")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=DEMO_FOLDER,
    show_default=True,
    help="folder for the S3 data and logs, kept between runs",
)
def demo(port: int, s3_port: int, folder: Path) -> None:
    """Run a full local demo (S3, training, service) until Ctrl-C.

    \b
    podium demo --port 8000
    """
    raise SystemExit(run_demo(folder.resolve(), port, s3_port or None))


@click.command()
@folder_option
@json_option
def smoke(folder: Path | None, as_json: bool) -> None:
    """Check the whole system on this machine.

    Trains a model, calls every endpoint, and swaps models under load. Exits with code 1 if a check fails.
    """
    raise SystemExit(run_smoke(folder.resolve() if folder else None, as_json))


@click.command()
@click.argument("project")
@click.option("--seconds", default=10.0, show_default=True, help="how long the object store is away")
@json_option
@report_errors
def drill(project: str, seconds: float, as_json: bool) -> None:
    """Break a replica of this installation in the ways that happen, and report what its clients see.

    Starts a replica on this machine with the champions of the configured bucket, and lets it lose the object store, a worker,
    and events, under load. Writes nothing to the bucket. Exits with code 1 if clients would have noticed.

    \b
    podium drill credit
    """
    raise SystemExit(run_drill(context_from_settings(signing=False), project, seconds, as_json))


@click.command()
@click.argument("names", nargs=-1)
@folder_option
@json_option
def accept(names: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Check example projects from their data to their predictions.

    Runs the accept.py of the projects NAMES (default: all that have one). Exits with code 1 if a check fails.
    """
    known = project_names(ROOT / "projects")
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no accept.py for {', '.join(unknown)}; choose from {', '.join(known)}")
    raise SystemExit(run_acceptance(names or known, folder.resolve() if folder else None, as_json))
