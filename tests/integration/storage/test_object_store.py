"""What Podium needs of S3, on moto and on SeaweedFS alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from podium.registry.audit_log import alias_states, project_names
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


def test_what_is_written_is_read(store: Store) -> None:
    etag = store.create("a/b c+ü.bin", b"\x00\xff")
    blob = store.read("a/b c+ü.bin")
    assert (blob.data, blob.etag) == (b"\x00\xff", etag)
    assert store.exists("a/b c+ü.bin")
    assert not store.exists("a/b")
    assert list(store.keys("a/")) == ["a/b c+ü.bin"]


def test_what_is_not_there_is_said_not_to_be(store: Store) -> None:
    for call in (store.read, store.etag, lambda key: store.read_if_new(key, None)):
        with pytest.raises(NotFound):
            call("nothing")


class Refuses(io.RawIOBase):
    """A body that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError("the body was read")


class WatchesBodies:
    """A client whose bodies must not be read."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get_object(self, **arguments: Any) -> Any:
        answer = self._client.get_object(**arguments)
        answer["Body"].close()
        return {**answer, "Body": Refuses()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_an_object_that_is_too_large_is_not_read(store: Store) -> None:
    store.create("large", b"x" * 1001)
    assert len(store.read("large", max_bytes=1001).data) == 1001
    watching = Store(WatchesBodies(store.client), store.bucket)
    for read in (lambda: watching.read("large", max_bytes=1000), lambda: watching.read_if_new("large", None, 1000)):
        with pytest.raises(TooLarge, match="has 1001 bytes, at most 1000"):
            read()


def test_an_object_is_created_once(store: Store) -> None:
    store.create("once", b"first")
    with pytest.raises(AlreadyExists):
        store.create("once", b"second")
    assert store.read("once").data == b"first"


def test_an_object_is_replaced_only_as_it_was_seen(store: Store) -> None:
    first = store.create("alias", b"1")
    second = store.replace("alias", b"2", first)
    with pytest.raises(PreconditionFailed):
        store.replace("alias", b"3", first)
    with pytest.raises(PreconditionFailed):
        store.replace("never", b"3", first)
    assert store.read("alias").data == b"2"
    assert store.read_if_new("alias", second) is None
    assert store.read("alias", seen=second).data == b"2"
    with pytest.raises(PreconditionFailed):
        store.read("alias", seen=first)


def test_one_listing_gives_the_aliases_with_the_etags_that_reading_gives(store: Store) -> None:
    keys = ["aliases/a/champion.json", "aliases/b-2/champion.json"]
    bogus = ["aliases/A/champion.json", "aliases/a b/champion.json", "aliases/c/d/champion.json", "aliases/c/champion.json.x"]
    bogus += [
        f"aliases/{'x' * 65}/champion.json",
        "aliases/c/challenger.json",
        "aliases/champion.json",
        "aliases/-/champion.json",
    ]
    for key in keys + bogus:
        store.create(key, key.encode())
    assert alias_states(store) == {"a": store.read(keys[0]).etag, "b-2": store.read(keys[1]).etag}
    assert store.read_if_new(keys[0], alias_states(store)["a"]) is None
    assert project_names(store) == ["a", "b-2"]


def test_a_bucket_that_is_not_there_is_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError):
        list(Store(store.client, "no-such-bucket-here").keys(""))


class LosesReplies:
    """A client whose first conditional write gets through while its answer is lost, as the SDK retries it."""

    def __init__(self, client: Any) -> None:
        self._client, self._lost = client, False

    def put_object(self, **arguments: Any) -> Any:
        if not self._lost:
            self._lost = True
            self._client.put_object(**arguments)  # the SDK sees no answer and sends the same again:
        return self._client.put_object(**arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_write_whose_answer_was_lost_is_known_as_ones_own(store: Store) -> None:
    etag = Store(LosesReplies(store.client), store.bucket).create("mine", b"x")
    assert store.read("mine").etag == etag
    assert Store(LosesReplies(store.client), store.bucket).replace("mine", b"y", etag)
    assert store.read("mine").data == b"y"


class Conflicts:
    """A client that is told 409 twice before its write is taken."""

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


def test_a_conflict_is_tried_again(store: Store) -> None:
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
        lock=None,
        author="ann",
        predictions="",
    )


FILES = {"models/linear.pkl": b"model", "golden.json": b"{}"}


def test_a_version_is_there_when_its_manifest_is(store: Store, signer: Signer) -> None:
    bound = manifest("v1", FILES)
    keys = VerifyingKeys([signer.public])
    with pytest.raises(NotPublished):
        read_manifest(store, "p", "v1", keys)
    store.create("versions/p/v0/models/linear.pkl", b"a version that was never finished")
    publish(store, bound, FILES, signer)
    assert read_manifest(store, "p", "v1", keys)[0].model_copy(update={"signatures": {}}) == bound
    with pytest.raises(Unsigned):
        read_manifest(store, "p", "v1", VerifyingKeys([Signer.new().public]))
    assert list_versions(store, "p") == ["v1"]
    assert read_file(bound, "golden.json", fetch_from(store)) == b"{}"


def test_publishing_again_changes_nothing_and_never_overwrites(store: Store, signer: Signer) -> None:
    publish(store, manifest("v1", FILES), FILES, signer)
    publish(store, manifest("v1", FILES), FILES, signer)
    other = {**FILES, "models/linear.pkl": b"other"}
    with pytest.raises(VersionExists):
        publish(store, manifest("v1", other), other, signer)
    assert store.read("versions/p/v1/models/linear.pkl").data == b"model"


def test_a_file_that_has_grown_is_not_read(store: Store, signer: Signer) -> None:
    bound = manifest("v1", FILES)
    publish(store, bound, FILES, signer)
    key = "versions/p/v1/golden.json"
    store.replace(key, b" " * 1000, store.etag(key))
    with pytest.raises(TooLarge):
        read_file(bound, "golden.json", fetch_from(store))


@pytest.mark.parametrize("there", [b"[]", b"{", b"[" * 100_000])
def test_publishing_over_what_is_no_manifest_is_refused(store: Store, signer: Signer, there: bytes) -> None:
    store.create("versions/p/v1/manifest.json", there)
    with pytest.raises(VersionExists):
        publish(store, manifest("v1", FILES), FILES, signer)


def test_a_changed_file_is_damaged() -> None:
    bound = manifest("v1", FILES)
    with pytest.raises(IntegrityError):
        read_file(bound, "golden.json", lambda *_: b"{ }")
    with pytest.raises(IntegrityError):
        read_file(bound, "other.json", lambda *_: b"")


def test_a_snapshot_is_kept_once_under_its_digest(store: Store) -> None:
    store.create("raw/t.csv", b"a,b\n1,2\n")
    url, etag = store.url("raw/t.csv"), store.etag("raw/t.csv")
    first = datasets.take_snapshot(store, url, etag, store, "p")
    assert datasets.take_snapshot(store, url, etag, store, "p") == first
    assert store.read(datasets.snapshot_key("p", first.sha256)).data == b"a,b\n1,2\n"
    assert datasets.from_json(datasets.to_json(first)) == first
    store.replace("raw/t.csv", b"a,b\n3,4\n", etag)
    with pytest.raises(datasets.SourceChanged):
        datasets.take_snapshot(store, url, etag, store, "p")


def test_a_cached_file_needs_no_store_and_a_damaged_one_is_fetched_again(store: Store, tmp_path: Path) -> None:
    store.create("file", b"content")
    cache, sha256 = ModelCache(tmp_path), digest(b"content")
    assert cache.fetch(store, "file", sha256) == b"content"
    nowhere = Store(store.client, "no-such-bucket-here")
    assert cache.fetch(nowhere, "file", sha256) == b"content"
    (tmp_path / sha256).write_bytes(b"contenT")
    assert cache.fetch(store, "file", sha256) == b"content"
    assert (tmp_path / sha256).read_bytes() == b"content"


def test_what_is_not_the_expected_content_is_not_cached(store: Store, tmp_path: Path) -> None:
    store.create("file", b"content")
    ModelCache(tmp_path).fetch(store, "file", digest(b"other"))
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == []
