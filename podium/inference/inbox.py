"""The drop-box: a table put into the bucket is answered by a table put into the bucket.

What lies under `inbox/<project>/` is answered under `outbox/<project>/`, and a project may name one more pair of URLs.
A receipt beside each result says of which state (ETag) of the input it is the answer, so events may be lost, doubled and late:
who looks at inbox and receipts knows what is left to do, and the same state is answered once.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from podium.inference.batch import Score, predict_file
from podium.inference.request_rows import ParseOptions
from podium.inference.served_model import ServedModel
from podium.registry.versions import Manifest
from podium.schema.data_errors import BadData, Problem, TooLarge
from podium.storage.datasets import split_url
from podium.storage.object_store import AlreadyExists, NotFound, PreconditionFailed, Store, StoreError
from podium.tables.input_warnings import UNKNOWN_CATEGORY_MESSAGE
from podium.tables.size_limits import Limits

INBOX, OUTBOX = "inbox/", "outbox/"
DATE_PLACEHOLDER = "{date}"
MAX_GROWTH = 4
"""A table may be decoded to so many times the largest size of a file, and a result may be as large; a file that unpacks to more
is refused."""
MAX_RESULT_BYTES = 250_000_000
"""A result is in memory when it is written to the store."""
Open = Callable[[str], Store]
"""From the name of a bucket to it. Raises StoreError for one that is not Podium's."""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object by its bucket and key."""

    store: Store
    key: str

    @classmethod
    def of(cls, url: str, open_: Open, date: str = "") -> ObjectRef:
        bucket, key = split_url(url.replace(DATE_PLACEHOLDER, date))
        return cls(open_(bucket), key)

    def beside(self, ending: str) -> ObjectRef:
        return ObjectRef(self.store, self.key + ending)

    @property
    def url(self) -> str:
        return self.store.url(self.key)

    def etag(self) -> str | None:
        """None when nothing lies here."""
        try:
            return self.store.etag(self.key)
        except NotFound:
            return None

    def put(self, data: bytes, seen: str | None) -> None:
        """Write over the state that was seen, or as new. Raises Exists, Moved."""
        if seen:
            self.store.replace(self.key, data, seen)
        else:
            self.store.create(self.key, data)


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A table that came, and where its answer goes."""

    project: str
    source: ObjectRef
    result: ObjectRef
    etag: str | None = None
    """The state that a listing showed, where one did."""

    @property
    def receipt(self) -> ObjectRef:
        return self.result.beside(".receipt.json")

    @property
    def error(self) -> ObjectRef:
        return self.result.beside(".error.json")


def inbox_files(store: Store, manifest: Manifest, open_: Open) -> Iterator[InboxFile]:
    """Every table of a project that came, answered or not."""
    prefix = f"{INBOX}{manifest.project}/"
    for key, etag in store.etags(prefix):
        if not key.endswith("/"):
            name = key.removeprefix(prefix)
            is_csv = name.endswith(".csv") and not name.endswith(".table.csv")
            ending = "" if is_csv else ".table.csv"  # so that no two inputs share a result
            yield InboxFile(
                manifest.project, ObjectRef(store, key), ObjectRef(store, f"{OUTBOX}{manifest.project}/{name}{ending}"), etag
            )
    if named := configured_inbox(manifest, open_):
        yield named


def configured_inbox(manifest: Manifest, open_: Open) -> InboxFile | None:
    """The pair of URLs that the project names; none when it names none, or a date in them."""
    urls = manifest.configuration.get("inbox") or {}
    source, result = urls.get("input_url"), urls.get("output_url")
    if not source or not result or DATE_PLACEHOLDER in source + result:
        return None
    return InboxFile(manifest.project, ObjectRef.of(source, open_), ObjectRef.of(result, open_))


def is_waiting(drop: InboxFile) -> bool:
    """Whether there is a table whose present state is not answered."""
    state = drop.source.etag()
    return state is not None and read_receipt(drop)[1].get("etag") != state


@dataclass(frozen=True, slots=True)
class ProcessingOptions:
    """How files are answered: the scores, the largest file, the clock and the names of answers."""

    score: Score
    max_bytes: int
    now: Callable[[], datetime]
    identity: Callable[[], str]
    families: str = "all"


def process_file(drop: InboxFile, snapshot: ServedModel, terms: ProcessingOptions) -> dict[str, Any] | None:
    """Answer the present state of a table, unless that was done; returns the receipt, None when there was nothing to do.

    A result is there whole or not at all, and before its receipt; who comes second writes nothing. Raises StoreError.
    """
    state = drop.source.etag()
    receipt_state, receipt = read_receipt(drop)
    if state is None or receipt.get("etag") == state:
        return None
    result_state, error_state = drop.result.etag(), drop.error.etag()
    facts: dict[str, Any] = {
        "source": drop.source.url,
        "etag": state,
        "project": snapshot.project,
        "version": snapshot.version,
        "manifest": snapshot.manifest_sha256,
        "models": snapshot.families(terms.families),
        "prediction_id": terms.identity(),
        "at": terms.now().isoformat(timespec="milliseconds"),
    }
    try:
        try:
            csv, rows, unknown = _predict(_read(drop.source, state, terms.max_bytes), drop, snapshot, terms)
            if read_receipt(drop)[0] != receipt_state:
                return None  # another replica was faster
        except BadData as error:
            problems = [problem.as_json() for problem in error.problems]
            facts |= {"state": "error", "code": error.code, "detail": str(error), "errors": problems}
            drop.error.put(_dump(facts), error_state)
        else:
            facts |= {"not_predicted": unknown, "why": UNKNOWN_CATEGORY_MESSAGE} if unknown else {}
            facts |= {"state": "done", "result": drop.result.url, "rows": rows, "sha256": hashlib.sha256(csv).hexdigest()}
            drop.result.put(csv, result_state)
            if error_state:
                drop.error.put(_dump({"state": "resolved", "receipt": drop.receipt.url}), error_state)
        drop.receipt.put(_dump(facts), receipt_state)
    except (AlreadyExists, PreconditionFailed, NotFound):
        return None  # the input was written again, or somebody else answered: the next look knows
    return facts


def read_receipt(drop: InboxFile) -> tuple[str | None, dict[str, Any]]:
    """The receipt's ETag and what it says; nothing where there is none, or no such."""
    try:
        blob = drop.receipt.store.read(drop.receipt.key)
        found = json.loads(blob.data)
    except NotFound:
        return None, {}
    except ValueError:
        return blob.etag, {}
    return blob.etag, found if isinstance(found, dict) else {}


def _read(source: ObjectRef, state: str, most: int) -> bytes:
    """The table in this state, if it is not too large to be read. Raises TooLarge, Moved."""
    size = next((size for key, size, _ in source.store.entries(source.key) if key == source.key), 0)
    if size > most:
        raise TooLarge([Problem("too-large", f"has {size} bytes", expected=f"at most {most}")])
    return source.store.read(source.key, seen=state).data


def _predict(data: bytes, drop: InboxFile, snapshot: ServedModel, terms: ProcessingOptions) -> tuple[bytes, int, int]:
    """The result as CSV, how many rows it has, and how many of them are of unknown entities. Raises BadData."""
    with tempfile.TemporaryDirectory(prefix="podium-drop-") as folder:
        path = Path(folder) / "table"
        path.write_bytes(data)
        del data
        forecasts = snapshot.signature.panel is not None  # those of the champion, for the entities that it knows
        asked = ParseOptions(by_row=forecasts, gzipped=drop.source.key.endswith(".gz"), keep_extra=True)
        families: Sequence[str] = snapshot.families("champion" if forecasts else terms.families)
        most = min(MAX_RESULT_BYTES, MAX_GROWTH * terms.max_bytes)
        rows = wrong = size = 0
        with (Path(folder) / "result").open("w+b") as result:
            for piece in predict_file(
                path, snapshot, families, terms.score, asked, problems=not forecasts, limits=Limits(decoded_bytes=most)
            ):
                rows += piece.rows
                wrong += piece.wrong_rows
                size += result.write(piece.csv)
                if size > most:
                    raise TooLarge([Problem("too-large", "the result is too large", expected=f"at most {most} bytes")])
            result.seek(0)
            return result.read(), rows, wrong


def _dump(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=1, ensure_ascii=False).encode()


def bucket_opener(own: Store, others: Sequence[str], open_: Open) -> Open:
    """Opens Podium's own bucket and those that it was told of, and no other."""

    def opened(bucket: str) -> Store:
        if bucket == own.bucket:
            return own
        if bucket not in others:
            raise StoreError(f"the bucket {bucket} is not in PODIUM_SOURCE_BUCKETS")
        return open_(bucket)

    return opened
