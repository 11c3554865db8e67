"""Versions: immutable files, bound by a signed manifest that is written last."""

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
from podium.schema.reading import Finding
from podium.storage.object_store import AlreadyExists, NotFound, Store, StoreError, TooLarge, digest

MANIFEST = "manifest.json"
VERSION = r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
GOLDEN_FILE, LEADERBOARD_FILE, REPORT_FILE, TEST_FILE = "golden.json", "leaderboard.csv", "report.html", "test.parquet"
COMPARISON_FILE = "comparison.csv"
IMPORTED_FILES = "imported/"
TOMBSTONE = b'{"tombstone": "the files of this unfinished version are being deleted"}'
"""Written as the manifest while garbage collection deletes an unfinished version."""

MAX_MANIFEST_BYTES = 8 << 20

Fetch = Callable[[str, str, int], bytes]
"""Returns the bytes of a key, given the expected sha256 and the maximum size. The caller verifies them."""

UNTIL = "until"
"""Key in `Manifest.data` for the last day of the training data."""


class VersionExists(StoreError):
    """A version with this name but different content already exists."""


class NotPublished(StoreError):
    """The version does not exist, or has no manifest."""


class IntegrityError(StoreError):
    """Stored data is missing, changed or not valid."""


class File(BaseModel):
    """Digest and size of a file of a version."""

    model_config = ConfigDict(frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class SplitBoundary(BaseModel):
    """The boundary between training and test rows: a day, or a hash of the row or group.

    A stratified split has one boundary per class code; others have one, under "all". `columns` are the columns of the table.
    Without test rows, the kind is "out-of-fold": the models were trained on all rows, and have out-of-fold scores for them.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["random", "stratified", "grouped", "time", "out-of-fold"]
    columns: tuple[str, ...]
    boundaries: dict[str, int | float]


SCORE_COLUMNS = ("score_val", "score_test", "ci_low", "ci_high", "interval_90")
MAX_AUTHOR = 200


class Manifest(BaseModel):
    """Everything known about a version. Files that it does not list are not part of the version.

    `findings` are what was read differently, changed or left out in the training table.

    `predictions_sha256` is the digest of every model's scores on the test rows; equal inputs give equal digests.
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
    findings: tuple[Finding, ...] = ()
    split: SplitBoundary | None = None
    configuration: dict[str, Any]
    git: str | None
    libraries: dict[str, str]
    lock_sha256: str | None
    author: str
    predictions_sha256: str
    signatures: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        datetime.fromisoformat(self.created)
        for row in self.leaderboard:
            if not isinstance(row.get("model"), str) or not isinstance(row.get("eval_metric"), str):
                raise ValueError("a leaderboard row has no model or no metric")
            if any(not isinstance(row.get(name), float | int | None) for name in SCORE_COLUMNS):
                raise ValueError("a leaderboard row has a score that is not a number")
        if self.champion not in self.families or len(self.author) > MAX_AUTHOR:
            raise ValueError("the champion is not on the leaderboard, or the author's name is too long")
        return self

    @property
    def is_out_of_fold(self) -> bool:
        """Whether the version has no test rows, but out-of-fold scores of all rows."""
        return self.split is not None and self.split.kind == "out-of-fold"

    @property
    def families(self) -> list[str]:
        """Names of the models, best first."""
        return [str(row["model"]) for row in self.leaderboard]


def model_file(family: str) -> str:
    return f"models/{family}.pkl"


def file_digests(files: Mapping[str, bytes]) -> dict[str, File]:
    return {name: File(sha256=digest(data), size=len(data)) for name, data in files.items()}


def version_prefix(project: str, version: str) -> str:
    return f"versions/{project}/{version}/"


def publish(store: Store, manifest: Manifest, files: Mapping[str, bytes], signer: Signer) -> None:
    """Write the files, then the signed manifest. Publishing the same version again changes nothing. Raises VersionExists."""
    prefix = version_prefix(manifest.project, manifest.version)
    document = manifest.model_dump(mode="json")
    signed = json.dumps({**document, SIGNATURES: signer.sign(document)}, indent=1, ensure_ascii=False)
    for name, data in files.items():
        _create_or_compare(store, prefix + name, data)
    try:
        store.create(prefix + MANIFEST, signed.encode())
    except AlreadyExists:
        if is_tombstone(store, prefix + MANIFEST):
            raise StoreError(f"{store.url(prefix)} is being deleted by garbage collection: try again") from None
        if _content(store.read(prefix + MANIFEST, max_bytes=MAX_MANIFEST_BYTES).data) != (document["run"], document["files"]):
            raise VersionExists(f"{store.url(prefix)} already exists with different content") from None
    for name, data in files.items():  # garbage collection may have deleted some before the manifest existed
        if not store.exists(prefix + name):
            _create_or_compare(store, prefix + name, data)


def _create_or_compare(store: Store, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except AlreadyExists:
        if not _has_content(store, key, data):
            raise VersionExists(f"{store.url(key)} already exists with different content") from None


def _has_content(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.read(key, max_bytes=len(data)).data == data
    except TooLarge:
        return False


def is_tombstone(store: Store, key: str) -> bool:
    """Return whether the manifest is a garbage-collection tombstone."""
    return _has_content(store, key, TOMBSTONE)


def _content(manifest: bytes) -> object:
    """Return the run and the files of a manifest, or None if it is not valid."""
    try:
        document = json.loads(manifest)
        return document["run"], document["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_manifest(store: Store, project: str, version: str, trainers: VerifyingKeys) -> tuple[Manifest, bytes]:
    """Return a manifest and its bytes. Raises NotPublished, Unsigned, IntegrityError."""
    try:
        data = store.read(version_prefix(project, version) + MANIFEST, max_bytes=MAX_MANIFEST_BYTES).data
    except NotFound:
        raise NotPublished(f'{project}: version not found: "{version}"') from None
    return parse_manifest(data, project, version, trainers), data


def parse_manifest(data: bytes, project: str, version: str, trainers: VerifyingKeys) -> Manifest:
    """Parse and verify a manifest. Raises Unsigned, IntegrityError."""
    document = trainers.check(data, f"the manifest of {project} {version}")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise IntegrityError(f"the manifest of {project} {version} is not valid ({error.error_count()} errors)") from None
    if (manifest.project, manifest.version) != (project, version):
        raise IntegrityError(f"the manifest of {project} {version} belongs to another version")
    return manifest


def read_file(manifest: Manifest, name: str, fetch: Fetch) -> bytes:
    """Return the verified bytes of a file. Raises IntegrityError, including if the file is missing."""
    file = manifest.files.get(name)
    if file is None:
        raise IntegrityError(f"{manifest.project} {manifest.version} has no file {name}")
    return fetch_verified(version_prefix(manifest.project, manifest.version) + name, file.sha256, fetch, file.size)


def fetch_verified(key: str, sha256: str, fetch: Fetch, max_bytes: int = MAX_MANIFEST_BYTES) -> bytes:
    """Return the bytes of a key if they have this digest. Raises IntegrityError, TooLarge."""
    try:
        data = fetch(key, sha256, max_bytes)
    except NotFound:
        raise IntegrityError(f"{key} is missing") from None
    if digest(data) != sha256:
        raise IntegrityError(f"{key} differs from the published file")
    return data


def fetch_from(store: Store) -> Fetch:
    """Return a function that fetches files from the store without a cache."""
    return lambda key, _, max_bytes: store.read(key, max_bytes=max_bytes).data


def projects_with_versions(store: Store) -> list[str]:
    names = {info.key.split("/")[1] for info in store.list_objects("versions/") if info.key.count("/") >= 3}
    return sorted(name for name in names if re.fullmatch(NAME, name))


def list_versions(store: Store, project: str) -> list[str]:
    """Return the names of the versions that have a manifest, newest last."""
    keys = (info.key for info in store.list_objects(f"versions/{project}/"))
    names = (key.split("/")[2] for key in keys if key.endswith("/" + MANIFEST) and key.count("/") == 3)
    return sorted(name for name in names if re.fullmatch(VERSION, name))
