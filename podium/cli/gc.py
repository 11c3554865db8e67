"""`podium gc`: files that nothing refers to any more."""

from __future__ import annotations

import json

import click

from podium.cli.models import context_from_settings, json_option, report_errors
from podium.registry.gc import delete_garbage, find_garbage
from podium.registry.promotion import StillReferenced, utc_now
from podium.registry.versions import projects_with_versions


@click.command("gc")
@click.argument("projects", nargs=-1)
@click.option("--dry-run", is_flag=True, help="say what would go, and delete nothing")
@click.option("--keep", default=10, show_default=True, help="of the history's last entries, the versions they speak of stay")
@click.option("--days", default=30, show_default=True, help="younger versions stay")
@click.option("--reason", default="garbage collection", show_default=True, help="for the history")
@json_option
@report_errors
def gc(projects: tuple[str, ...], dry_run: bool, keep: int, days: int, reason: str, as_json: bool) -> None:
    """Delete the files of versions that serve nowhere and that nothing speaks of.

    What serves, what the history's last entries speak of and what the prediction log names is never touched. The manifest of a
    retired version stays, and the history says who retired it and why. Look with --dry-run first.
    """
    context, now = context_from_settings(signing=not dry_run), utc_now()
    found = [
        garbage
        for project in projects or projects_with_versions(context.store)
        for garbage in find_garbage(context, project, now, keep=keep, days=days)
    ]
    done = []
    for garbage in found:
        if not dry_run:
            try:
                delete_garbage(context, garbage, reason, utc_now)
            except StillReferenced as error:
                click.echo(f"kept: {error}", err=True)
                continue
        done.append(garbage)
        if not as_json:
            click.echo(
                f"{garbage.project} {garbage.version}: {garbage.why} ({len(garbage.keys)} objects, {garbage.size} bytes)"
            )
    if as_json:
        click.echo(json.dumps([garbage.as_json() for garbage in done], indent=1))
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(f"{len(done)} versions, {sum(garbage.size for garbage in done)} bytes {verb}", err=True)
