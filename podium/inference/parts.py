"""Predict a table of many files by any number of workers, which need only the bucket to share the work.

Under one prefix, all create-only: `list-N.json` (the version and the parts), `claims/PART.N` (who works on a part), `PART.csv`
(its result) and `receipts/PART.json`. A worker that died is replaced when its claim is older than the lease, or at once by a
worker of the same machine. Results are the same bytes whoever makes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from podium.inference.inbox import ProcessingOptions, predict_table
from podium.inference.served_model import ServedModel
from podium.registry.audit_entry import AuditEntry
from podium.schema.data_errors import BadData
from podium.storage.object_store import AlreadyExists, NotFound, ObjectInfo, PreconditionFailed, Store, StoreError, TooLarge
from podium.storage.table_parts import ENDINGS

POLL_SECONDS = 5.0


class Part(BaseModel):
    """A file of the table."""

    model_config = ConfigDict(frozen=True)

    key: str
    etag: str
    size: int

    @property
    def name(self) -> str:
        """A name that is different for each content of each file."""
        digest = hashlib.sha256(f"{self.key} {self.etag}".encode()).hexdigest()[:12]
        return f"{self.key.rsplit('/', 1)[-1].split('.')[0]}-{digest}"


class PartList(BaseModel):
    """The parts of a table, and the version that predicts them all."""

    model_config = ConfigDict(frozen=True)

    number: int
    project: str
    version: str
    promotion: int
    source: str
    parts: tuple[Part, ...]
    left_out: tuple[str, ...] = ()
    """Keys of objects of no bytes, and of those that are not named as a table."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files with a prefix in a bucket."""

    store: Store
    prefix: str

    @property
    def url(self) -> str:
        return self.store.url(self.prefix)

    def parts(self) -> tuple[tuple[Part, ...], tuple[str, ...]]:
        """Return the tables, and the keys of what is left out. Raises StoreError if there is no table."""
        infos = [info for info in self.store.list_objects(self.prefix) if not info.key.endswith("/")]
        tables = [info for info in infos if info.key.lower().endswith(ENDINGS) and info.size]
        if not tables:
            raise StoreError(f"{self.url} has no files that end with {', '.join(ENDINGS)}")
        found = {info.key for info in tables}
        parts = tuple(Part(key=info.key, etag=info.etag, size=info.size) for info in tables)
        return parts, tuple(info.key for info in infos if info.key not in found)


def latest_list(store: Store, prefix: str) -> PartList | None:
    """Return the newest list of parts. Raises StoreError."""
    numbers = [int(name) for name in store.names(f"{prefix}list-", ".json")]
    if not numbers:
        return None
    return PartList.model_validate_json(store.read(f"{prefix}list-{max(numbers)}.json").data)


def agree_on_parts(store: Store, prefix: str, source: Source, entry: AuditEntry) -> PartList:
    """Return the list that all workers use: of the parts as they are now, with the version of the first list.

    Raises StoreError.
    """
    assert entry.champion
    while True:
        listed, (parts, left_out) = latest_list(store, prefix), source.parts()
        if listed and listed.parts == parts:
            return listed
        new = PartList(
            number=listed.number + 1 if listed else 1,
            project=entry.project,
            version=listed.version if listed else entry.champion,
            promotion=listed.promotion if listed else entry.sequence,
            source=source.url,
            parts=parts,
            left_out=left_out,
        )
        with contextlib.suppress(AlreadyExists):
            store.create(f"{prefix}list-{new.number}.json", new.model_dump_json(indent=1).encode())
            return new


@dataclass(frozen=True, slots=True)
class PartsJob:
    """The predictions of a list of parts."""

    store: Store
    prefix: str
    source: Source
    listed: PartList
    lease: timedelta = timedelta(minutes=15)
    """How long a part may take."""

    def receipt_key(self, part: Part) -> str:
        return f"{self.prefix}receipts/{part.name}.json"

    def waiting(self) -> list[Part]:
        """Return the parts without a receipt."""
        done = set(self.store.names(f"{self.prefix}receipts/", ".json"))
        return [part for part in self.listed.parts if part.name not in done]

    def work(self, model: ServedModel, options: ProcessingOptions) -> Iterator[dict[str, Any]]:
        """Predict parts until all have a receipt, and yield the receipts that this worker wrote. Raises StoreError."""
        worker = f"{socket.gethostname()} {os.getpid()}"
        while waiting := self.waiting():
            claims, found = self._claims(), False
            random.shuffle(waiting)
            for part in waiting:
                if self._claim(part, claims.get(part.name, ()), worker):
                    found = True
                    yield self._predict(part, model, options, worker)
            if not found:
                time.sleep(POLL_SECONDS)

    def _claims(self) -> Mapping[str, Sequence[ObjectInfo]]:
        """Return the claims of each part."""
        claims: dict[str, list[ObjectInfo]] = {}
        for info in self.store.list_objects(f"{self.prefix}claims/"):
            claims.setdefault(info.key.rsplit("/", 1)[-1].rsplit(".", 1)[0], []).append(info)
        return claims

    def _claim(self, part: Part, claims: Sequence[ObjectInfo], worker: str) -> bool:
        """Return whether the part is this worker's: nobody has claimed it, or only workers that have not finished in time."""
        if claims and not self._is_given_up(max(claims, key=lambda info: info.modified)):
            return False
        try:
            self.store.create(f"{self.prefix}claims/{part.name}.{len(claims)}", worker.encode())
        except AlreadyExists:
            return False
        return not self.store.exists(self.receipt_key(part))

    def _is_given_up(self, claim: ObjectInfo) -> bool:
        """Return whether the worker of a claim is late, or was a process of this machine that has ended."""
        if claim.modified < datetime.now(UTC) - self.lease:
            return True
        host, _, process = self.store.read(claim.key).data.decode(errors="replace").partition(" ")
        return host == socket.gethostname() and process.isdecimal() and not psutil.pid_exists(int(process))

    def _predict(self, part: Part, model: ServedModel, options: ProcessingOptions, worker: str) -> dict[str, Any]:
        started, url = time.monotonic(), self.source.store.url(part.key)
        facts: dict[str, Any] = {"source": url, "etag": part.etag, "version": self.listed.version, "by": worker}
        try:
            data = self.source.store.read(part.key, if_match=part.etag, max_bytes=options.max_bytes).data
            facts["source_sha256"] = hashlib.sha256(data).hexdigest()
            predicted = predict_table(data, url, model, options)
        except BadData as error:
            is_empty = [problem.code for problem in error.problems] == ["empty-input"]  # as some writers leave behind
            facts |= {"state": "empty" if is_empty else "error", "errors": [problem.as_json() for problem in error.problems]}
        except TooLarge as error:
            facts |= {"state": "error", "errors": [{"code": "too-large", "message": str(error)}]}
        except (PreconditionFailed, NotFound):
            facts |= {"state": "error", "errors": [{"code": "changed", "message": "changed after it was listed: run again"}]}
        else:
            key = f"{self.prefix}{part.name}.csv"
            with contextlib.suppress(AlreadyExists):  # by a worker that was given up too early: the same bytes
                self.store.create(key, predicted.csv)
            sha256 = hashlib.sha256(predicted.csv).hexdigest()
            facts |= {"state": "done", "rows": predicted.rows, "not_predicted": predicted.unknown, "logged": predicted.logged}
            facts |= {"result": self.store.url(key), "sha256": sha256}
        facts |= {"at": options.now().isoformat(timespec="milliseconds"), "seconds": round(time.monotonic() - started, 3)}
        with contextlib.suppress(AlreadyExists):
            self.store.create(self.receipt_key(part), json.dumps(facts, indent=1, ensure_ascii=False).encode())
        return facts

    def summary(self) -> dict[str, Any]:
        """Return the results, the rows and what is wrong with parts, when all parts have a receipt. Raises StoreError."""
        receipts = [json.loads(self.store.read(self.receipt_key(part)).data) for part in self.listed.parts]
        done = [receipt for receipt in receipts if receipt["state"] == "done"]
        return {
            "project": self.listed.project,
            "version": self.listed.version,
            "source": self.listed.source,
            "parts": len(receipts),
            "rows": sum(receipt["rows"] for receipt in done),
            "not_predicted": sum(receipt["not_predicted"] for receipt in done),
            "empty": [receipt["source"] for receipt in receipts if receipt["state"] == "empty"],
            "left_out": self.listed.left_out,
            "worker_seconds": round(sum(receipt["seconds"] for receipt in receipts), 1),
            "results": [{key: receipt[key] for key in ("source", "result", "rows", "sha256")} for receipt in done],
            "problems": [receipt for receipt in receipts if receipt["state"] == "error"],
        }
