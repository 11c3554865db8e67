"""The request and the result of an import."""

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
    """A model file and how to import it.

    `sample` is a CSV or Parquet table for the comparison. `allowed` is the operator's own list of globals. `columns` are the
    project's column options. For panels, `project` has the panel options and `scalers` are the pickled scalers that were
    fitted with the model. `preprocessing` are pickled transformers that were applied before the model, in their order.
    `output` is the number of the target to import, of a model with several.
    """

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
    project: Project | None = None
    scalers: bytes | None = None
    preprocessing: tuple[bytes, ...] = ()
    output: int | None = None

    @property
    def panel_project(self) -> Project | None:
        """The project if it is a panel project, else None."""
        return self.project if self.project and self.project.panel else None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The files of the version, its signature, and how close the converted model is to the original.

    `largest_difference` is relative to 1 + |score|, as is `allowed_difference`. `reference` says what computed the
    scores of the original. `runner` is "sandboxed" if the estimator was not converted.
    """

    kind: str
    signature: Signature
    files: Mapping[str, bytes]
    compared: int
    largest_difference: float
    allowed_difference: float
    embedded_training_rows: int
    predictions: str
    reference: str
    warnings: tuple[str, ...] = ()
    runner: str = ""

    def to_json(self) -> str:
        files = {name: base64.b64encode(data).decode() for name, data in self.files.items()}
        return json.dumps({**asdict(self), "signature": SIGNATURE.dump_python(self.signature, mode="json"), "files": files})

    @classmethod
    def from_json(cls, text: str) -> ImportResult:
        fields = json.loads(text)
        files = {name: base64.b64decode(data) for name, data in fields["files"].items()}
        fields |= {"signature": SIGNATURE.validate_python(fields["signature"]), "warnings": tuple(fields["warnings"])}
        return cls(**{**fields, "files": files})
