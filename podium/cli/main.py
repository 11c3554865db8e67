"""`podium` and its subcommands."""

from __future__ import annotations

import json
from pathlib import Path

import click

from podium import __version__
from podium.cli.champions import champions_
from podium.cli.check_project import Tables, check_project
from podium.cli.gc import gc
from podium.cli.import_model import import_
from podium.cli.models import PATIENCE_SECONDS, keys, models, report_errors
from podium.cli.predict import predict
from podium.local.acceptance import acceptable, run_acceptance
from podium.local.demo import run_demo
from podium.local.smoke import run_smoke
from podium.project import BadProject, load_project, project_names
from podium.registry.fsck import fsck
from podium.registry.signing import BadKey
from podium.settings import ROOT, StoreSettings
from podium.training.families import UnknownFamily
from service.server import AuthNotConfigured
from service.server import serve as run_service
from service.settings import ServiceSettings

HOME = Path(".podium")
SECRETS = {"refresh_secrets", "signing_key", "promoters", "api_keys"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def podium() -> None:
    """From a table on S3 to the best model in service.

    \b
    podium demo                     everything on this machine, until Ctrl-C
    podium predict --project NAME   rows to predictions: CSV in, CSV out
    podium serve                    the service, with S3 by the AWS_… variables
    luigi --module luigi_tasks Pipeline --project NAME
    """


@podium.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="processes that answer")
def serve(host: str, port: int, workers: int) -> None:
    """Serve every project that has a champion. Settings: `podium config show`."""
    try:
        run_service(ServiceSettings(), host, port, workers)
    except (BadKey, AuthNotConfigured) as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None


@podium.command()
@click.option("--port", default=8000, show_default=True, help="of the service; a free one when it is taken")
@click.option("--s3-port", default=0, help="of the embedded S3; a free one by default")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=HOME / "demo", show_default=True, help="keeps S3's data between demos"
)
def demo(port: int, s3_port: int, folder: Path) -> None:
    """Embedded S3, a table, the pipeline, the service: up until Ctrl-C."""
    raise SystemExit(run_demo(folder.resolve(), port, s3_port or None))


@podium.command()
@click.option("--folder", type=click.Path(path_type=Path), help="keep what it makes here; a temporary folder by default")
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON")
def smoke(folder: Path | None, as_json: bool) -> None:
    """Run the whole chain headless, call every way in, swap a model under load, and say what was seen."""
    raise SystemExit(run_smoke(folder.resolve() if folder else None, as_json))


@podium.command()
@click.argument("names", nargs=-1)
@click.option("--folder", type=click.Path(path_type=Path), help="keep what it makes here; temporary folders by default")
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON")
def accept(names: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Run projects of this checkout from their data to served answers and say what was seen; all that have an accept.py."""
    known = acceptable(ROOT / "projects")
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no project {', '.join(unknown)} with an accept.py; there are {', '.join(known)}")
    raise SystemExit(run_acceptance(names or known, folder.resolve() if folder else None, as_json))


models.add_command(import_)
podium.add_command(models)
podium.add_command(keys)
podium.add_command(gc)
podium.add_command(champions_)
podium.add_command(predict)


@podium.group()
def config() -> None:
    """What is configured, and where it comes from."""


@config.command("show")
@click.option("--json", "as_json", is_flag=True)
def config_show(as_json: bool) -> None:
    """Every setting with its value and its origin; secrets are not shown."""
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
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['setting']:<26} {row['value']:<40} {row['origin']:<12} {row['meaning']}")


@podium.command("fsck")
@report_errors
def fsck_() -> None:
    """Walk the whole bucket and name every inconsistency; exit code 5 if there is one."""
    settings = StoreSettings()
    wrong = fsck(settings.store(PATIENCE_SECONDS), settings.trust())
    for line in wrong:
        click.echo(line)
    click.echo(f"{len(wrong)} inconsistencies", err=True)
    raise SystemExit(5 if wrong else 0)


@podium.group()
def projects() -> None:
    """The projects of this checkout."""


@projects.command("check")
@click.argument("names", nargs=-1)
def projects_check(names: tuple[str, ...]) -> None:
    """Validate project files, and that their tables have the columns that they name, where these can be read."""
    settings, wrong = StoreSettings(), 0
    folder, tables = settings.projects, Tables(settings)
    found = names or project_names(folder)
    if not found:
        click.echo(f"there is no project in {folder}: make {folder}/NAME/project.toml, or set PODIUM_PROJECTS", err=True)
        raise SystemExit(1)
    for name in found:
        try:
            project = load_project(folder, name)
            check_project(project)
            unseen = tables.check(project)
            click.echo(f"{name}: valid" + (f", but its columns were not looked at: {unseen}" if unseen else ""))
        except (BadProject, UnknownFamily) as error:
            wrong += 1
            click.echo(str(error), err=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    podium()
