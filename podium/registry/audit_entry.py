"""Audit-log entries: each is a signed event that contains the digest of the preceding entry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from podium.registry.signing import VerifyingKeys
from podium.registry.versions import IntegrityError

MAX_DETAIL = 2000
"""Maximum length of a gate's detail, so that data from a version cannot make an entry too large to read."""

GATE_TITLES = {
    "loads": "Model loads",
    "champion": "Current champion",
    "test-rows": "Test rows",
    "golden-rows": "Golden rows",
    "no-missing-predictions": "No missing predictions",
    "size": "Size",
    "scores": "Reported scores",
    "baseline": "Better than a constant",
    "leakage": "No leakage",
    "min-score": "Minimum score",
    "latency": "Latency",
    "compatible": "Compatibility",
    "non-inferiority": "Not worse than champion",
    "no-older-data": "No older data",
    "four-eyes": "Four eyes",
    "replay": "Logged predictions",
}


class GateResult(BaseModel):
    """The result of one gate: its id, whether the version passed, and the figures behind the result."""

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    detail: Annotated[str, BeforeValidator(lambda text: text[:MAX_DETAIL].encode(errors="replace").decode())]

    @property
    def title(self) -> str:
        """The gate's display name."""
        return GATE_TITLES.get(self.name, self.name)

    def __str__(self) -> str:
        return f"{self.title}: {self.detail}"


class AuditEntry(BaseModel):
    """One event in the history of a project.

    `version` is the subject of the event; `champion` and `manifest_sha256` apply after the event. `previous` is the champion
    before it, `previous_entry` is the sha256 of the preceding entry. `request` is the caller's idempotency key.
    """

    model_config = ConfigDict(frozen=True)

    format: int = 1
    project: str
    sequence: int
    action: Literal["promote", "rollback", "refuse", "retire", "countersign"]
    version: str
    champion: str | None
    manifest_sha256: str | None
    previous: str | None
    by: str
    reason: str
    at: str
    forced: bool = False
    evidence: tuple[GateResult, ...] = ()
    request: str = ""
    previous_entry: str | None
    signatures: dict[str, str] = {}

    @property
    def failed_gates(self) -> list[GateResult]:
        return [gate for gate in self.evidence if not gate.passed]

    @property
    def why(self) -> str:
        """The reason, followed by the failed gates."""
        failed = "; ".join(map(str, self.failed_gates))
        return f"{self.reason} ({failed})" if failed else self.reason


def parse_entry(data: bytes, project: str, promoters: VerifyingKeys) -> AuditEntry:
    """Parse and verify an entry. Raises Unsigned, IntegrityError."""
    document = promoters.check(data, f"an audit-log entry of {project}")
    try:
        entry = AuditEntry.model_validate(document)
    except ValidationError:
        raise IntegrityError(f"an audit-log entry of {project} is not valid") from None
    if entry.project != project:
        raise IntegrityError(f"an audit-log entry of {project} belongs to another project")
    return entry


def parse_numbered_entry(data: bytes, project: str, sequence: int, promoters: VerifyingKeys) -> AuditEntry:
    """Parse entry `sequence`. Raises Unsigned, IntegrityError."""
    entry = parse_entry(data, project, promoters)
    if entry.sequence != sequence:
        raise IntegrityError(f"expected entry number {sequence}, found {entry.sequence}")
    return entry


def parse_next_entry(
    data: bytes, project: str, sequence: int, promoters: VerifyingKeys, previous_entry: str | None
) -> AuditEntry:
    """Parse entry `sequence`, which must follow the entry with digest `previous_entry`. Raises Unsigned, IntegrityError."""
    entry = parse_numbered_entry(data, project, sequence, promoters)
    if entry.previous_entry != previous_entry:
        raise IntegrityError("does not follow the preceding entry")
    return entry
