"""Verify logged predictions: find them, prove that they are in the log, and compute them again from the logged inputs."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from podium.models.model import Model
from podium.prediction_log.merkle import WIDTH
from podium.prediction_log.prediction_table import (
    PREDICTION_ID,
    logged_inputs,
    logged_keys,
    logged_scores,
    recomputed_predictions,
)
from podium.prediction_log.transparency_log import Checkpoint, TransparencyLog
from podium.registry.audit_entry import AuditEntry, parse_entry
from podium.registry.audit_log import entry_key
from podium.registry.loading import load_manifest, load_model
from podium.registry.signing import TrustPolicy, VerifyingKeys
from podium.registry.versions import Fetch, IntegrityError, Manifest
from podium.storage.object_store import NotFound, Store, StoreError, digest
from podium.storage.predictions import predictions_prefix

CLOCK_TOLERANCE = timedelta(minutes=10)
"""How far the clocks of the processes that write to the log may differ."""


LoadModels = Callable[[str, str, str], tuple[Manifest, Mapping[str, Model]]]
"""Returns the manifest with this digest and the models of a project's version. Raises StoreError."""


def loader(fetch: Fetch, trainers: VerifyingKeys) -> LoadModels:
    """Return a function that loads versions in this process, with the signed digests checked."""

    def load(project: str, version: str, sha256: str) -> tuple[Manifest, Mapping[str, Model]]:
        manifest = load_manifest(project, version, sha256, fetch, trainers)
        return manifest, {family: load_model(manifest, family, fetch) for family in manifest.families}

    return load


class PredictionNotFound(StoreError):
    """There is no logged prediction with this id."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a verification, and whether it succeeded."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class Verification:
    """The steps of the verification of a prediction, up to the first that failed, and what is known about it."""

    prediction_id: str
    stages: list[Stage] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    version: dict[str, Any] = field(default_factory=dict)
    promotion: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(stage.ok for stage in self.stages)

    @property
    def verdict(self) -> str:
        """`MATCH`, or the name of the first step that failed."""
        return next((f"DIFFERS: {stage.name}" for stage in self.stages if not stage.ok), "MATCH")

    def as_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}


@dataclass(slots=True)
class Verifier:
    """Verifies predictions with the bucket alone, given the keys that are trusted."""

    store: Store
    trust: TrustPolicy
    log: TransparencyLog
    load: LoadModels
    _models: dict[tuple[str, str, str], tuple[Manifest, Mapping[str, Model]]] = field(default_factory=dict, init=False)

    def verify(self, prediction_id: str, project: str = "") -> Verification:
        """Verify one prediction. Raises PredictionNotFound, StoreError."""
        result = Verification(prediction_id)
        key, data, table = self.find(prediction_id, project)
        result.predictions = _as_rows(table)
        _step(result, "included in the signed log", lambda: self._check_logged(key, data))
        _step(result, "version and its signature", lambda: self._describe_version(table, result))
        _step(result, "promotion and its signature", lambda: self._describe_promotion(table, result))
        _step(result, "computed again from the logged inputs", lambda: self._recompute(table))
        return result

    def find(self, prediction_id: str, project: str = "") -> tuple[str, bytes, pa.Table]:
        """Return the key and the bytes of the object of a prediction, and its rows. Raises PredictionNotFound, StoreError."""
        match = PREDICTION_ID.fullmatch(prediction_id)
        if not match:
            raise PredictionNotFound(f"{prediction_id[:100]!r} is not the id of a logged prediction")
        segment = match[1]
        for name in [project] if project else self.store.folders("predictions/"):
            for info in self.store.list_objects(f"{predictions_prefix(name, segment)}{segment}-"):
                data = self.store.read(info.key).data
                table = _read(info.key, data)
                rows = table.filter(pc.equal(table["prediction_id"], prediction_id))
                if rows.num_rows:
                    return info.key, data, rows
        raise PredictionNotFound(f"there is no logged prediction {prediction_id}; it is written a few seconds after its answer")

    # --- steps -------------------------------------------------------------------------------------------------------------

    def _check_logged(self, key: str, data: bytes) -> str:
        """Find the log's entry for an object by its time, and prove that it is in the log. Raises IntegrityError."""
        checkpoint = self.log.checkpoint()
        for index, entry in self._entries_near(_day_of(key), checkpoint):
            facts = json.loads(entry)
            if facts.get("key") == key:
                if facts["sha256"] != digest(data):
                    raise IntegrityError(f"{key} is not the object that was logged: {facts['sha256'][:12]} was")
                proof = self.log.check_inclusion(entry, index, checkpoint)
                return f"entry {index} of {checkpoint.size}, proof of {32 * len(proof)} bytes"
        raise IntegrityError(f"the log has no entry for {key}")

    def _entries_near(self, day: datetime, checkpoint: Checkpoint) -> Iterator[tuple[int, bytes]]:
        """Yield the entries from a day on; those of a log are nearly in the order of their times."""
        first, last = 0, max(0, (checkpoint.size - 1) // WIDTH)
        while first < last:
            middle = (first + last + 1) // 2
            start = next(self.log.entries(checkpoint.size, middle * WIDTH))
            if datetime.fromisoformat(json.loads(start)["at"]) < day - CLOCK_TOLERANCE:
                first = middle
            else:
                last = middle - 1
        yield from enumerate(self.log.entries(checkpoint.size, first * WIDTH), first * WIDTH)

    def _describe_version(self, table: pa.Table, result: Verification) -> str:
        manifest, _ = self._version(table)
        result.version = {
            "project": manifest.project,
            "version": manifest.version,
            "created": manifest.created,
            "author": manifest.author,
            "data": manifest.data,
            "configuration_sha256": digest(json.dumps(manifest.configuration, sort_keys=True).encode()),
            "git": manifest.git,
            "libraries": manifest.libraries,
            "run": manifest.run,
        }
        return f"{manifest.project} {manifest.version}, signed by {', '.join(sorted(manifest.signatures))}"

    def _describe_promotion(self, table: pa.Table, result: Verification) -> str:
        entry = self._promotion(table)
        result.promotion = entry.model_dump(mode="json", include={"sequence", "action", "by", "reason", "at", "evidence"})
        passed = sum(gate.passed for gate in entry.evidence)
        return f"{entry.action} by {entry.by} at {entry.at}, {passed} of {len(entry.evidence)} gates passed"

    def _promotion(self, table: pa.Table) -> AuditEntry:
        project, number = (table[name][0].as_py() for name in ("project", "promotion"))
        try:
            entry = parse_entry(self.store.read(entry_key(project, number)).data, project, self.trust.promoters.past)
        except NotFound:
            raise IntegrityError(f"entry {number} of the audit log of {project} is missing") from None
        champion = entry.champion, entry.manifest_sha256
        if champion != (table["version"][0].as_py(), table["manifest_sha256"][0].as_py()):
            raise IntegrityError(f"entry {number} of the audit log made {entry.champion} the champion")
        return entry

    def _recompute(self, table: pa.Table) -> str:
        """Compare scores and predictions to the bit. Raises IntegrityError."""
        manifest, models = self._version(table)
        frame = logged_inputs(table, manifest.signature)
        if frame is None:
            raise IntegrityError("inputs are excluded from the log or hashed, so the prediction cannot be computed again")
        logged = logged_scores(table)
        for family, scores in logged.items():
            again = models[family].scores(frame)
            if again.shape != scores.shape or not np.array_equal(again.view(np.int64), scores.view(np.int64)):
                raise IntegrityError(f"{family} gives {again[0].tolist()}, logged {scores[0].tolist()}")
        main = table["model"][0].as_py()
        predictions = recomputed_predictions(manifest.signature, logged[main], logged_keys(table, manifest.signature))
        if not predictions.equals(table["prediction"].combine_chunks()):
            raise IntegrityError("the prediction does not follow from the scores")
        return f"{table.num_rows} rows, {', '.join(logged)}"

    def _version(self, table: pa.Table) -> tuple[Manifest, Mapping[str, Model]]:
        project, version, sha256 = (table[name][0].as_py() for name in ("project", "version", "manifest_sha256"))
        if (project, version, sha256) not in self._models:
            self._models[project, version, sha256] = self.load(project, version, sha256)
        return self._models[project, version, sha256]

    # --- days --------------------------------------------------------------------------------------------------------------

    def verify_day(self, project: str, day: str) -> DayResult:
        """Check every logged prediction of a project on a day (YYYY-MM-DD): signed log, version, promotion, and recomputation.

        Raises IntegrityError if the log itself is not valid.
        """
        checkpoint, entries = self.log.check_all()
        prefix, result = predictions_prefix(project, day.replace("-", "")), DayResult(project, day, checkpoint.size)
        logged = {
            facts["key"]: facts["sha256"] for facts in map(json.loads, entries) if facts.get("key", "").startswith(prefix)
        }
        found = {info.key for info in self.store.list_objects(prefix) if info.key.endswith(".parquet")}
        result.problems += [f"{key} is missing" for key in sorted(logged.keys() - found)]
        for key in sorted(found):
            try:
                self._check_object(key, logged, result)
            except (IntegrityError, NotFound) as error:
                result.problems.append(f"{key}: {error}")
        return result

    def _check_object(self, key: str, logged: Mapping[str, str], result: DayResult) -> None:
        data = self.store.read(key).data
        if key not in logged:
            raise IntegrityError("is not in the log")
        if digest(data) != logged[key]:
            raise IntegrityError("is not the object that was logged")
        table = _read(key, data)
        result.rows += table.num_rows
        self._promotion(table)
        for part in _comparable_parts(table):
            try:
                self._recompute(part)
                result.matches += part.num_rows
            except IntegrityError as error:
                result.problems.append(f"{part['prediction_id'][0].as_py()}: {error}")


def promotion_problems(store: Store, entries: Sequence[bytes]) -> list[str]:
    """Return which entries of audit logs are not as they were when they first answered."""
    problems = []
    for facts in map(json.loads, entries):
        if facts["kind"] == "promotion":
            try:
                if digest(store.read(facts["key"]).data) != facts["sha256"]:
                    problems.append(f"{facts['key']} is not the entry that was logged")
            except NotFound:
                problems.append(f"{facts['key']} is missing")
    return problems


@dataclass(slots=True)
class DayResult:
    """How many logged rows of a day were computed again to the bit, and what is wrong."""

    project: str
    day: str
    log_size: int
    rows: int = 0
    matches: int = 0
    problems: list[str] = field(default_factory=list)


def _comparable_parts(table: pa.Table) -> Iterator[pa.Table]:
    """Yield rows that can be computed together: those of the same models, or of the same forecast of a panel."""
    if "keys" in table.column_names:
        names: Sequence[str] = ["prediction_id"]
    else:
        scores = table["scores"].combine_chunks()
        asked = [cells.is_valid() for cells in scores.flatten()]
        table = table.append_column("asked", pc.binary_join_element_wise(*[each.cast(pa.string()) for each in asked], ","))
        names = ["model", "asked"]
    keys = pc.binary_join_element_wise(*[table[name] for name in names], ";")
    for value in pc.unique(keys):
        yield table.filter(pc.equal(keys, value))


def _step(result: Verification, name: str, check: Callable[[], str]) -> None:
    """Add a step, unless one has failed."""
    if result.ok:
        try:
            result.stages.append(Stage(name, True, check()))
        except (IntegrityError, NotFound) as error:
            result.stages.append(Stage(name, False, str(error)))


def _read(key: str, data: bytes) -> pa.Table:
    with contextlib.suppress(pa.ArrowInvalid, OSError):
        return pq.read_table(io.BytesIO(data))
    raise IntegrityError(f"{key} is damaged")


def _day_of(key: str) -> datetime:
    return datetime.fromisoformat(key.split("/dt=")[1][:10] + "T00:00:00+00:00")


def _as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the logged rows as JSON values, without the scores of models that were not asked."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row["at"] = row["at"].isoformat(timespec="milliseconds")
        row["inputs"] = {name: cell.hex() if isinstance(cell, bytes) else cell for name, cell in row["inputs"].items()}
        row["scores"] = {family: scores for family, scores in row["scores"].items() if scores is not None}
    return rows
