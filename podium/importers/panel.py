"""A network for a panel and the scalers that were fitted beside it, as one model that takes windows.

The scalers are a pickled dictionary: entity → column → a standardiser with `mean_` and `scale_`, and under `model_hypers` the
`feat_cols` of a step in their order (`v_X` is the change of X), the `target_col` and the `seq_len`. They are read, never made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from podium.importers import unpickling
from podium.importers.errors import ImportRefused
from podium.importers.imported_model import ImportedModel
from podium.importers.unpickling import Shell
from podium.models.encoder import Encoder
from podium.models.features import Feature
from podium.models.panel_features import EntityScale, EntityStandardized
from podium.models.scorers import AffineScorer
from podium.project import Project
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Panel, Signature, Target
from podium.schema.data_errors import BadData
from podium.tables.frames import coerce_frame
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import DAY, INDEX, Windows, lag_name, mask_entities, window_columns, windows
from podium.training.panel import infer_panel, target_change
from podium.training.splits import train_and_test

SCALERS = {
    ("sklearn.preprocessing.data", "StandardScaler"): "panels",
    ("sklearn.preprocessing._data", "StandardScaler"): "panels",
}
HYPERS = "model_hypers"
CHANGE = "v_"
MAX_COMPARED = 2_000
Table = dict[str, dict[str, tuple[float, float]]]
"""Entity → column → mean and scale."""


@dataclass(frozen=True, slots=True)
class Scalers:
    table: Table
    features: tuple[str, ...]
    target: str
    steps: int

    def of(self, column: str) -> tuple[tuple[str, float, float], ...]:
        """Mean and scale of a column for each entity; empty for one that is not scaled."""
        return tuple((entity, *columns[column]) for entity, columns in self.table.items() if column in columns)


def read_scalers(data: bytes, allow: unpickling.Allowed) -> Scalers:
    """Raises Refusal."""
    found, _ = unpickling.look_through(unpickling.decompressed(data), {**allow, **SCALERS})
    try:
        hypers = found[HYPERS]
        table = {
            str(entity): {str(column): _standard(scaler) for column, scaler in columns.items()}
            for entity, columns in found.items()
            if entity != HYPERS
        }
        features = tuple(map(str, hypers["feat_cols"]))
        return Scalers(table, features, str(hypers["target_col"]), int(hypers["seq_len"]))
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise ImportRefused(
            "the scalers are no dictionary of entity → column → standardiser, with `model_hypers`: feat_cols, target_col, "
            "seq_len"
        ) from error


def _standard(scaler: Any) -> tuple[float, float]:
    if not isinstance(scaler, Shell):
        raise TypeError
    mean, scale = (float(np.ravel(scaler.get(name))[0]) for name in ("mean_", "scale_"))
    if not (np.isfinite(mean) and np.isfinite(scale) and scale != 0):
        raise ValueError
    return mean, scale


@dataclass(frozen=True, slots=True)
class PanelImport:
    """A foreign model of windows, some windows to compare on, those of the test days with their changes, and the panel."""

    foreign: ImportedModel
    panel: Panel
    ignored: Mapping[str, str]
    rows: pd.DataFrame
    test: LabeledRows


def import_panel(network: ImportedModel, scalers: Scalers, project: Project, table: pa.Table) -> PanelImport:
    """The network with its scaling before and after it. Raises Refusal."""
    try:
        panel, ignored = infer_panel(table, project)
        frame = coerce_frame(table, panel.columns, ignored)
    except BadData as error:
        raise ImportRefused(f"the sample is no panel as the project describes it: {error}") from None
    panel = replace(panel, columns=tuple(_known_entities(column, panel, scalers) for column in panel.columns))
    _check(network, scalers, panel)
    foreign = _with_scaling(network, scalers, panel)
    made = windows(frame, panel, ahead=False)
    made = made.take(np.flatnonzero(mask_entities(made.keys, panel, tuple(scalers.table)) & (made.keys[INDEX] > 0).to_numpy()))
    if not len(made.keys):
        raise ImportRefused(
            f"the sample has no two days of any entity that has scalers ({', '.join(list(scalers.table)[:8])} …)"
        )
    some = np.unique(np.linspace(0, len(made.keys) - 1, MAX_COMPARED).astype(int))
    return PanelImport(foreign, panel, ignored, made.inputs.iloc[some].reset_index(drop=True), _test(made, panel, project))


def _known_entities(column: Column, panel: Panel, scalers: Scalers) -> Column:
    if column.name != panel.entity:
        return column
    return replace(column, categories=tuple(sorted(scalers.table)), handle_unknown="reject", fuzzy="exact", aliases=())


def _check(network: ImportedModel, scalers: Scalers, panel: Panel) -> None:
    """Raises Refusal."""
    width, bases = len(network.encoder.columns), [name.removeprefix(CHANGE) for name in scalers.features]
    if scalers.steps != panel.lags or width != panel.lags * len(scalers.features):
        raise ImportRefused(
            f"the network takes {width} numbers, the scalers tell of {scalers.steps} days of {len(scalers.features)}, and the "
            f"project of {panel.lags} days (panel.lags)"
        )
    if unknown := sorted({name for name in bases if name not in panel.numeric_columns}):
        raise ImportRefused(
            f"the network takes {', '.join(unknown)}, which the panel does not have: name them in panel.derived_columns"
        )
    if scalers.target != CHANGE + panel.target or len(scalers.of(scalers.target)) < len(scalers.table):
        raise ImportRefused(
            f"the network predicts {scalers.target}, the project {CHANGE}{panel.target}, which needs a scaler each"
        )


def _with_scaling(network: ImportedModel, scalers: Scalers, panel: Panel) -> ImportedModel:
    columns = window_columns(panel)
    places = {column.name: place for place, column in enumerate(columns)}
    features: list[Feature] = []
    for step in range(panel.lags, 0, -1):
        for name in scalers.features:
            base = name.removeprefix(CHANGE)
            other = places[lag_name(base, step + 1)] if name != base else None
            features.append(
                EntityStandardized(places[lag_name(base, step)], f"{name} {step} before", other, 0, scalers.of(name))
            )
    last, target = places[lag_name(panel.target, 1)], scalers.of(scalers.target)
    features.append(EntityScale(last, "unit", 0, tuple((entity, scale) for entity, _, scale in target)))
    features.append(EntityScale(last, "offset", 0, tuple((entity, mean) for entity, mean, _ in target)))
    encoder = Encoder(columns, tuple(features))

    def original(frame: pd.DataFrame) -> FloatMatrix:
        matrix = encoder.transform(frame)
        found = network.original(pd.DataFrame(matrix[:, :-2]))
        return found * matrix[:, -2:-1] + matrix[:, -1:]

    translations = [(encoder, AffineScorer(scorer), close) for _, scorer, close in network.translations]
    return ImportedModel(network.kind, encoder, translations, Target(panel.target, "forecast"), original)


def _test(made: Windows, panel: Panel, project: Project) -> LabeledRows:
    """The windows of the project's test days."""
    signature = Signature(window_columns(panel), Target(panel.target, "forecast"), {}, panel)
    rows = LabeledRows(made.inputs, target_change(made.keys), made.keys[DAY], signature, ())
    return rows.rows(train_and_test(rows, project)[1])
