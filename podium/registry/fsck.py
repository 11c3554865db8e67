"""A walk through the whole bucket that names whatever does not fit together."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator

from podium.project import NAME
from podium.registry.audit_log import check_history, entries_since, parse_entry, read_history, retired_versions
from podium.registry.signing import TrustPolicy
from podium.registry.versions import MANIFEST, VERSION, fetch_from, read_file, read_manifest, version_prefix
from podium.storage import datasets
from podium.storage.object_store import MAX_DOCUMENT_BYTES, Store, StoreError, TooLarge, digest

PROJECT = f"(?P<project>{NAME.strip('^$')})"
PLACES = {
    "aliases/": re.compile(rf"aliases/{PROJECT}/champion\.json"),
    "history/": re.compile(rf"history/{PROJECT}/.*", re.DOTALL),
    "versions/": re.compile(rf"versions/{PROJECT}/(?P<version>{VERSION})/(?P<name>.+)", re.DOTALL),
    "datasets/": re.compile(
        rf"datasets/{PROJECT}/(?:(?P<snapshot>[0-9a-f]{{64}})/data|(?P<receipt>sources/[0-9a-f]{{32}}\.json)"
        r"|parts/[0-9-]+/(?P<part>[0-9a-f]{64})\.parquet)"
    ),
}
"""The keys under each prefix; what lies in a history is checked entry by entry."""


def fsck(store: Store, trust: TrustPolicy) -> list[str]:
    """Every inconsistency in words; empty when the bucket is whole."""
    wrong: list[str] = []
    versions = _versions(store)
    wrong += _strangers(store)
    retired = _retired(store, trust, {project for project, _ in versions})
    for (project, version), names in sorted(versions.items()):
        wrong += _check_version(store, trust, project, version, names, version in retired[project])
    finished = {key for key, names in versions.items() if MANIFEST in names}
    for project in sorted(_projects(store)):
        wrong += check_history(store, project, trust.promoters)
        wrong += _check_references(store, trust, project, finished)
    wrong += _check_snapshots(store)
    wrong += _check_runs(store, finished)
    return wrong


def _versions(store: Store) -> dict[tuple[str, str], set[str]]:
    """The files of each version by project and version."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key in store.keys("versions/"):
        if match := PLACES["versions/"].fullmatch(key):
            found[match["project"], match["version"]].add(match["name"])
    return found


def _projects(store: Store) -> set[str]:
    """The projects with an alias or a history."""
    found = (PLACES[prefix].fullmatch(key) for prefix in ("aliases/", "history/") for key in store.keys(prefix))
    return {match["project"] for match in found if match}


def _strangers(store: Store) -> Iterator[str]:
    for prefix, place in PLACES.items():
        for key in store.keys(prefix):
            if not place.fullmatch(key):
                yield f"{key}: is not a key that Podium writes"


def _retired(store: Store, trust: TrustPolicy, projects: set[str]) -> dict[str, set[str]]:
    """The versions whose files may be gone, by project; an unreadable history is named by its own check."""
    found: dict[str, set[str]] = defaultdict(set)
    for project in projects:
        with contextlib.suppress(StoreError):
            found[project] = retired_versions(entries_since(store, project, trust.promoters))
    return found


def _check_version(
    store: Store, trust: TrustPolicy, project: str, version: str, names: set[str], retired: bool
) -> Iterator[str]:
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
            read_file(manifest, name, fetch_from(store))
        except StoreError as error:
            yield str(error)


def _check_references(store: Store, trust: TrustPolicy, project: str, finished: set[tuple[str, str]]) -> Iterator[str]:
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
        if not (match := PLACES["datasets/"].fullmatch(key)):
            continue
        if match["receipt"]:
            yield from _check_receipt(store, key, match["project"], keys)
        elif digest(store.read(key).data) != (match["snapshot"] or match["part"]):
            yield f"{key}: is not what its name says"


def _check_receipt(store: Store, key: str, project: str, keys: set[str]) -> Iterator[str]:
    try:
        snapshot = datasets.from_json(store.read(key, max_bytes=MAX_DOCUMENT_BYTES).data)
    except (ValueError, TypeError, RecursionError, TooLarge):
        yield f"{key}: is no receipt of a snapshot"
        return
    if datasets.snapshot_key(project, snapshot.sha256) not in keys:
        yield f"{key}: speaks of a snapshot that is not there"


def _check_runs(store: Store, finished: set[tuple[str, str]]) -> Iterator[str]:
    for key in store.keys("runs/"):
        if key.endswith("/publish.json"):
            try:
                version = str(json.loads(store.read(key, max_bytes=MAX_DOCUMENT_BYTES).data)["version"])
            except (ValueError, TypeError, KeyError, RecursionError, TooLarge):
                yield f"{key}: is no receipt of a version"
                continue
            if (key.split("/")[1], version) not in finished:
                yield f"{key}: speaks of version {version}, which is not there"
