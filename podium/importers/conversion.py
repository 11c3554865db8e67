"""Convert a model file to the files of a version: read it safely and compare it with the original."""

from __future__ import annotations

import contextlib
import functools
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.importers import unpickling
from podium.importers.booster_stand_ins import catboost_estimator, xgboost_estimator
from podium.importers.catboost import is_catboost, read_catboost
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
from podium.importers.imported_model import Conversion, ImportedModel
from podium.importers.keras import read_keras
from podium.importers.lightgbm import read_lightgbm
from podium.importers.onnx import is_onnx, read_onnx
from podium.importers.panel import import_panel, read_scalers
from podium.importers.separate_preprocessing import SeparatePreprocessing, read_column_list, with_preprocessing
from podium.importers.sklearn import check_release, read_estimator
from podium.importers.state_checks import validate_state
from podium.importers.statsmodels import is_statsmodels, read_statsmodels
from podium.importers.xgboost import is_xgboost
from podium.models.golden_rows import GOLDEN, MAX_ROWS, Golden
from podium.models.metrics import bootstrap, interval, metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.models.runner_scorer import RunnerScorer
from podium.models.serialization import dump
from podium.project import Project
from podium.registry.versions import GOLDEN_FILE, LEADERBOARD_FILE, TEST_FILE, model_file
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column, Panel, Signature
from podium.schema.data_errors import BadData
from podium.storage.object_store import digest
from podium.tables.frames import frame_to_rows
from podium.tables.labeled_rows import LabeledRows, labeled_rows_to_parquet
from podium.tables.readers import read_table
from podium.tables.target_inference import target_codes

MIN_SYNTHETIC_ROWS, TIMED_ROWS = 200, 20
HDF5_START, ZIP_START, LIGHTGBM_START, PICKLE_START = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"tree\n", b"\x80"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A model with its columns, rows to compare it on, and a function that returns its test rows."""

    model: ImportedModel
    columns: tuple[Column, ...]
    rows: pd.DataFrame
    test_rows: Callable[[Signature], LabeledRows]
    ignored: Mapping[str, str]
    panel: Panel | None = None


def convert(request: ImportRequest, allowed: unpickling.AllowedGlobals | None = None) -> ImportResult:
    """Convert a model file; `allowed` defaults to the globals that the request allows. Raises ImportRefused."""
    allowed = unpickling.allowed_globals(request.allowed) if allowed is None else allowed
    table = _sample_table(request)
    separate = SeparatePreprocessing.of([_transformers(request, data, allowed) for data in request.preprocessing])
    model, separate = _read(request, table, allowed, separate)
    if request.panel_project:
        candidate = _panel_candidate(request, request.panel_project, model, table, allowed)
    else:
        candidate = _table_candidate(request, with_preprocessing(model, separate, table, request.columns), table)
    _check_scores(candidate)
    rows, original = candidate.rows, candidate.model.original
    complete = rows.dropna()
    columns = with_observed_nullability(candidate.columns, complete if len(complete) else rows, original)
    compared = add_edge_cases(columns, rows)
    conversion, difference = _first_equal(candidate.model, compared)
    signature = Signature(columns, candidate.model.target, dict(candidate.ignored), candidate.panel)
    converted = Model(request.name, signature, replace(conversion.encoder, columns=columns), conversion.scorer)
    test = candidate.test_rows(signature)
    golden = _golden_rows(request, columns, candidate, conversion.tolerance)
    files = {
        model_file(request.name): dump(converted),
        GOLDEN_FILE: GOLDEN.dump_json(golden),
        TEST_FILE: labeled_rows_to_parquet(test),
        LEADERBOARD_FILE: _leaderboard(request, converted, test).to_csv(index=False).encode(),
    }
    return ImportResult(
        kind=candidate.model.kind,
        signature=signature,
        files=files,
        compared=len(compared),
        largest_difference=difference,
        allowed_difference=conversion.tolerance,
        embedded_training_rows=candidate.model.embedded_training_rows,
        reference=candidate.model.reference,
        warnings=(*candidate.model.warnings, *_runner_warning(conversion, compared)),
        runner="sandboxed" if isinstance(conversion.scorer, RunnerScorer) else "",
        predictions=digest(request.name.encode() + converted.scores(test.inputs).tobytes()),
    )


def _runner_warning(conversion: Conversion, rows: pd.DataFrame) -> list[str]:
    """Say what it costs that the estimator is not converted."""
    if not isinstance(conversion.scorer, RunnerScorer):
        return []
    features = conversion.encoder.transform(rows.head(TIMED_ROWS))
    started = time.perf_counter()
    conversion.scorer.scores(features)
    milliseconds = 1000 * (time.perf_counter() - started) / len(features)
    return [
        f"the estimator is not converted: scikit-learn scores it in a sandboxed process, here in {milliseconds:.1f} ms a row, "
        "and the service needs the packages of requirements-runner.lock"
    ]


def _sample_table(request: ImportRequest) -> pa.Table | None:
    """Read the sample, if there is one. Raises ImportRefused."""
    if request.sample is None:
        return None
    try:
        table = read_table(request.sample)
    except BadData as error:
        raise ImportRefused(f"the sample cannot be read: {error}") from None
    if not table.num_rows:
        raise ImportRefused("the sample has no rows: add some, or omit --sample")
    return table


def _transformers(request: ImportRequest, data: bytes, allowed: unpickling.AllowedGlobals) -> Any:
    """Read a file of preprocessing: transformers, or a list of names. Raises ImportRefused."""
    names = read_column_list(data)
    return _construct(request, unpickling.decompress(data), allowed) if names is None else names


def _construct(request: ImportRequest, pickled: bytes, allowed: unpickling.AllowedGlobals) -> Any:
    """Scan a pickle of scikit-learn, and construct it only if its state is valid. Raises ImportRefused."""
    content, _ = unpickling.scan(pickled, allowed)
    if not request.other_release:
        check_release(content)
    validate_state(content)
    return unpickling.construct(pickled, allowed)


def _read(
    request: ImportRequest, table: pa.Table | None, allowed: unpickling.AllowedGlobals, separate: SeparatePreprocessing
) -> tuple[ImportedModel, SeparatePreprocessing]:
    """Read the model, in a pipeline with the preprocessing if they fit together; return what remains of that."""
    data = unpickling.decompress(request.data)
    names = [name for name in table.column_names if name != request.target] if table is not None else None
    if not data.startswith(PICKLE_START):
        return _read_file(request, table, names), separate
    content, _ = unpickling.scan(data, allowed)
    if is_statsmodels(content):
        return read_statsmodels(content, request.target, request.classes, names), separate
    estimator, remaining = separate.in_pipeline(_construct(request, data, allowed))
    # a runner does not have the operator's own list of globals
    file = None if request.allowed else data if remaining is separate else pickle.dumps(estimator)
    texts = functools.partial(_sample_texts, table)
    return read_estimator(estimator, request.target, request.classes, names, texts, file, request.output), remaining


def _read_file(request: ImportRequest, table: pa.Table | None, names: list[str] | None) -> ImportedModel:
    """Detect the format from the first bytes, regardless of the file name, and read the file. Raises ImportRefused."""
    data, target, classes = request.data, request.target, request.classes
    texts = functools.partial(_sample_texts, table)
    if data.startswith(LIGHTGBM_START):
        return read_lightgbm(data, target, classes)
    if data.startswith((HDF5_START, ZIP_START)):
        return read_keras(data, target, classes, None if request.panel_project else names)
    if is_catboost(data):
        return read_estimator(catboost_estimator(read_catboost(data)), target, classes, names, texts)
    if is_xgboost(data):
        return read_estimator(xgboost_estimator(data), target, classes, names)
    if is_onnx(data):
        return read_onnx(data, target, classes, names, {name: texts(name) for name in names or ()})
    raise ImportRefused(
        "unknown file format: pass a pickle or joblib file of scikit-learn, LightGBM, XGBoost, CatBoost or statsmodels, a text "
        "file of LightGBM, .json or .ubj of XGBoost, .json or .cbm of CatBoost, a Keras .h5 or .keras file, or an ONNX file"
    )


def _sample_texts(table: pa.Table | None, name: str) -> tuple[str, ...]:
    """The distinct texts in a column of the sample; none if there is no such column."""
    if table is None or name not in table.column_names:
        return ()
    return tuple(sorted({str(cell) for cell in pc.unique(table[name]).to_pylist() if cell not in (None, "")}))


def _panel_candidate(
    request: ImportRequest,
    project: Project,
    network: ImportedModel,
    table: pa.Table | None,
    allowed: unpickling.AllowedGlobals,
) -> _Candidate:
    """Combine the network, the scalers and the sample. Raises ImportRefused."""
    if table is None or request.scalers is None:
        raise ImportRefused(
            "a panel model needs rows of the panel and the scalers fitted with the model: pass --sample and --scalers"
        )
    result = import_panel(network, read_scalers(request.scalers, allowed), project, table)
    return _Candidate(
        result.model,
        result.model.encoder.columns,
        result.rows,
        lambda signature: replace(result.test, signature=signature),
        result.ignored,
        result.panel,
    )


def _table_candidate(request: ImportRequest, model: ImportedModel, table: pa.Table | None) -> _Candidate:
    """Combine the model with the columns of the sample. Raises ImportRefused."""
    names = table.column_names if table is not None else ()
    ignored = {**dict.fromkeys(names, "not used by the model"), request.target: "the target"}
    ignored = {name: reason for name, reason in ignored.items() if name not in model.encoder.names}
    columns = with_sample_formats(model.encoder.columns, table, request.columns)
    if table is None:
        if not model.is_named:
            raise ImportRefused(
                f"the file does not name its {len(columns)} inputs: pass --sample with these columns in the order of the fit"
            )
        if any(column.kind == "text" for column in columns):
            raise ImportRefused("the model reads texts: pass --sample with some, to compare it on them")
        rows = _finite_rows(model, synthetic_rows(columns, request.seed))
    else:
        table, rows = _accepted_rows(model, table, sample_rows(table, columns))
        columns = with_sample_ranges(columns, rows)
    return _Candidate(model, columns, rows, lambda signature: _test_rows(table, rows, signature), ignored)


def _finite_rows(model: ImportedModel, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with finite scores; rows of positive numbers if the original fails, such as on the logarithm of others."""
    numbers = [name for name in rows if rows[name].dtype != object]
    if not accepts(rows.head(MIN_SYNTHETIC_ROWS), model.original):
        positive = rows.assign(**rows[numbers].abs())
        rows = positive if accepts(positive.head(MIN_SYNTHETIC_ROWS), model.original) else rows
    try:
        with np.errstate(all="ignore"):
            finite = np.isfinite(model.original(rows)).all(axis=1)
    except Exception:  # raised by the original library; reported when the scores are checked
        return rows
    return rows[finite].reset_index(drop=True) if finite.sum() >= MIN_SYNTHETIC_ROWS else rows


def _accepted_rows(model: ImportedModel, table: pa.Table, rows: pd.DataFrame) -> tuple[pa.Table, pd.DataFrame]:
    """The sample, or only its complete rows if the original does not accept missing values."""
    complete = np.flatnonzero(rows.notna().all(axis=1))
    if len(complete) in (0, len(rows)) or accepts(rows, model.original):
        return table, rows
    return table.take(pa.array(complete)), rows.iloc[complete].reset_index(drop=True)


def _check_scores(candidate: _Candidate) -> None:
    """Require one number per row, or class probabilities. Raises ImportRefused."""
    model, rows = candidate.model, candidate.rows
    try:
        model.original(rows.head(1))
    except Exception as error:  # raised by the original library
        raise ImportRefused(
            f"the original model fails on a row of {len(candidate.columns)} columns ({type(error).__name__}): pass --sample "
            "with valid rows"
        ) from error
    scores, classes = model.original(rows), model.target.classes
    width = len(classes) or 1
    if scores.shape[1] != width:
        raise ImportRefused(f"the model returns {scores.shape[1]} numbers per row, expected {width}: export it with one target")
    in_range = ((scores >= -1e-6) & (scores <= 1 + 1e-6)).all() and (
        not model.sums_to_one or np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    )
    if classes and np.isfinite(scores).all() and not in_range:
        raise ImportRefused("the class scores of the model are not probabilities: export it with probabilities")


def _first_equal(model: ImportedModel, rows: pd.DataFrame) -> tuple[Conversion, float]:
    """The first conversion that matches the original, and its largest difference from it relative to 1 + |score|.

    Raises ImportRefused.
    """
    expected = model.original(rows)
    if not np.isfinite(expected).all():
        raise ImportRefused("the original returns infinite or missing scores for some rows: pass --sample with typical rows")
    closest = float("inf")
    for conversion in model.conversions:
        with contextlib.suppress(Exception):  # a failing conversion is skipped; onnxruntime raises its own exception classes
            scores = conversion.scorer.scores(conversion.encoder.transform(rows))
            if scores.shape != expected.shape:
                continue
            difference = float((np.abs(scores - expected) / (1.0 + np.abs(expected))).max())
            if difference <= conversion.tolerance:
                return conversion, difference
            closest = min(closest, difference)
    raise ImportRefused(
        f"no conversion reproduces the original (smallest difference {closest:g}, relative to 1 + |score|): pass --sample with "
        "typical rows, or retrain with supported estimators (see docs/how-to/import-a-model.md)"
    )


def _golden_rows(request: ImportRequest, columns: tuple[Column, ...], candidate: _Candidate, tolerance: float) -> Golden:
    """Some rows with the original's scores."""
    sampled = candidate.rows.sample(min(MAX_ROWS, len(candidate.rows)), random_state=request.seed)
    rows = add_edge_cases(columns, sampled)
    return Golden(frame_to_rows(rows), {request.name: candidate.model.original(rows).tolist()}, tolerance)


def _test_rows(table: pa.Table | None, rows: pd.DataFrame, signature: Signature) -> LabeledRows:
    """The rows that have a target in the sample, or if there are none, all rows with missing targets. Raises ImportRefused."""
    name = signature.target.name
    target = pd.Series(np.nan, index=rows.index)
    if table is not None and name in table.column_names:
        try:
            target = target_codes(table[name], signature.target, ())
        except (BadData, pa.ArrowInvalid):
            raise ImportRefused(
                f"the model predicts a number, but {name} in the sample is not a number: fix or remove it"
            ) from None
    known = target.notna().to_numpy()
    test = LabeledRows(rows, target, None, signature, raw=table)
    return test.rows(np.flatnonzero(known)) if known.any() else test


def _leaderboard(request: ImportRequest, model: Model, test: LabeledRows) -> pd.DataFrame:
    """One row, with scores if the sample has the target."""
    target = model.signature.target
    name, metrics = metric_name(target, request.metric), metrics_for(target)
    row: dict[str, Any] = {"rank": 1, "model": request.name, "eval_metric": name, "score_val": np.nan, "score_test": np.nan}
    row |= dict.fromkeys(metrics, np.nan) | dict.fromkeys(("fit_time", "pred_time_val", "ci_low", "ci_high"), np.nan)
    if test.target.notna().all():
        truth, scores = test.target.to_numpy(), model.scores(test.inputs)
        row |= {key: _value_or_nan(metric.function, truth, scores) for key, metric in metrics.items()}
        row["score_test"] = metric_value(metrics[name], truth, scores)
        row["ci_low"], row["ci_high"] = interval(bootstrap(metrics[name], truth, [scores], request.seed)[:, 0])
    return pd.DataFrame([{**row, "tied_with_best": True}])


def _value_or_nan(function: Callable[..., float], truth: np.ndarray, scores: FloatMatrix) -> float:
    try:
        return float(function(truth, scores))
    except ValueError:  # the sample is too small for this metric
        return float("nan")
