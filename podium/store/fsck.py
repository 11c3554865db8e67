"""A walk through the whole bucket that names whatever does not fit together."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator

from podium.store import datasets
from podium.store.history import check_history, entries_since, parse_entry, read_history, retired_versions
from podium.store.s3 import Store, StoreError
from podium.store.signing import Trust
from podium.store.versions import MANIFEST, digest, read_file, read_manifest, version_prefix


def fsck(store: Store, trust: Trust) -> list[str]:
    """Every inconsistency in words; empty when the bucket is whole."""
    wrong: list[str] = []
    versions = _versions(store)
    retired = _retired(store, trust, {project for project, _ in versions})
    for (project, version), names in sorted(versions.items()):
        wrong += _check_version(store, trust, project, version, names, version in retired[project])
    finished = {key for key, names in versions.items() if MANIFEST in names}
    for project in sorted({key.split("/")[1] for prefix in ("aliases/", "history/") for key in store.keys(prefix)}):
        wrong += check_history(store, project, trust.promoters)
        wrong += _check_references(store, trust, project, finished)
    wrong += _check_snapshots(store)
    wrong += _check_runs(store, finished)
    return wrong


def _versions(store: Store) -> dict[tuple[str, str], set[str]]:
    """The files of each version by project and version."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key in store.keys("versions/"):
        _, project, version, name = key.split("/", 3)
        found[project, version].add(name)
    return found


def _retired(store: Store, trust: Trust, projects: set[str]) -> dict[str, set[str]]:
    """The versions whose files may be gone, by project; an unreadable history is named by its own check."""
    found: dict[str, set[str]] = defaultdict(set)
    for project in projects:
        with contextlib.suppress(StoreError):
            found[project] = retired_versions(entries_since(store, project, trust.promoters))
    return found


def _check_version(store: Store, trust: Trust, project: str, version: str, names: set[str], retired: bool) -> Iterator[str]:
    place = version_prefix(project, version)
    if MANIFEST not in names:
        yield f"{place}: was never finished, as there is no manifest"
        return
    try:
        manifest, _ = read_manifest(store, project, version, trust.trainers)
    except StoreError as error:
        yield f"{place}: {error}"
        return
    for name in sorted(names - manifest.files.keys() - {MANIFEST}):
        yield f"{place}{name}: is not named by the manifest"
    for name in sorted(manifest.files):
        if retired and name not in names:
            continue
        try:
            read_file(manifest, name, lambda key, _: store.read(key).data)
        except StoreError as error:
            yield str(error)


def _check_references(store: Store, trust: Trust, project: str, finished: set[tuple[str, str]]) -> Iterator[str]:
    for key, data in read_history(store, project):
        try:
            entry = parse_entry(data, project, trust.promoters)
        except StoreError:
            continue  # named by the check of the chain
        for version in {entry.version, entry.champion} - {None}:
            if (project, version) not in finished:
                yield f"{key}: speaks of version {version}, which is not there"


def _check_snapshots(store: Store) -> Iterator[str]:
    keys = set(store.keys("datasets/"))
    for key in sorted(keys):
        data = store.read(key).data
        if key.endswith("/data"):
            if digest(data) != key.split("/")[2]:
                yield f"{key}: is not what its name says"
        elif key.split("/")[2] == "parts":
            if f"{digest(data)}.parquet" != key.split("/")[-1]:
                yield f"{key}: is not what its name says"
        elif datasets.snapshot_key(key.split("/")[1], datasets.from_json(data).sha256) not in keys:
            yield f"{key}: speaks of a snapshot that is not there"


def _check_runs(store: Store, finished: set[tuple[str, str]]) -> Iterator[str]:
    for key in store.keys("runs/"):
        if key.endswith("/publish.json"):
            version = json.loads(store.read(key).data)["version"]
            if (key.split("/")[1], version) not in finished:
                yield f"{key}: speaks of version {version}, which is not there"
