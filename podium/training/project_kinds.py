"""The steps of training that differ between tables and panels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from podium.models.encoder import Encoder, fit_encoder
from podium.project import BadProject, ColumnOptions, Project
from podium.registry.versions import UNTIL
from podium.schema.columns import Signature
from podium.storage.daily_ingest import IngestState, is_folder, read_daily_rows, unreadable_files
from podium.storage.datasets import split_url
from podium.storage.object_store import Store
from podium.storage.table_parts import TableParts
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import window_columns
from podium.tables.readers import SourceTable
from podium.tables.schema_inference import with_statistics
from podium.training.daily_files import day_name, day_number, month_of, panel_options, time_column
from podium.training.panel import prepare_panel, window_encoder, with_known_entities
from podium.training.preparation import prepare_table
from podium.training.reading import read_training_table
from podium.training.table_parts import read_parts


class ProjectKind(Protocol):
    """How a kind of project is trained."""

    def load(self, snapshot: bytes, store: Store, until: str) -> LabeledRows:
        """Prepare the rows of a data snapshot, only for days up to `until` if it is not empty. Raises BadData, BadProject."""

    def prepare(self, source: SourceTable, until: float | None = None) -> LabeledRows:
        """Prepare the rows of a raw table. Raises BadData."""

    def split_kind(self, rows: LabeledRows) -> str:
        """Return the kind of split for these rows."""

    def training_signature(self, rows: LabeledRows) -> Signature:
        """Return the signature with the ranges and categories of these training rows."""

    def fit_encoder(self, rows: LabeledRows) -> Encoder:
        """Fit the features on these rows."""

    def data_facts(self, rows: LabeledRows) -> dict[str, str]:
        """Return additional information about the training data for the manifest."""


@dataclass(frozen=True, slots=True)
class TableProject:
    """Independent rows of one table."""

    project: Project

    def load(self, snapshot: bytes, store: Store, until: str) -> LabeledRows:
        if until:
            raise BadProject(f"--until applies to panels only; remove it, or add a [panel] section to {self.project.name}")
        if is_folder(str(self.project.data)):
            parts = TableParts.from_json(snapshot)
            return self.prepare(read_parts(parts, store.with_bucket(split_url(parts.url)[0]), self.project))
        return self.prepare(_read(snapshot, self.project))

    def prepare(self, source: SourceTable, until: float | None = None) -> LabeledRows:
        return prepare_table(source, self.project)

    def split_kind(self, rows: LabeledRows) -> str:
        if self.project.split.kind:
            return self.project.split.kind
        can_stratify = rows.signature.target.classes and rows.target.value_counts().min() >= 2
        return "stratified" if can_stratify else "random"

    def training_signature(self, rows: LabeledRows) -> Signature:
        options = self.project.columns
        inputs = [
            with_statistics(column, rows.inputs[column.name], options.get(column.name, ColumnOptions()))
            for column in rows.signature.inputs
        ]
        return replace(rows.signature, inputs=tuple(inputs))

    def fit_encoder(self, rows: LabeledRows) -> Encoder:
        return fit_encoder(rows.inputs, rows.signature.inputs, self.project.features.max_categories)

    def data_facts(self, rows: LabeledRows) -> dict[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class PanelProject:
    """Rows keyed by entity and day, as windows of the preceding days."""

    project: Project

    def load(self, snapshot: bytes, store: Store, until: str) -> LabeledRows:
        day = day_number(until, self.project) if until else None
        if not is_folder(str(self.project.data)):
            return self.prepare(_read(snapshot, self.project), day)
        state, options = IngestState.from_json(snapshot), panel_options(self.project)
        last_month = None if day is None else month_of(day, time_column(self.project))
        table = read_daily_rows(store, state, last_month, options.max_rows, (options.entity, options.time))
        return self.prepare(SourceTable(table, findings=list(unreadable_files(state))), day)

    def prepare(self, source: SourceTable, until: float | None = None) -> LabeledRows:
        return prepare_panel(source, self.project, until)

    def split_kind(self, rows: LabeledRows) -> str:
        return "time"

    def training_signature(self, rows: LabeledRows) -> Signature:
        panel = rows.signature.panel
        assert panel is not None and rows.order is not None
        panel = with_known_entities(panel, rows.inputs, rows.order)
        return replace(rows.signature, inputs=window_columns(panel), panel=panel)

    def fit_encoder(self, rows: LabeledRows) -> Encoder:
        return window_encoder(rows.inputs, rows.signature)

    def data_facts(self, rows: LabeledRows) -> dict[str, str]:
        assert rows.signature.panel is not None and rows.order is not None
        return {UNTIL: day_name(rows.order.max(), rows.signature.panel)}


def kind_of(project: Project) -> ProjectKind:
    """Return the training steps for this kind of project."""
    return PanelProject(project) if project.panel else TableProject(project)


def prepare(table: pa.Table, project: Project, until: float | None = None) -> LabeledRows:
    """Prepare the rows of a raw table for training; for a panel, only days up to `until`. Raises BadData."""
    return kind_of(project).prepare(SourceTable(table), until)


def _read(snapshot: bytes, project: Project) -> SourceTable:
    return read_training_table(snapshot, project, str(project.data))
