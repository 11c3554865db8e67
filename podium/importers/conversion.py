"""A foreign file to the files of a version: looked through, read, compared with the original on rows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.importers import unpickling
from podium.importers.comparison_rows import (
    accepts,
    add_edge_cases,
    sample_rows,
    synthetic_rows,
    with_observed_nullability,
    with_sample_formats,
    with_sample_ranges,
)
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.importers.imported_model import ImportedModel, check_count
from podium.importers.keras import read_keras
from podium.importers.lightgbm import read_lightgbm
from podium.importers.onnx import is_onnx, read_onnx
from podium.importers.panel import PanelImport, import_panel, read_scalers
from podium.importers.sklearn import check_release, read_estimator
from podium.importers.state_checks import validate_state
from podium.importers.statsmodels import is_statsmodels, read_statsmodels
from podium.models.encoder import Encoder
from podium.models.golden_rows import GOLDEN, MAX_ROWS, Golden
from podium.models.metrics import bootstrap, interval, metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.models.scorers import Scorer
from podium.models.serialization import dump
from podium.project import Project
from podium.registry.versions import GOLDEN_FILE, LEADERBOARD_FILE, TEST_FILE, model_file
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Signature, Target
from podium.schema.data_errors import BadData
from podium.storage.object_store import digest
from podium.tables.frames import frame_to_rows
from podium.tables.labeled_rows import LabeledRows, labeled_rows_to_parquet
from podium.tables.readers import read_table
from podium.tables.schema_inference import target_codes

HDF5, ZIP, TREE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"tree\n"


def convert(wish: ImportRequest, allow: unpickling.Allowed | None = None) -> ImportResult:
    """The foreign file as files of a version; `allow` defaults to what the request allows. Raises ImportRefused."""
    allow = unpickling.allowed(wish.allowed) if allow is None else allow
    table = _sample(wish)
    foreign = _read(wish, table, allow)
    panel, test = None, None
    ignored: Mapping[str, str] = _ignored(wish, foreign, table)
    if wish.panel:
        found = _of_panel(wish, wish.panel, foreign, table, allow)
        foreign, panel, ignored, rows, test = found.foreign, found.panel, found.ignored, found.rows, found.test
        columns = foreign.encoder.columns
    elif table is None:
        columns = with_sample_formats(foreign.encoder.columns, None, wish.columns)
        rows = synthetic_rows(columns, wish.seed)
    else:
        columns = with_sample_formats(foreign.encoder.columns, table, wish.columns)
        table, rows = _answerable(foreign, table, sample_rows(table, columns))
        columns = with_sample_ranges(columns, rows)
    try:
        foreign.original(rows.head(1))
    except Exception as error:  # the foreign library's own
        raise ImportRefused(f"the original does not answer a row of {len(columns)} columns ({type(error).__name__})") from error
    _check_answers(foreign, rows)
    columns = with_observed_nullability(columns, rows.dropna() if len(rows.dropna()) else rows, foreign.original)
    compared = add_edge_cases(columns, rows)
    encoder, scorer, close, difference = _equal(foreign, compared)
    signature = Signature(columns, foreign.target, dict(ignored), panel)
    model = Model(wish.name, signature, replace(encoder, columns=columns), scorer)
    test = _test_rows(table, rows, signature) if test is None else replace(test, signature=signature)
    files = {
        model_file(wish.name): dump(model),
        GOLDEN_FILE: GOLDEN.dump_json(_golden(wish, columns, rows, foreign, close)),
        TEST_FILE: labeled_rows_to_parquet(test),
        LEADERBOARD_FILE: _leaderboard(wish, model, test).to_csv(index=False).encode(),
    }
    predictions = digest(wish.name.encode() + model.scores(test.inputs).tobytes())
    return ImportResult(
        foreign.kind, signature, files, len(compared), difference, close, foreign.embedded_training_rows, predictions
    )


def _answerable(foreign: ImportedModel, table: pa.Table, rows: pd.DataFrame) -> tuple[pa.Table, pd.DataFrame]:
    """The sample, or only its complete rows when the original does not take missing cells."""
    complete = np.flatnonzero(rows.notna().all(axis=1))
    if len(complete) in (0, len(rows)) or accepts(rows, foreign.original):
        return table, rows
    return table.take(pa.array(complete)), rows.iloc[complete].reset_index(drop=True)


def _of_panel(
    wish: ImportRequest, project: Project, foreign: ImportedModel, table: pa.Table | None, allow: unpickling.Allowed
) -> PanelImport:
    """Raises Refusal."""
    if table is None or wish.scalers is None:
        raise ImportRefused(
            "a model of a panel needs --sample, some rows of it, and --scalers, those that were fitted beside it"
        )
    return import_panel(foreign, read_scalers(wish.scalers, allow), project, table)


def _ignored(wish: ImportRequest, foreign: ImportedModel, table: pa.Table | None) -> dict[str, str]:
    """Columns that may come along."""
    others = dict.fromkeys(table.column_names if table is not None else (), "not used by the model")
    return {name: why for name, why in {**others, wish.target: "the target"}.items() if name not in foreign.encoder.names}


def _check_answers(foreign: ImportedModel, rows: pd.DataFrame) -> None:
    """One number a row, or probabilities. Raises Refusal."""
    found, classes = foreign.original(rows), foreign.target.classes
    if found.shape[1] != (len(classes) or 1):
        raise ImportRefused(f"the model gives {found.shape[1]} numbers a row, where {len(classes) or 1} can be served")
    likely = ((found >= -1e-6) & (found <= 1 + 1e-6)).all() and np.allclose(found.sum(axis=1), 1, atol=1e-3)
    if classes and np.isfinite(found).all() and not likely:
        raise ImportRefused("what the model gives for its classes are no probabilities: export it with probabilities")


def _sample(wish: ImportRequest) -> pa.Table | None:
    """Raises Refusal."""
    if wish.sample is None:
        return None
    try:
        table = read_table(wish.sample)
    except BadData as error:
        raise ImportRefused(f"the sample cannot be read: {error}") from None
    if not table.num_rows:
        raise ImportRefused("the sample has no row")
    return table


def _read(wish: ImportRequest, table: pa.Table | None, allow: unpickling.Allowed) -> ImportedModel:
    """By the file's first bytes, whatever it is called. Raises Refusal."""
    data, names = wish.data, None
    if table is not None:
        names = [name for name in table.column_names if name != wish.target]
    if data.startswith(TREE):
        return read_lightgbm(data, wish.target, wish.classes)
    if data.startswith((HDF5, ZIP)):
        network = read_keras(data, wish.target, wish.classes)
        return network if wish.panel else _named(network, names)
    plain = unpickling.decompressed(data)
    if plain[:1] != b"\x80" and is_onnx(data):
        return read_onnx(data, wish.target, wish.classes, names, _texts(table, names))
    if plain[:1] != b"\x80":
        raise ImportRefused(
            "the file is none of: pickle or joblib of scikit-learn, LightGBM or statsmodels, Keras .h5 or .keras, ONNX, "
            "LightGBM's text"
        )
    shell, _ = unpickling.look_through(plain, allow)
    if is_statsmodels(shell):
        return read_statsmodels(shell, wish.target, wish.classes)
    if not wish.other_release:
        check_release(shell)
    validate_state(shell)
    return read_estimator(unpickling.construct(plain, allow), wish.target, wish.classes, names)


def _texts(table: pa.Table | None, names: list[str] | None) -> dict[str, tuple[str, ...]]:
    """The texts that each column of the sample shows."""
    if table is None:
        return {}
    return {name: tuple(sorted(filter(None, pc.unique(table[name]).to_pylist()))) for name in names or []}


def _named(foreign: ImportedModel, names: list[str] | None) -> ImportedModel:
    """Names of the sample for inputs that have none. Raises Refusal."""
    columns = foreign.encoder.columns
    if names is None or set(names) >= {column.name for column in columns}:
        return foreign
    check_count(len(columns), names)
    renamed = tuple(Column(name, "number") for name in names)
    features = tuple(replace(feature, name=name) for feature, name in zip(foreign.encoder.features, names, strict=True))
    named = replace(foreign.encoder, columns=renamed, features=features)
    return replace(foreign, encoder=named, translations=[(named, scorer, close) for _, scorer, close in foreign.translations])


def _equal(foreign: ImportedModel, rows: pd.DataFrame) -> tuple[Encoder, Scorer, float, float]:
    """The first translation that answers as the original, how close it had to come, and how close it came. Raises Refusal."""
    wanted = foreign.original(rows)
    if not np.isfinite(wanted).all():
        raise ImportRefused("the original answers some rows with no finite number: give --sample rows of the usual kind")
    least = float("inf")
    for encoder, scorer, close in foreign.translations:
        with contextlib.suppress(Exception):  # one that does not run is none; onnxruntime raises classes of its own
            got = scorer.scores(encoder.transform(rows))
            difference = float(np.abs(got - wanted).max())
            if got.shape == wanted.shape and np.allclose(got, wanted, rtol=close, atol=close):
                return encoder, scorer, close, difference
            least = min(least, difference)
    raise ImportRefused(
        f"no translation answers as the original does (the best is off by {least:g}): export the model to ONNX and import that"
    )


def _golden(
    wish: ImportRequest, columns: tuple[Column, ...], rows: pd.DataFrame, foreign: ImportedModel, close: float
) -> Golden:
    """Some rows with the original's own scores."""
    chosen = add_edge_cases(columns, rows.sample(min(MAX_ROWS, len(rows)), random_state=wish.seed))
    return Golden(frame_to_rows(chosen), {wish.name: foreign.original(chosen).tolist()}, close)


def _test_rows(table: pa.Table | None, rows: pd.DataFrame, signature: Signature) -> LabeledRows:
    """The rows with the sample's target, or with none. Raises Refusal."""
    target = pd.Series(np.nan, index=rows.index)
    if table is not None and signature.target.name in table.column_names:
        try:
            target = target_codes(table[signature.target.name], signature.target, ())
        except (BadData, pa.ArrowInvalid):
            raise ImportRefused(f"the sample's {signature.target.name} are no numbers, but the model predicts one") from None
    known = target.notna().to_numpy()
    test = LabeledRows(rows, target, None, signature, (), table)
    return test.rows(np.flatnonzero(known)) if known.any() else test


def _leaderboard(wish: ImportRequest, model: Model, test: LabeledRows) -> pd.DataFrame:
    """One row, with scores when the sample came with its target."""
    goal: Target = model.signature.target
    name = metric_name(goal, wish.metric)
    row: dict[str, Any] = {"rank": 1, "model": wish.name, "eval_metric": name, "score_val": np.nan, "score_test": np.nan}
    metrics = metrics_for(goal)
    row |= dict.fromkeys(metrics, np.nan) | dict.fromkeys(("fit_time", "pred_time_val", "ci_low", "ci_high"), np.nan)
    if test.target.notna().all():
        truth, scores = test.target.to_numpy(), model.scores(test.inputs)
        row |= {key: _figure(metric.function, truth, scores) for key, metric in metrics.items()}
        row["score_test"] = metric_value(metrics[name], truth, scores)
        row["ci_low"], row["ci_high"] = interval(bootstrap(metrics[name], truth, [scores], wish.seed)[:, 0])
    return pd.DataFrame([{**row, "tied_with_best": True}])


def _figure(figure: Any, truth: np.ndarray, scores: FloatMatrix) -> float:
    try:
        return float(figure(truth, scores))
    except ValueError:  # a sample too small for this figure
        return float("nan")
