"""The store contract on moto and on SeaweedFS, and the modules built on it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from podium.registry.champion_alias import alias_states, project_names
from podium.registry.signing import Signer, Unsigned, VerifyingKeys
from podium.registry.versions import (
    IntegrityError,
    Manifest,
    NotPublished,
    VersionExists,
    fetch_from,
    file_digests,
    list_versions,
    publish,
    read_file,
    read_manifest,
)
from podium.schema.columns import Signature, Target
from podium.storage import datasets
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import AlreadyExists, NotFound, PreconditionFailed, Store, StoreError, TooLarge, digest


def test_written_bytes_are_read_and_listed(store: Store) -> None:
    etag = store.create("a/b c+ü.bin", b"\x00\xff")
    blob = store.read("a/b c+ü.bin")
    assert (blob.data, blob.etag) == (b"\x00\xff", etag)
    assert store.exists("a/b c+ü.bin")
    assert not store.exists("a/b")
    assert [(info.key, info.etag, info.size) for info in store.list_objects("a/")] == [("a/b c+ü.bin", etag, 2)]


def test_a_missing_object_raises_not_found(store: Store) -> None:
    for call in (store.read, store.etag, lambda key: store.read_if_new(key, None)):
        with pytest.raises(NotFound):
            call("nothing")


class UnreadableBody(io.RawIOBase):
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError("the body was read")


class UnreadableBodies:
    """A client whose bodies must not be read."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get_object(self, **arguments: Any) -> Any:
        response = self._client.get_object(**arguments)
        response["Body"].close()
        return {**response, "Body": UnreadableBody()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_an_object_that_is_too_large_is_not_read(store: Store) -> None:
    store.create("large", b"x" * 1001)
    assert len(store.read("large", max_bytes=1001).data) == 1001
    unreadable = Store(UnreadableBodies(store.client), store.bucket)
    for read in (lambda: unreadable.read("large", max_bytes=1000), lambda: unreadable.read_if_new("large", None, 1000)):
        with pytest.raises(TooLarge, match="has 1001 bytes; at most 1000"):
            read()


def test_an_object_is_created_once(store: Store) -> None:
    store.create("once", b"first")
    with pytest.raises(AlreadyExists):
        store.create("once", b"second")
    assert store.read("once").data == b"first"


def test_an_object_is_replaced_only_if_unchanged(store: Store) -> None:
    first = store.create("alias", b"1")
    second = store.replace("alias", b"2", first)
    with pytest.raises(PreconditionFailed):
        store.replace("alias", b"3", first)
    with pytest.raises(PreconditionFailed):
        store.replace("never", b"3", first)
    assert store.read("alias").data == b"2"
    assert store.read_if_new("alias", second) is None
    assert store.read("alias", if_match=second).data == b"2"
    with pytest.raises(PreconditionFailed):
        store.read("alias", if_match=first)


def test_the_listed_aliases_have_the_etags_of_the_objects(store: Store) -> None:
    keys = ["aliases/a/champion.json", "aliases/b-2/champion.json"]
    invalid = ["aliases/A/champion.json", "aliases/a b/champion.json", "aliases/c/d/champion.json", "aliases/c/champion.json.x"]
    invalid += [
        f"aliases/{'x' * 65}/champion.json",
        "aliases/c/challenger.json",
        "aliases/champion.json",
        "aliases/-/champion.json",
    ]
    for key in keys + invalid:
        store.create(key, key.encode())
    assert alias_states(store) == {"a": store.read(keys[0]).etag, "b-2": store.read(keys[1]).etag}
    assert store.read_if_new(keys[0], alias_states(store)["a"]) is None
    assert project_names(store) == ["a", "b-2"]


def test_a_missing_bucket_raises_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError):
        list(Store(store.client, "no-such-bucket-here").list_objects(""))


class LostReplies:
    """A client whose first write succeeds while its reply is lost, so that the SDK repeats it."""

    def __init__(self, client: Any) -> None:
        self._client, self._lost = client, False

    def put_object(self, **arguments: Any) -> Any:
        if not self._lost:
            self._lost = True
            self._client.put_object(**arguments)  # the SDK gets no reply and sends the same write again:
        return self._client.put_object(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_write_with_a_lost_reply_succeeds(store: Store) -> None:
    etag = Store(LostReplies(store.client), store.bucket).create("mine", b"x")
    assert store.read("mine").etag == etag
    assert Store(LostReplies(store.client), store.bucket).replace("mine", b"y", etag)
    assert store.read("mine").data == b"y"


class Conflicts:
    """A client whose first two writes get 409."""

    def __init__(self, client: Any) -> None:
        self._client, self.calls = client, 0

    def put_object(self, **arguments: Any) -> Any:
        self.calls += 1
        if self.calls <= 2:
            error: Any = {"Error": {"Code": "ConditionalRequestConflict", "Message": "try again"}}
            raise botocore.exceptions.ClientError(error, "PutObject")
        return self._client.put_object(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_conflict_is_retried(store: Store) -> None:
    client = Conflicts(store.client)
    Store(client, store.bucket).create("later", b"x")
    assert client.calls == 3
    assert store.read("later").data == b"x"


def manifest(version: str, files: dict[str, bytes], parent: str | None = None) -> Manifest:
    return Manifest(
        project="p",
        version=version,
        created="2026-01-01T00:00:00+00:00",
        run="r",
        parent=parent,
        champion="linear",
        files=file_digests(files),
        signature=Signature((), Target("y", "regression"), {}),
        leaderboard=[{"model": "linear", "eval_metric": "auc"}],
        data={"sha256": "0"},
        configuration={},
        git=None,
        libraries={},
        lock_sha256=None,
        author="ann",
        predictions_sha256="",
    )


FILES = {"models/linear.pkl": b"model", "golden.json": b"{}"}


def test_a_version_exists_once_its_manifest_does(store: Store, signer: Signer) -> None:
    version = manifest("v1", FILES)
    keys = VerifyingKeys([signer.public])
    with pytest.raises(NotPublished):
        read_manifest(store, "p", "v1", keys)
    store.create("versions/p/v0/models/linear.pkl", b"an unfinished version")
    publish(store, version, FILES, signer)
    assert read_manifest(store, "p", "v1", keys)[0].model_copy(update={"signatures": {}}) == version
    with pytest.raises(Unsigned):
        read_manifest(store, "p", "v1", VerifyingKeys([Signer.new().public]))
    assert list_versions(store, "p") == ["v1"]
    assert read_file(version, "golden.json", fetch_from(store)) == b"{}"


def test_publishing_again_changes_nothing_and_never_overwrites(store: Store, signer: Signer) -> None:
    publish(store, manifest("v1", FILES), FILES, signer)
    publish(store, manifest("v1", FILES), FILES, signer)
    other = {**FILES, "models/linear.pkl": b"other"}
    with pytest.raises(VersionExists):
        publish(store, manifest("v1", other), other, signer)
    assert store.read("versions/p/v1/models/linear.pkl").data == b"model"


def test_a_file_larger_than_the_manifest_says_is_not_read(store: Store, signer: Signer) -> None:
    version = manifest("v1", FILES)
    publish(store, version, FILES, signer)
    key = "versions/p/v1/golden.json"
    store.replace(key, b" " * 1000, store.etag(key))
    with pytest.raises(TooLarge):
        read_file(version, "golden.json", fetch_from(store))


@pytest.mark.parametrize("existing", [b"[]", b"{", b"[" * 100_000])
def test_publishing_over_an_invalid_manifest_is_rejected(store: Store, signer: Signer, existing: bytes) -> None:
    store.create("versions/p/v1/manifest.json", existing)
    with pytest.raises(VersionExists):
        publish(store, manifest("v1", FILES), FILES, signer)


def test_a_changed_or_missing_file_raises_an_integrity_error() -> None:
    version = manifest("v1", FILES)
    with pytest.raises(IntegrityError):
        read_file(version, "golden.json", lambda *_: b"{ }")
    with pytest.raises(IntegrityError):
        read_file(version, "other.json", lambda *_: b"")


def test_a_snapshot_is_stored_once_under_its_digest(store: Store) -> None:
    store.create("raw/t.csv", b"a,b\n1,2\n")
    url, etag = store.url("raw/t.csv"), store.etag("raw/t.csv")
    first = datasets.take_snapshot(store, url, etag, store, "p")
    assert datasets.take_snapshot(store, url, etag, store, "p") == first
    assert store.read(datasets.snapshot_key("p", first.sha256)).data == b"a,b\n1,2\n"
    assert datasets.DatasetSnapshot.from_json(first.to_json()) == first
    store.replace("raw/t.csv", b"a,b\n3,4\n", etag)
    with pytest.raises(datasets.SourceChanged):
        datasets.take_snapshot(store, url, etag, store, "p")


def test_a_cached_file_needs_no_store_and_a_damaged_one_is_downloaded_again(store: Store, tmp_path: Path) -> None:
    store.create("file", b"content")
    cache, sha256 = ModelCache(tmp_path), digest(b"content")
    assert cache.fetch(store, "file", sha256) == b"content"
    missing = Store(store.client, "no-such-bucket-here")
    assert cache.fetch(missing, "file", sha256) == b"content"
    (tmp_path / sha256).write_bytes(b"contenT")
    assert cache.fetch(store, "file", sha256) == b"content"
    assert (tmp_path / sha256).read_bytes() == b"content"


def test_unexpected_content_is_not_cached(store: Store, tmp_path: Path) -> None:
    store.create("file", b"content")
    ModelCache(tmp_path).fetch(store, "file", digest(b"other"))
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == []
