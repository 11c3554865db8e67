"""What is asked of an import, and what the child that turned the file found."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from podium.project import ColumnOptions, Project
from podium.schema.columns import Signature
from podium.tables.labeled_rows import SIGNATURE


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is asked of an import; `sample` is a table in CSV or Parquet, `allowed` the operator's own list of globals."""

    file: str
    data: bytes
    name: str
    target: str
    sample: bytes | None = None
    classes: tuple[str, ...] = ()
    metric: str | None = None
    other_release: bool = False
    allowed: Path | None = None
    seed: int = 0
    columns: Mapping[str, ColumnOptions] = field(default_factory=dict)
    """What the project says of columns."""
    project: Project | None = None
    scalers: bytes | None = None
    """Of a panel: how it is described, and the scalers that were fitted beside the model."""

    @property
    def panel(self) -> Project | None:
        """The project, if it is one of a panel."""
        return self.project if self.project and self.project.panel else None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What the child found: the files of a version, its signature, and how close the model came to the original."""

    kind: str
    signature: Signature
    files: Mapping[str, bytes]
    compared: int
    largest_difference: float
    allowed_difference: float
    embedded_training_rows: int
    predictions: str

    def to_json(self) -> str:
        files = {name: base64.b64encode(data).decode() for name, data in self.files.items()}
        return json.dumps({**asdict(self), "signature": SIGNATURE.dump_python(self.signature, mode="json"), "files": files})

    @classmethod
    def from_json(cls, text: str) -> ImportResult:
        found = json.loads(text)
        files = {name: base64.b64decode(data) for name, data in found["files"].items()}
        return cls(**{**found, "signature": SIGNATURE.validate_python(found["signature"]), "files": files})
