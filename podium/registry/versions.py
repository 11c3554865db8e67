"""Versions: files, then the manifest that binds them, then never a change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from podium.project import NAME
from podium.registry.signing import SIGNATURES, Signer, VerifyingKeys
from podium.schema.columns import Signature
from podium.storage.object_store import AlreadyExists, NotFound, Store, StoreError, TooLarge, digest

MANIFEST = "manifest.json"
VERSION = r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
GOLDEN_FILE, LEADERBOARD_FILE, REPORT_FILE, TEST_FILE = "golden.json", "leaderboard.csv", "report.html", "test.parquet"
COMPARISON_FILE = "comparison.csv"
IMPORTED_FILES = "foreign/"


TOMBSTONE = b'{"barred": "the files of this version, which was never finished, are being deleted"}'
"""Stands in the place of a manifest for so long."""

MAX_MANIFEST_BYTES = 8 << 20

Fetch = Callable[[str, str, int], bytes]
"""From a key, the sha256 that is expected there and the largest size to the bytes, which the caller verifies."""


UNTIL = "until"
"""Under this name a manifest says which day was the last one that was learned from."""


class VersionExists(StoreError):
    """Another version of this name is there already."""


class NotPublished(StoreError):
    """There is no such version, or its manifest never came."""


class IntegrityError(StoreError):
    """A file is not the one that the manifest binds."""


class File(BaseModel):
    model_config = ConfigDict(frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class SplitBoundary(BaseModel):
    """Which rows a version has not learned from: those beyond the borders, by days, or by the numbers of rows or groups.

    A border for each class (its code) of a stratified split, otherwise one (ALL); `columns` are those that the table had.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["random", "stratified", "grouped", "time"]
    columns: tuple[str, ...]
    borders: dict[str, int | float]


NUMBERS = ("score_val", "score_test", "ci_low", "ci_high", "interval_90")
MAX_AUTHOR = 200


class Manifest(BaseModel):
    """Everything that is known of a version; what it does not name does not belong to it.

    `predictions` is the sha256 of every model's scores on the test rows: the same inputs give the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    project: str
    version: str
    created: str
    run: str
    parent: str | None
    champion: str
    files: dict[str, File]
    signature: Signature
    leaderboard: list[dict[str, Any]]
    data: dict[str, str | int | float]
    split: SplitBoundary | None = None
    configuration: dict[str, Any]
    git: str | None
    libraries: dict[str, str]
    lock: str | None
    author: str
    predictions: str
    signatures: dict[str, str] = {}

    @model_validator(mode="after")
    def _has_what_others_read(self) -> Self:
        datetime.fromisoformat(self.created)
        for row in self.leaderboard:
            if not isinstance(row.get("model"), str) or not isinstance(row.get("eval_metric"), str):
                raise ValueError("a row of the leaderboard has no model or metric")
            if any(not isinstance(row.get(name), float | int | None) for name in NUMBERS):
                raise ValueError("a row of the leaderboard has a score that is no number")
        if self.champion not in self.families or len(self.author) > MAX_AUTHOR:
            raise ValueError("the champion is not on the leaderboard, or the author's name is too long")
        return self

    @property
    def families(self) -> list[str]:
        """The models of this version, the best first."""
        return [str(row["model"]) for row in self.leaderboard]


def model_file(family: str) -> str:
    return f"models/{family}.pkl"


def describe(files: Mapping[str, bytes]) -> dict[str, File]:
    return {name: File(sha256=digest(data), size=len(data)) for name, data in files.items()}


def version_prefix(project: str, version: str) -> str:
    return f"versions/{project}/{version}/"


def publish(store: Store, manifest: Manifest, files: Mapping[str, bytes], signer: Signer) -> None:
    """Write the files and last the signed manifest; again with the same files changes nothing. Raises VersionExists."""
    prefix = version_prefix(manifest.project, manifest.version)
    document = manifest.model_dump(mode="json")
    signed = json.dumps({**document, SIGNATURES: signer.sign(document)}, indent=1, ensure_ascii=False)
    for name, data in files.items():
        _create_same(store, prefix + name, data)
    try:
        store.create(prefix + MANIFEST, signed.encode())
    except AlreadyExists:
        if is_tombstone(store, prefix + MANIFEST):
            raise StoreError(f"{store.url(prefix)} is just being collected as garbage: try again") from None
        if _content(store.read(prefix + MANIFEST, max_bytes=MAX_MANIFEST_BYTES).data) != (document["run"], document["files"]):
            raise VersionExists(f"{store.url(prefix)} is there already with other content") from None
    for name, data in files.items():  # a collection may have deleted some before the manifest was there
        if not store.exists(prefix + name):
            _create_same(store, prefix + name, data)


def _create_same(store: Store, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except AlreadyExists:
        if not _holds(store, key, data):
            raise VersionExists(f"{store.url(key)} is there already with other content") from None


def _holds(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.read(key, max_bytes=len(data)).data == data
    except TooLarge:
        return False


def is_tombstone(store: Store, key: str) -> bool:
    """Whether a collection of garbage holds this manifest's place."""
    return _holds(store, key, TOMBSTONE)


def _content(manifest: bytes) -> object:
    """The run and the files that a manifest names; None if it is none."""
    try:
        document = json.loads(manifest)
        return document["run"], document["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_manifest(store: Store, project: str, version: str, trainers: VerifyingKeys) -> tuple[Manifest, bytes]:
    """The manifest and its bytes. Raises NotPublished, Unsigned, Damaged."""
    try:
        data = store.read(version_prefix(project, version) + MANIFEST, max_bytes=MAX_MANIFEST_BYTES).data
    except NotFound:
        raise NotPublished(f"{project} has no version {version}") from None
    return parse_manifest(data, project, version, trainers), data


def parse_manifest(data: bytes, project: str, version: str, trainers: VerifyingKeys) -> Manifest:
    """Raises Unsigned, Damaged."""
    document = trainers.check(data, f"the manifest of {project} {version}")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise IntegrityError(f"the manifest of {project} {version} is not valid ({error.error_count()} errors)") from None
    if (manifest.project, manifest.version) != (project, version):
        raise IntegrityError(f"the manifest of {project} {version} speaks of another version")
    return manifest


def read_file(manifest: Manifest, name: str, fetch: Fetch) -> bytes:
    """One file's verified bytes. Raises Damaged, also when the file is missing."""
    bound = manifest.files.get(name)
    if bound is None:
        raise IntegrityError(f"{manifest.project} {manifest.version} has no file {name}")
    return verified(version_prefix(manifest.project, manifest.version) + name, bound.sha256, fetch, bound.size)


def verified(key: str, sha256: str, fetch: Fetch, max_bytes: int = MAX_MANIFEST_BYTES) -> bytes:
    """The bytes under a key, if they are the ones that were published. Raises Damaged, TooLarge."""
    try:
        data = fetch(key, sha256, max_bytes)
    except NotFound:
        raise IntegrityError(f"there is no {key}") from None
    if digest(data) != sha256:
        raise IntegrityError(f"{key} is not what was published")
    return data


def fetch_from(store: Store) -> Fetch:
    """Files straight from the store."""
    return lambda key, _, max_bytes: store.read(key, max_bytes=max_bytes).data


def projects_with_versions(store: Store) -> list[str]:
    names = {key.split("/")[1] for key in store.keys("versions/") if key.count("/") >= 3}
    return sorted(name for name in names if re.fullmatch(NAME, name))


def list_versions(store: Store, project: str) -> list[str]:
    """The names of the versions whose manifest is there, the newest last."""
    keys = store.keys(f"versions/{project}/")
    names = (key.split("/")[2] for key in keys if key.endswith("/" + MANIFEST) and key.count("/") == 3)
    return sorted(name for name in names if re.fullmatch(VERSION, name))
