"""`podium projects`: validate project files."""

from __future__ import annotations

import click

from podium.cli.check_project import Tables, check_project
from podium.cli.common import CONFIGURATION_ERROR, echo_json, json_option
from podium.project import BadProject, load_project, project_names
from podium.settings import StoreSettings
from podium.training.families import UnknownFamily


@click.group()
def projects() -> None:
    """Validate project files."""


@projects.command("check")
@click.argument("names", nargs=-1)
@json_option
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Validate the project.toml of the projects NAMES (default: all) and the columns of their tables.

    Exits with code 1 if a project is invalid.
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
            note = tables.check(project)
        except (BadProject, UnknownFamily) as failure:
            error = str(failure)
        results.append({"project": name, "valid": not error, "error": error, "note": note})
        if not as_json and error:
            click.echo(error, err=True)
        elif not as_json:
            click.echo(f"{name}: valid" + (f", columns not checked: {note}" if note else ""))
    if as_json:
        echo_json(results)
    raise SystemExit(0 if all(result["valid"] for result in results) else CONFIGURATION_ERROR)
