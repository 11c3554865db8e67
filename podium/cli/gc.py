"""`podium gc`: delete the files of unused versions."""

from __future__ import annotations

import click

from podium.cli.common import context_from_settings, echo_json, json_option, report_errors
from podium.formatting import count, format_size
from podium.registry.gc import delete_garbage, find_garbage
from podium.registry.promotion import StillReferenced, utc_now
from podium.registry.versions import projects_with_versions


@click.command("gc", short_help="Delete the files of unused versions.")
@click.argument("projects", nargs=-1)
@click.option("--dry-run", is_flag=True, help="list what would be deleted without deleting anything")
@click.option("--keep", default=10, show_default=True, help="keep versions named in the last N history entries")
@click.option("--days", default=30, show_default=True, help="keep versions younger than N days")
@click.option("--reason", default="garbage collection", show_default=True, help="reason to record in the history")
@json_option
@report_errors
def gc(projects: tuple[str, ...], dry_run: bool, keep: int, days: int, reason: str, as_json: bool) -> None:
    """Delete files of versions that are not serving and not referenced.

    Works on PROJECTS (default: all). Champions and recent versions are never deleted. The manifest of a deleted version
    stays, and the history records the deletion. Try --dry-run first:

    \b
    podium gc titanic --days 90 --dry-run
    """
    context, now = context_from_settings(signing=not dry_run), utc_now()
    candidates = [
        candidate
        for project in projects or projects_with_versions(context.store)
        for candidate in find_garbage(context, project, now, keep=keep, days=days)
    ]
    deleted = []
    for candidate in candidates:
        if not dry_run:
            try:
                delete_garbage(context, candidate, reason, utc_now)
            except StillReferenced as error:
                click.echo(f"kept: {error}", err=True)
                continue
        deleted.append(candidate)
        if not as_json:
            objects = f"{count(len(candidate.keys), 'object')}, {format_size(candidate.size)}"
            click.echo(f"{candidate.project} {candidate.version}: {candidate.why} ({objects})")
    if as_json:
        echo_json([candidate.as_json() for candidate in deleted])
    total = f"{count(len(deleted), 'version')}, {format_size(sum(candidate.size for candidate in deleted))}"
    click.echo(f"{total} {'would be deleted' if dry_run else 'deleted'}", err=True)
