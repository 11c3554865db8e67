"""Batch inbox: each table uploaded to `inbox/<project>/` gets a result under `outbox/<project>/`.

A project may configure one more pair of URLs. A receipt next to each result names the ETag of the processed input, so lost,
duplicated and late events are harmless: each state of an input is processed once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from podium.inference.batch import LoggedRows, Score, logged_rows, predict_file
from podium.inference.panel import Scores
from podium.inference.parsed_rows import ParsedRows, ParseOptions
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
"""Maximum size of a decoded table and of a result, as a multiple of the input limit; guards against decompression bombs."""
MAX_RESULT_BYTES = 250_000_000
"""Maximum size of a result, which is held in memory while it is written to the store."""
StoreFactory = Callable[[str], Store]
"""Returns the store of a bucket, given its name. Raises StoreError for a bucket that Podium may not use."""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in a bucket."""

    store: Store
    key: str

    @classmethod
    def of(cls, url: str, open_bucket: StoreFactory, date: str = "") -> ObjectRef:
        bucket, key = split_url(url.replace(DATE_PLACEHOLDER, date))
        return cls(open_bucket(bucket), key)

    def with_suffix(self, suffix: str) -> ObjectRef:
        return ObjectRef(self.store, self.key + suffix)

    @property
    def url(self) -> str:
        return self.store.url(self.key)

    def etag(self) -> str | None:
        """Return the object's ETag, or None if it does not exist."""
        try:
            return self.store.etag(self.key)
        except NotFound:
            return None

    def put(self, data: bytes, etag: str | None) -> None:
        """Replace the object with this ETag, or create it. Raises AlreadyExists, PreconditionFailed."""
        if etag:
            self.store.replace(self.key, data, etag)
        else:
            self.store.create(self.key, data)


@dataclass(frozen=True, slots=True)
class InboxFile:
    """An input table and the location of its result."""

    project: str
    source: ObjectRef
    result: ObjectRef
    etag: str | None = None
    """ETag from a listing, if known."""

    @property
    def receipt(self) -> ObjectRef:
        return self.result.with_suffix(".receipt.json")

    @property
    def error(self) -> ObjectRef:
        return self.result.with_suffix(".error.json")


def inbox_files(store: Store, manifest: Manifest, open_bucket: StoreFactory) -> Iterator[InboxFile]:
    """Yield every input table of a project, processed or not."""
    prefix = f"{INBOX}{manifest.project}/"
    for info in store.list_objects(prefix):
        if not info.key.endswith("/"):
            name = info.key.removeprefix(prefix)
            is_csv = name.endswith(".csv") and not name.endswith(".table.csv")
            ending = "" if is_csv else ".table.csv"  # so that no two inputs share a result
            result = ObjectRef(store, f"{OUTBOX}{manifest.project}/{name}{ending}")
            yield InboxFile(manifest.project, ObjectRef(store, info.key), result, info.etag)
    if configured := configured_inbox(manifest, open_bucket):
        yield configured


def configured_inbox(manifest: Manifest, open_bucket: StoreFactory) -> InboxFile | None:
    """Return the input and result configured in the project; None if unset or if a URL contains a date."""
    urls = manifest.configuration.get("inbox") or {}
    source, result = urls.get("input_url"), urls.get("output_url")
    if not source or not result or DATE_PLACEHOLDER in source + result:
        return None
    return InboxFile(manifest.project, ObjectRef.of(source, open_bucket), ObjectRef.of(result, open_bucket))


def is_waiting(file: InboxFile) -> bool:
    """Return whether the current state of the input has yet to be processed."""
    etag = file.source.etag()
    return etag is not None and read_receipt(file)[1].get("etag") != etag


RecordFile = Callable[[ServedModel, str, bytes, Scores, ParsedRows, int], str]
"""Logs rows of a file: version, caller, SHA-256 of the file, scores, rows, and the number of the first row."""
RecordLabels = Callable[[ServedModel, str, bytes], dict[str, int] | None]
"""Logs the labels of a file, and returns their number for the receipt; None if it is not one of labels. Raises BadData."""


@dataclass(frozen=True, slots=True)
class ProcessingOptions:
    """Scoring function, input limit, clock, the log of rows and of labels, and the models to run.

    Inputs, results and receipts are kept in `archive` too, by day and version, so that later ones do not overwrite them.
    """

    score: Score
    max_bytes: int
    now: Callable[[], datetime]
    archive: Store
    record: RecordFile
    record_labels: RecordLabels | None = None
    families: str = "all"


def process_file(file: InboxFile, snapshot: ServedModel, options: ProcessingOptions) -> dict[str, Any] | None:
    """Process the current state of an input once. Returns the receipt, or None if there was nothing to do.

    The result is written atomically, before its receipt; the loser of a race writes nothing. Raises StoreError.
    """
    etag = file.source.etag()
    receipt_etag, receipt = read_receipt(file)
    if etag is None or receipt.get("etag") == etag:
        return None
    result_etag, error_etag = file.result.etag(), file.error.etag()
    facts: dict[str, Any] = {
        "source": file.source.url,
        "etag": etag,
        "project": snapshot.project,
        "version": snapshot.version,
        "manifest": snapshot.manifest_sha256,
        "models": snapshot.families(options.families),
        "at": options.now().isoformat(timespec="milliseconds"),
    }
    archive = _Archive(options.archive, f"predictions/{snapshot.project}/dt={facts['at'][:10]}/{snapshot.version}/")
    try:
        try:
            data = _read(file.source, etag, options.max_bytes)
            facts["input"] = archive.keep(data, ".input")
            labels = options.record_labels(snapshot, file.source.url, data) if options.record_labels else None
            predicted = PredictedTable(data) if labels is not None else predict_table(data, file.source.url, snapshot, options)
            del data
            if read_receipt(file)[0] != receipt_etag:
                return None  # another replica was faster
        except BadData as error:
            problems = [problem.as_json() for problem in error.problems]
            facts |= {"state": "error", "code": error.code, "detail": str(error), "errors": problems}
            file.error.put(_dump(facts), error_etag)
        else:
            csv = predicted.csv
            facts |= {"not_predicted": predicted.unknown, "why": UNKNOWN_CATEGORY_MESSAGE} if predicted.unknown else {}
            facts |= {"rows": predicted.rows, "logged": predicted.logged} if labels is None else labels
            facts |= {"state": "done", "result": file.result.url, "sha256": hashlib.sha256(csv).hexdigest()}
            facts["kept_result"] = archive.keep(csv, ".csv")
            file.result.put(csv, result_etag)
            if error_etag:
                file.error.put(_dump({"state": "resolved", "receipt": file.receipt.url}), error_etag)
        file.receipt.put(_dump(facts), receipt_etag)
        archive.keep(_dump(facts), ".receipt.json")
    except (AlreadyExists, PreconditionFailed, NotFound):
        return None  # the input changed, or another process was faster; the next scan resolves it
    return facts


@dataclass(frozen=True, slots=True)
class _Archive:
    """A folder of objects that are named after the digest of their content, and never overwritten."""

    store: Store
    prefix: str

    def keep(self, data: bytes, suffix: str) -> str:
        """Store the data unless it is there; return its URL."""
        key = f"{self.prefix}{hashlib.sha256(data).hexdigest()}{suffix}"
        with contextlib.suppress(AlreadyExists):
            self.store.create(key, data)
        return self.store.url(key)


def read_receipt(file: InboxFile) -> tuple[str | None, dict[str, Any]]:
    """Return the receipt's ETag and content; (None, {}) if there is no receipt, and {} as content if it is invalid."""
    try:
        blob = file.receipt.store.read(file.receipt.key)
        receipt = json.loads(blob.data)
    except NotFound:
        return None, {}
    except ValueError:
        return blob.etag, {}
    return blob.etag, receipt if isinstance(receipt, dict) else {}


def _read(source: ObjectRef, etag: str, max_bytes: int) -> bytes:
    """Return the table with this ETag. Raises TooLarge, PreconditionFailed."""
    size = next((info.size for info in source.store.list_objects(source.key) if info.key == source.key), 0)
    if size > max_bytes:
        raise TooLarge([Problem("too-large", f"the file has {size} bytes", expected=f"at most {max_bytes}")])
    return source.store.read(source.key, if_match=etag).data


@dataclass(slots=True)
class PredictedTable:
    """A result as CSV, its number of rows, how many of them have unknown entities, and the ids under which they are logged."""

    csv: bytes = b""
    rows: int = 0
    unknown: int = 0
    logged: list[LoggedRows] = field(default_factory=list)


def predict_table(data: bytes, url: str, snapshot: ServedModel, options: ProcessingOptions) -> PredictedTable:
    """Predict the bytes of a table at a URL. Raises BadData."""
    with tempfile.TemporaryDirectory(prefix="podium-drop-") as folder:
        path = Path(folder) / "table"
        path.write_bytes(data)
        is_panel = snapshot.signature.panel is not None  # forecast with the champion only, for the entities that it knows
        parse_options = ParseOptions(by_row=is_panel, gzipped=url.endswith(".gz"), keep_extra=True)
        families: Sequence[str] = snapshot.families("champion" if is_panel else options.families)
        max_bytes = min(MAX_RESULT_BYTES, MAX_GROWTH * options.max_bytes)
        sha256, predicted, size = hashlib.sha256(data).digest(), PredictedTable(), 0
        with (Path(folder) / "result").open("w+b") as result:
            for chunk in predict_file(
                path,
                snapshot,
                families,
                options.score,
                parse_options,
                problems=not is_panel,
                limits=Limits(decoded_bytes=max_bytes),
                record=functools.partial(options.record, snapshot, url, sha256),
            ):
                if chunk.prediction_id:
                    predicted.logged.append(logged_rows(chunk.prediction_id, predicted.rows, chunk.rows))
                predicted.rows += chunk.rows
                predicted.unknown += chunk.wrong_rows
                size += result.write(chunk.csv)
                if size > max_bytes:
                    raise TooLarge([Problem("too-large", "the result is too large", expected=f"at most {max_bytes} bytes")])
            result.seek(0)
            predicted.csv = result.read()
            return predicted


def _dump(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=1, ensure_ascii=False).encode()


def bucket_opener(own_store: Store, allowed: Sequence[str], open_bucket: StoreFactory) -> StoreFactory:
    """Return a function that opens Podium's own bucket and the `allowed` ones only."""

    def open_allowed(bucket: str) -> Store:
        if bucket == own_store.bucket:
            return own_store
        if bucket not in allowed:
            raise StoreError(f"the bucket {bucket} is not in PODIUM_SOURCE_BUCKETS")
        return open_bucket(bucket)

    return open_allowed
