"""Check that an object store has the semantics on which Podium's promises rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

from podium.storage.object_store import AlreadyExists, NotFound, PreconditionFailed, Store, StoreError

WRITERS = 8


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """One property of a store: whether it has it, and what was seen if not."""

    name: str
    passed: bool
    detail: str = ""


def check_store(store: Store) -> Iterator[StoreCheck]:
    """Write, read and list objects under `store-check/`, and yield a result for each property that is needed."""
    prefix = f"store-check/{uuid4().hex}/"
    checks = {
        "an object is read as it was written": _reads_what_was_written,
        "it is listed at once": _is_listed,
        "creating it again is refused (If-None-Match: *)": _creates_once,
        "replacing it needs its ETag (If-Match)": _replaces_by_etag,
        f"of {WRITERS} writers that create the same object, one succeeds": _one_creator,
        f"of {WRITERS} writers that replace the same object, one succeeds": _one_replacer,
        "a read can start anywhere (Range)": _reads_a_range,
        "an unchanged object is not sent again (If-None-Match)": _not_modified,
        "a missing object is NotFound": _missing,
    }
    for number, (name, check) in enumerate(checks.items()):
        try:
            problem = check(store, f"{prefix}{number} +ü")
        except Exception as error:  # an unknown store may answer anything
            problem = f"{type(error).__name__}: {error}"
        yield StoreCheck(name, not problem, problem)


def _reads_what_was_written(store: Store, key: str) -> str:
    data = os.urandom(100_000)
    etag, blob = store.create(key, data), store.read(key)
    return "" if (blob.data, blob.etag) == (data, etag) else "other bytes or another ETag"


def _is_listed(store: Store, key: str) -> str:
    store.create(key, b"x")
    return "" if [info.key for info in store.list_objects(key)] == [key] else "it is missing"


def _refused(error: type[StoreError], write: Callable[[], object]) -> str:
    try:
        write()
    except error:
        return ""
    return "it was accepted"


def _creates_once(store: Store, key: str) -> str:
    store.create(key, b"first")
    return _refused(AlreadyExists, lambda: store.create(key, b"second"))


def _replaces_by_etag(store: Store, key: str) -> str:
    first = store.create(key, b"first")
    store.replace(key, b"second", first)
    return _refused(PreconditionFailed, lambda: store.replace(key, b"third", first))


def _winners(write: Callable[[int], object]) -> str:
    def wins(number: int) -> bool:
        try:
            write(number)
        except (AlreadyExists, PreconditionFailed):
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        winners = sum(pool.map(wins, range(WRITERS)))
    return "" if winners == 1 else f"{winners} succeeded"


def _one_creator(store: Store, key: str) -> str:
    return _winners(lambda number: store.create(key, b"%d" % number))


def _one_replacer(store: Store, key: str) -> str:
    etag = store.create(key, b"first")
    return _winners(lambda number: store.replace(key, b"%d" % number, etag))


def _reads_a_range(store: Store, key: str) -> str:
    store.create(key, b"0123456789")
    return "" if store.read_start(key, 4) == b"0123" else "other bytes"


def _not_modified(store: Store, key: str) -> str:
    etag = store.create(key, b"x")
    return "" if store.read_if_new(key, etag) is None else "it was sent"


def _missing(store: Store, key: str) -> str:
    return _refused(NotFound, lambda: store.read(key))
