"""Ship finished journal files to the bucket as Parquet, and append what was written to the transparency log.

The key of an object names its journal file, and objects are created once, so a file that is shipped again after a crash gives
no second copy. A file is deleted after its objects are in the log.
"""

from __future__ import annotations

import gc
import hmac
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from podium.prediction_log.journal import OPEN, Entry, finished_segments, read_segment
from podium.prediction_log.labels import labels_prefix
from podium.prediction_log.prediction_table import Privacy, entries_table
from podium.prediction_log.transparency_log import TransparencyLog
from podium.registry.audit_log import entry_key
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.versions import IntegrityError, Manifest, read_manifest
from podium.settings import StoreSettings
from podium.storage.files import atomic_write
from podium.storage.object_store import AlreadyExists, Store, StoreError, digest
from podium.storage.predictions import dashed, logged_key

log = logging.getLogger(__name__)
POLL_SECONDS, MAX_PAUSE, LAST_SECONDS = 0.5, 30.0, 3.0
MAX_FILES = 64
"""Files that are shipped before the log is appended to."""
STATE, FAILED = "shipping.json", ".failed"
VersionKey = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class Written:
    """What the log says of an object, and whether it existed before."""

    facts: dict[str, Any]
    existed: bool


@dataclass(slots=True)
class Shipper:
    """Ships the files of a folder."""

    folder: Path
    store: Store
    signer: Signer
    trainers: VerifyingKeys
    log_name: str = ""
    log: TransparencyLog = field(init=False)
    _manifests: dict[VersionKey, Manifest] = field(default_factory=dict, init=False)
    _logged_promotions: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.log = TransparencyLog(self.store, VerifyingKeys([self.signer.public]), self.log_name)

    def ship(self) -> int:
        """Ship the finished files and return the number of rows. Raises StoreError; what was not shipped stays."""
        rows = 0
        while paths := list(finished_segments(self.folder))[:MAX_FILES]:
            written = [each for path in paths for each in self._write_objects(path)]
            logged = self._recently_logged() if any(each.existed for each in written) else set()
            by_key = {each.facts["key"]: each.facts for each in written}
            new = [facts for key, facts in by_key.items() if key not in logged]
            if new:
                self.log.append([entry_bytes(facts) for facts in new], self.signer)
            self._logged_promotions |= {key for key, facts in by_key.items() if facts["kind"] == "promotion"}
            for path in paths:
                path.unlink(missing_ok=True)
            gc.collect()
            rows += sum(facts["rows"] for facts in new if facts["kind"] == "predictions")
        return rows

    def _write_objects(self, path: Path) -> list[Written]:
        """Write an object per version. A file that cannot be read is kept under another name. Raises StoreError."""
        try:
            return self._written(path)
        except StoreError:
            raise
        except FileNotFoundError:
            return []  # its process has just given it the name of a finished file
        except Exception:
            log.exception("%s cannot be shipped and is kept", path.name)
            path.rename(path.with_suffix(FAILED))
            return []

    def _written(self, path: Path) -> list[Written]:
        groups: dict[VersionKey, list[Entry]] = {}
        for entry in read_segment(path):
            groups.setdefault(entry.version, []).append(entry)
        results = []
        for version, entries in groups.items():
            project, name, _, promotion = version
            if name:
                results += self._promotion(version)
                key = logged_key(project, path.stem, promotion)
                results.append(self._object(key, self._table(path.stem, version, entries), version, "predictions"))
            else:
                key = f"{labels_prefix(project, dashed(path.stem))}{path.stem}.parquet"
                labels = pa.concat_tables([pa.ipc.open_stream(entry.table).read_all() for entry in entries])
                results.append(self._object(key, labels, version, "labels"))
        return results

    def _object(self, key: str, table: pa.Table, version: VersionKey, kind: str) -> Written:
        """Write a table, unless it was written before a crash. Raises ValueError if there is another one."""
        data, existed = parquet_bytes(table), False
        try:
            self.store.create(key, data)
        except AlreadyExists:
            existed, written = True, data
            data = self.store.read(key).data
            if data != written and not pq.read_table(io.BytesIO(data)).equals(table):  # another release may write other bytes
                raise ValueError(f"{key} exists with other content") from None
        return Written({**_facts(key, data, version), "kind": kind, "rows": table.num_rows}, existed)

    def _promotion(self, version: VersionKey) -> list[Written]:
        """Return what the log says of the promotion of a version, the first time; an entry of the audit log never changes."""
        project, _, _, number = version
        key = entry_key(project, number)
        if key in self._logged_promotions:
            return []
        return [Written({**_facts(key, self.store.read(key).data, version), "kind": "promotion"}, existed=True)]

    def _table(self, segment: str, version: VersionKey, entries: Sequence[Entry]) -> pa.Table:
        manifest = self._manifest(version)
        options = manifest.configuration.get("log") or {}
        key = hmac.new(self.signer.private.encode(), b"hashed inputs", sha256).digest()
        privacy = Privacy(tuple(options.get("exclude", ())), tuple(options.get("hash", ())), key)
        return entries_table(entries, segment, manifest.signature, manifest.families, privacy)

    def _manifest(self, version: VersionKey) -> Manifest:
        """Return the manifest of a version. Raises IntegrityError if it is not the one that answered."""
        if version not in self._manifests:
            project, name, expected, _ = version
            manifest, data = read_manifest(self.store, project, name, self.trainers)
            if digest(data) != expected:
                raise IntegrityError(f"the manifest of {project} {name} has changed")
            self._manifests[version] = manifest
        return self._manifests[version]

    def _recently_logged(self) -> set[str]:
        return {json.loads(entry)["key"] for entry in self.log.recent_entries(self.log.checkpoint())}


def _facts(key: str, data: bytes, version: VersionKey) -> dict[str, Any]:
    project, _, _, promotion = version
    written = {"key": key, "sha256": digest(data), "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    return {**written, "project": project, "promotion": promotion}


def entry_bytes(facts: dict[str, Any]) -> bytes:
    """Return an entry of the log."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def parquet_bytes(table: pa.Table) -> bytes:
    file = io.BytesIO()
    texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
    if "inputs" in table.column_names:
        texts += [f"inputs.{field.name}" for field in table.schema.field("inputs").type if pa.types.is_string(field.type)]
    pq.write_table(table, file, compression="zstd", use_dictionary=texts)
    return file.getvalue()


def main(folder: Path) -> None:
    """Ship until the standard input is closed, and then once more. The state is in STATE, beside the folder."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    settings = StoreSettings()
    trainers = VerifyingKeys(settings.trainer_keys, settings.retired_keys).past
    shipper = Shipper(folder, settings.store(10.0), settings.log_signer(), trainers, settings.log_name)
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    os.nice(5)  # answers come first
    gc.disable()  # an entry is many small lists, which are not cyclic; scanning them took most of the time
    pause, rows, shipped_at, deadline = POLL_SECONDS, 0, "", 0.0
    while True:
        is_last, error = ended.is_set(), ""
        while is_last and any(folder.glob(f"*{OPEN}")) and time.monotonic() < deadline:
            time.sleep(0.05)  # other workers are ending, too
        try:
            rows += shipper.ship()
            pause, shipped_at = POLL_SECONDS, datetime.now(UTC).isoformat(timespec="milliseconds")
        except StoreError as failure:
            pause, error = min(2 * pause, MAX_PAUSE), f"{type(failure).__name__}; see the service's log"
            log.warning("predictions wait on the disk: %s", failure)
        failed = [path.name for path in folder.glob(f"*{FAILED}")]
        error = error or (f"{failed[0]} cannot be shipped; see the service's log" if failed else "")
        state = {"rows": rows, "shipped_at": shipped_at, "error": error, "failed_files": failed}
        try:
            atomic_write(folder.with_name(STATE), json.dumps(state).encode())
        except OSError as failure:  # the disk is full; what is shipped next makes space
            log.warning("%s cannot be written: %s", STATE, failure.strerror)
        if is_last:
            return
        if ended.wait(pause):
            deadline = time.monotonic() + LAST_SECONDS


def _wait_for_end(ended: threading.Event) -> None:
    """Wait until the process that started this one closes the standard input, or ends."""
    sys.stdin.buffer.read()
    ended.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
