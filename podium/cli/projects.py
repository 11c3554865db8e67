"""`podium projects`: inspect tables and validate project files."""

from __future__ import annotations

from pathlib import Path

import click

from podium.cli.check_project import Tables, check_project
from podium.cli.common import CONFIGURATION_ERROR, REJECTED, echo_json, json_option, report_errors
from podium.cli.inspect_table import inspect_table, new_project_file
from podium.project import BadProject, load_project, project_names
from podium.schema.data_errors import BadData
from podium.schema.reading import printable
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError
from podium.training.families import UnknownFamily

LOCAL_COPY = "a copy on this machine can be read: podium projects inspect FILE --project"


@click.group()
def projects() -> None:
    """Inspect tables and validate project files."""


@projects.command("check")
@click.argument("names", nargs=-1)
@json_option
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Validate the project.toml of the projects NAMES (default: all) and the columns of their tables.

    The whole tables of projects given by name are read as in training. Exits with code 1 if a project is invalid.
    """
    settings = StoreSettings()
    folder, tables = settings.projects, Tables(settings)
    checked = names or project_names(folder)
    if not checked:
        click.echo(f"Error: no project in {folder}; create {folder}/NAME/project.toml or set PODIUM_PROJECTS", err=True)
        raise SystemExit(CONFIGURATION_ERROR)
    results = []
    for name in checked:
        error = note = ""
        try:
            project = load_project(folder, name)
            check_project(project)
            note = tables.check(project, whole=bool(names))
        except (BadProject, UnknownFamily) as failure:
            error = str(failure)
        results.append({"project": name, "valid": not error, "error": error, "note": note})
        if not as_json and error:
            click.echo(error, err=True)
        elif not as_json:
            click.echo(f"{name}: valid" + (f", columns not checked: {note} ({LOCAL_COPY} {name})" if note else ""))
    if as_json:
        echo_json(results)
    raise SystemExit(0 if all(result["valid"] for result in results) else CONFIGURATION_ERROR)


@projects.command("inspect")
@click.argument("source")
@click.option("--target", default="", help="column to predict; by default one with a usual name, or the last one")
@click.option("--write", "name", help="write PODIUM_PROJECTS/NAME/project.toml, with this NAME")
@click.option("--project", "existing", help="read the table as the file of this project says")
@json_option
@report_errors
def inspect(source: str, target: str, name: str | None, existing: str | None, as_json: bool) -> None:
    """Show how the table at SOURCE would be read: a path, an s3:// URL, or the name of a project.

    Lists the columns, what would be changed or left out with the setting that changes it, and a project.toml to start from.
    Exits with code 3 if there are errors; the project.toml has settings that avoid them.

    \b
    podium projects inspect houses.csv --target price
    podium projects inspect s3://podium/raw/houses.csv --target price --write houses
    podium projects inspect houses
    podium projects inspect houses-2026.csv --project houses
    """
    settings = StoreSettings()
    if not existing and not Path(source).exists() and source in project_names(settings.projects):
        existing, source = source, ""
    if existing and (name is not None or target):
        raise click.UsageError("--target and --write are for new projects; change the project file instead")
    path = None if name is None else new_project_file(settings.projects, name)
    project = load_project(settings.projects, existing) if existing else None
    try:
        inspection = inspect_table(source or str(project and project.data), target, settings.bucket, project)
    except BadData as error:
        for problem in error.problems:
            click.echo(f"Error: {printable(str(problem))}", err=True)
        raise SystemExit(REJECTED) from None
    except StoreError as error:
        raise type(error)(f"{error} ({LOCAL_COPY} {existing or 'NAME'})") from None
    except OSError as error:
        raise click.UsageError(f"{source} cannot be read: {error.strerror}") from None
    if as_json:
        echo_json(inspection.as_json())
    else:
        click.echo(inspection.text())
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inspection.project_file, encoding="utf-8")
        click.echo(f"Wrote {path}", err=True)
    raise SystemExit(REJECTED if inspection.problems else 0)
