"""`podium champions`: copy the champions into a cache folder."""

from __future__ import annotations

from pathlib import Path

import click

from podium.cli.common import context_from_settings, report_errors
from podium.registry.audit_entry import parse_entry
from podium.registry.champion_alias import alias_key, project_names
from podium.registry.loading import fetcher
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import StoreError


@click.command("champions")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("projects", nargs=-1)
@report_errors
def champions_(folder: Path, projects: tuple[str, ...]) -> None:
    """Download the champions into a cache FOLDER.

    Validates the champions of PROJECTS (default: all). With this cache, a service can start while S3 is unavailable,
    for example in a container image:

    \b
    podium champions build/champions pima
    PODIUM_CACHE=build/champions podium serve
    """
    context, cache = context_from_settings(signing=False), ModelCache(folder)
    try:
        for project in projects or project_names(context.store):
            data = context.store.read(alias_key(project)).data
            entry = parse_entry(data, project, context.trust.promoters)
            if entry.champion is None or entry.manifest_sha256 is None:
                raise StoreError(f"{project} has no champion; promote a version with `podium models promote`")
            fetch = fetcher(context.store, cache)
            loaded = context.validator.load(project, entry.champion, entry.manifest_sha256, fetch, context.trust.trainers)
            cache.remember_alias(context.store.location, project, data)
            click.echo(f"{project} {entry.champion}: {', '.join(loaded.models)}")
    finally:
        context.validator.close()
