"""Check the whole bucket for inconsistencies."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator

from podium.project import NAME
from podium.registry.audit_entry import parse_entry
from podium.registry.audit_log import check_history, entries_since, read_history, retired_versions
from podium.registry.signing import TrustPolicy
from podium.registry.versions import MANIFEST, VERSION, fetch_from, read_file, read_manifest, version_prefix
from podium.storage.datasets import DatasetSnapshot, snapshot_key
from podium.storage.object_store import MAX_DOCUMENT_BYTES, Store, StoreError, TooLarge, digest

PROJECT = f"(?P<project>{NAME.strip('^$')})"
KEY_PATTERNS = {
    "aliases/": re.compile(rf"aliases/{PROJECT}/champion\.json"),
    "history/": re.compile(rf"history/{PROJECT}/.*", re.DOTALL),
    "versions/": re.compile(rf"versions/{PROJECT}/(?P<version>{VERSION})/(?P<name>.+)", re.DOTALL),
    "datasets/": re.compile(
        rf"datasets/{PROJECT}/(?:(?P<snapshot>[0-9a-f]{{64}})/data|(?P<receipt>sources/[0-9a-f]{{32}}\.json)"
        r"|parts/[0-9-]+/(?P<partition>[0-9a-f]{64})\.parquet)"
    ),
}
"""The keys that Podium writes under each prefix. The entries under history/ have their own check."""


def fsck(store: Store, trust: TrustPolicy) -> list[str]:
    """Return a message for each inconsistency; an empty list if there are none."""
    versions = _versions(store)
    errors = [f"{key}: unknown key" for key in _unknown_keys(store)]
    retired = _retired(store, trust, {project for project, _ in versions})
    for (project, version), names in sorted(versions.items()):
        errors += _check_version(store, trust, project, version, names, version in retired[project])
    complete = {name for name, names in versions.items() if MANIFEST in names}
    for project in sorted(_projects(store)):
        errors += check_history(store, project, trust.promoters)
        errors += _check_references(store, trust, project, complete)
    errors += _check_datasets(store)
    errors += _check_runs(store, complete)
    return errors


def _keys(store: Store, prefix: str) -> Iterator[str]:
    return (info.key for info in store.list_objects(prefix))


def _versions(store: Store) -> dict[tuple[str, str], set[str]]:
    """Return the file names of each version, by project and version."""
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key in _keys(store, "versions/"):
        if match := KEY_PATTERNS["versions/"].fullmatch(key):
            versions[match["project"], match["version"]].add(match["name"])
    return versions


def _projects(store: Store) -> set[str]:
    """Return the projects with an alias or an audit log."""
    matches = (KEY_PATTERNS[prefix].fullmatch(key) for prefix in ("aliases/", "history/") for key in _keys(store, prefix))
    return {match["project"] for match in matches if match}


def _unknown_keys(store: Store) -> Iterator[str]:
    for prefix, pattern in KEY_PATTERNS.items():
        yield from (key for key in _keys(store, prefix) if not pattern.fullmatch(key))


def _retired(store: Store, trust: TrustPolicy, projects: set[str]) -> dict[str, set[str]]:
    """Return the versions of each project whose files may be gone."""
    retired: dict[str, set[str]] = defaultdict(set)
    for project in projects:
        with contextlib.suppress(StoreError):  # check_history reports an unreadable audit log
            retired[project] = retired_versions(entries_since(store, project, trust.promoters))
    return retired


def _check_version(
    store: Store, trust: TrustPolicy, project: str, version: str, names: set[str], is_retired: bool
) -> Iterator[str]:
    prefix = version_prefix(project, version)
    if MANIFEST not in names:
        yield f"{prefix}: unfinished version without a manifest"
        return
    try:
        manifest, _ = read_manifest(store, project, version, trust.trainers.past)
    except StoreError as error:
        yield f"{prefix}: {error}"
        return
    for name in sorted(names - manifest.files.keys() - {MANIFEST}):
        yield f"{prefix}{name}: not listed in the manifest"
    for name in sorted(manifest.files):
        if is_retired and name not in names:
            continue
        try:
            read_file(manifest, name, fetch_from(store))
        except StoreError as error:
            yield str(error)


def _check_references(store: Store, trust: TrustPolicy, project: str, complete: set[tuple[str, str]]) -> Iterator[str]:
    for key, data in read_history(store, project):
        try:
            entry = parse_entry(data, project, trust.promoters.past)
        except StoreError:
            continue  # check_history reports it
        for version in {entry.version, entry.champion} - {None}:
            if (project, version) not in complete:
                yield f"{key}: references missing version {version}"


def _check_datasets(store: Store) -> Iterator[str]:
    keys = set(_keys(store, "datasets/"))
    for key in sorted(keys):
        if not (match := KEY_PATTERNS["datasets/"].fullmatch(key)):
            continue
        if match["receipt"]:
            yield from _check_receipt(store, key, match["project"], keys)
        elif digest(store.read(key).data) != (match["snapshot"] or match["partition"]):
            yield f"{key}: content differs from the digest in its key"


def _check_receipt(store: Store, key: str, project: str, keys: set[str]) -> Iterator[str]:
    try:
        snapshot = DatasetSnapshot.from_json(store.read(key, max_bytes=MAX_DOCUMENT_BYTES).data)
    except (ValueError, TypeError, RecursionError, TooLarge):
        yield f"{key}: not a valid snapshot receipt"
        return
    if snapshot_key(project, snapshot.sha256) not in keys:
        yield f"{key}: references missing snapshot {snapshot.sha256}"


def _check_runs(store: Store, complete: set[tuple[str, str]]) -> Iterator[str]:
    for key in _keys(store, "runs/"):
        if key.endswith("/publish.json"):
            try:
                version = str(json.loads(store.read(key, max_bytes=MAX_DOCUMENT_BYTES).data)["version"])
            except (ValueError, TypeError, KeyError, RecursionError, TooLarge):
                yield f"{key}: not a valid version receipt"
                continue
            if (key.split("/")[1], version) not in complete:
                yield f"{key}: references missing version {version}"
