"""The signed record of a retraining: why, on which data, with which result, and who decided."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from podium.registry.audit_entry import GateResult
from podium.registry.signing import SIGNATURES, Signer, VerifyingKeys
from podium.registry.versions import IntegrityError
from podium.storage.object_store import MAX_DOCUMENT_BYTES, NotFound, Store

Trigger = Literal["demand", "schedule", "alarm", "labels"]
Decision = Literal["promoted", "refused", "unchanged"]


class RetrainRecord(BaseModel):
    """What a retraining as of a day did.

    `version` was trained at `created`: earlier, if a run had the same data and configuration, and `unchanged` if that was the
    retraining before. `number` is the audit-log entry of the decision. `data_changes` and `configuration_changes` are relative
    to the retraining before.
    """

    model_config = ConfigDict(frozen=True)

    project: str
    date: str
    trigger: Trigger
    by: str
    at: str
    snapshot: str
    run: str
    version: str
    created: str
    decision: Decision
    reason: str
    number: int | None
    data_changes: tuple[str, ...]
    configuration_changes: tuple[str, ...]
    git: str | None
    candidates: tuple[dict[str, Any], ...]
    gates: tuple[GateResult, ...]
    signatures: dict[str, str] = {}

    def signed(self, signer: Signer) -> bytes:
        """Return the signed record as JSON."""
        document = self.model_dump(mode="json")
        return json.dumps({**document, SIGNATURES: signer.sign(document)}, indent=1, ensure_ascii=False).encode()


def retrains_prefix(project: str) -> str:
    return f"runs/{project}/retrains/"


def retrain_key(project: str, date: str) -> str:
    return f"{retrains_prefix(project)}{date}.json"


def retrain_dates(store: Store, project: str) -> list[str]:
    """Return the days as of which a project was retrained, the first one first."""
    return store.names(retrains_prefix(project), ".json")


def read_retrain(store: Store, project: str, date: str, trainers: VerifyingKeys) -> RetrainRecord:
    """Return a record. Raises NotFound, Unsigned, IntegrityError."""
    what = f"the retraining of {project} as of {date}"
    try:
        data = store.read(retrain_key(project, date), max_bytes=MAX_DOCUMENT_BYTES).data
    except NotFound:
        raise NotFound(f"{project} was not retrained as of {date}: see `podium retrains list {project}`") from None
    document = trainers.check(data, what)
    try:
        record = RetrainRecord.model_validate(document)
    except ValidationError as error:
        raise IntegrityError(f"{what} is not valid ({error.error_count()} errors)") from None
    if (record.project, record.date) != (project, date):
        raise IntegrityError(f"{what} belongs to another project or day")
    return record
