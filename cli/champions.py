"""`podium champions`: what serves now, into a folder that a service starts from."""

from __future__ import annotations

from pathlib import Path

import click

from cli.models import desk_of_settings, told
from podium.loading import fetcher
from podium.store.cache import Cache
from podium.store.history import alias_key, parse_entry, project_names
from podium.store.s3 import StoreError


@click.command("champions")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("projects", nargs=-1)
@told
def champions_(folder: Path, projects: tuple[str, ...]) -> None:
    """Fetch and prove what serves now, into a cache FOLDER, for an image or a host that may start while S3 is away.

    \b
    podium champions build/champions pima
    PODIUM_CACHE=build/champions podium serve
    """
    desk, cache = desk_of_settings(signing=False), Cache(folder)
    for project in projects or project_names(desk.store):
        data = desk.store.read(alias_key(project)).data
        entry = parse_entry(data, project, desk.trust.promoters)
        if entry.champion is None or entry.manifest is None:
            raise StoreError(f"{project} has no champion")
        loaded = desk.prover.load(project, entry.champion, entry.manifest, fetcher(desk.store, cache), desk.trust.trainers)
        cache.keep_entry(desk.store.place, project, data)
        click.echo(f"{project} {entry.champion}: {', '.join(loaded.models)}")
    desk.prover.close()
