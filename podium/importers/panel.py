"""Combine a network and the scalers fitted with it into one model of panel windows.

The scalers are a pickled dictionary: entity → column → a standardizer with `mean_` and `scale_`. Its entry `model_hypers` has
the `feat_cols` of a step in order (`v_X` is the change of X), the `target_col` and the `seq_len`. No scaler is constructed.
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
from podium.importers.imported_model import Conversion, ImportedModel
from podium.importers.unpickling import InertObject
from podium.models.encoder import Encoder
from podium.models.features import Feature
from podium.models.panel_features import EntityScale, EntityStandardized
from podium.models.scorers import AffineScorer
from podium.project import Project
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Panel, Signature, Target
from podium.schema.data_errors import BadData
from podium.tables.frames import coerce_frame, columns_of, frame_of
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import INDEX, Windows, lag_name, mask_entities, window_columns, windows
from podium.training.panel import infer_panel, labeled_windows
from podium.training.splits import train_and_test

SCALER_GLOBALS = {
    ("sklearn.preprocessing.data", "StandardScaler"): "panels",
    ("sklearn.preprocessing._data", "StandardScaler"): "panels",
}
HYPERS = "model_hypers"
CHANGE = "v_"
MAX_COMPARED_ROWS = 2_000
ScalerTable = dict[str, dict[str, tuple[float, float]]]
"""Entity → column → mean and scale."""


@dataclass(frozen=True, slots=True)
class Scalers:
    """Means and scales, and the features of one step of the network."""

    table: ScalerTable
    features: tuple[str, ...]
    target: str
    steps: int

    def of(self, column: str) -> tuple[tuple[str, float, float], ...]:
        """Return (entity, mean, scale) for each entity with a scaler of the column; empty if there is none."""
        return tuple((entity, *columns[column]) for entity, columns in self.table.items() if column in columns)


def read_scalers(data: bytes, allowed: unpickling.AllowedGlobals) -> Scalers:
    """Read pickled scalers without constructing them. Raises ImportRefused."""
    content, _ = unpickling.scan(unpickling.decompress(data), {**allowed, **SCALER_GLOBALS})
    try:
        hypers = content[HYPERS]
        table = {
            str(entity): {str(column): _mean_and_scale(scaler) for column, scaler in columns.items()}
            for entity, columns in content.items()
            if entity != HYPERS
        }
        features = tuple(map(str, hypers["feat_cols"]))
        return Scalers(table, features, str(hypers["target_col"]), int(hypers["seq_len"]))
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise ImportRefused(
            "the scalers have the wrong structure: pickle a dictionary of entity → column → StandardScaler, with "
            "`model_hypers`: feat_cols, target_col, seq_len"
        ) from error


def _mean_and_scale(scaler: Any) -> tuple[float, float]:
    if not isinstance(scaler, InertObject):
        raise TypeError
    mean, scale = (float(np.ravel(scaler.get(name))[0]) for name in ("mean_", "scale_"))
    if not (np.isfinite(mean) and np.isfinite(scale) and scale != 0):
        raise ValueError
    return mean, scale


@dataclass(frozen=True, slots=True)
class PanelImport:
    """A model of windows, its panel, windows to compare it on, and the windows of the test days with their target changes."""

    model: ImportedModel
    panel: Panel
    ignored: Mapping[str, str]
    rows: pd.DataFrame
    test: LabeledRows


def import_panel(network: ImportedModel, scalers: Scalers, project: Project, table: pa.Table) -> PanelImport:
    """Return the network with its input and output scaling. Raises ImportRefused."""
    try:
        panel, ignored = infer_panel(table, project)
        frame = coerce_frame(table, panel.columns, ignored)
    except BadData as error:
        raise ImportRefused(f"the sample does not fit the [panel] section of the project: {error}") from None
    panel = replace(panel, columns=tuple(_with_scaled_entities(column, panel, scalers) for column in panel.columns))
    _check(network, scalers, panel)
    model = _with_scaling(network, scalers, panel)
    samples = windows(columns_of(frame), panel, ahead=False)
    usable = mask_entities(samples.keys, panel, scalers.table) & (samples.keys[INDEX] > 0)
    samples = samples.take(np.flatnonzero(usable))
    if not len(samples):
        entities = ", ".join(list(scalers.table)[:8])
        raise ImportRefused(
            f"the sample needs two days of an entity that has scalers ({entities} …): add rows of these entities"
        )
    compared = np.unique(np.linspace(0, len(samples) - 1, MAX_COMPARED_ROWS).astype(int))
    rows = frame_of(samples.take(compared).inputs)
    return PanelImport(model, panel, ignored, rows, _test_rows(samples, panel, project))


def _with_scaled_entities(column: Column, panel: Panel, scalers: Scalers) -> Column:
    """Make the entity column accept exactly the entities that have scalers."""
    if column.name != panel.entity:
        return column
    return replace(column, categories=tuple(sorted(scalers.table)), handle_unknown="reject", fuzzy="exact", aliases=())


def _check(network: ImportedModel, scalers: Scalers, panel: Panel) -> None:
    """Check that the network, scalers and panel fit together. Raises ImportRefused."""
    width, bases = len(network.encoder.columns), [name.removeprefix(CHANGE) for name in scalers.features]
    if scalers.steps != panel.lags or width != panel.lags * len(scalers.features):
        raise ImportRefused(
            f"the parts do not fit together: the network takes {width} numbers, the scalers have {scalers.steps} days "
            f"of {len(scalers.features)} features, and panel.lags is {panel.lags}"
        )
    if unknown := sorted({name for name in bases if name not in panel.numeric_columns}):
        raise ImportRefused(
            f"the network takes {', '.join(unknown)}, which the panel does not have: define them in panel.derived_columns"
        )
    if scalers.target != CHANGE + panel.target:
        raise ImportRefused(
            f"the network predicts {scalers.target}, but the project needs {CHANGE}{panel.target}: change the target"
        )
    if len(scalers.of(scalers.target)) < len(scalers.table):
        raise ImportRefused(f"some entities have no scaler for {scalers.target}: add one for each entity")


def _with_scaling(network: ImportedModel, scalers: Scalers, panel: Panel) -> ImportedModel:
    columns = window_columns(panel)
    index = {column.name: number for number, column in enumerate(columns)}
    features: list[Feature] = []
    for lag in range(panel.lags, 0, -1):
        for name in scalers.features:
            base = name.removeprefix(CHANGE)
            previous = index[lag_name(base, lag + 1)] if name != base else None
            label = f"{name} {lag} before"
            features.append(EntityStandardized(index[lag_name(base, lag)], label, previous, 0, scalers.of(name)))
    last, target = index[lag_name(panel.target, 1)], scalers.of(scalers.target)
    features.append(EntityScale(last, "unit", 0, tuple((entity, scale) for entity, _, scale in target)))
    features.append(EntityScale(last, "offset", 0, tuple((entity, mean) for entity, mean, _ in target)))
    encoder = Encoder(columns, tuple(features))

    def original(frame: pd.DataFrame) -> FloatMatrix:
        matrix = encoder.transform(frame)
        scores = network.original(pd.DataFrame(matrix[:, :-2]))
        return scores * matrix[:, -2:-1] + matrix[:, -1:]

    conversions = [Conversion(encoder, AffineScorer(c.scorer), c.tolerance) for c in network.conversions]
    return ImportedModel(network.kind, encoder, conversions, Target(panel.target, "forecast"), original, network.reference)


def _test_rows(samples: Windows, panel: Panel, project: Project) -> LabeledRows:
    """The windows of the project's test days."""
    signature = Signature(window_columns(panel), Target(panel.target, "forecast"), {}, panel)
    rows = labeled_windows(samples, signature)
    return rows.rows(train_and_test(rows, project)[1])
