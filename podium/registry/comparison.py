"""Compare candidates and versions with the current champion on the same rows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from podium.models.metrics import bootstrap, interval, metric_name, metric_value, metrics_for
from podium.models.model import Model
from podium.project import Project
from podium.registry.loading import LoadedVersion
from podium.registry.versions import TEST_FILE, Fetch, Manifest, SplitBoundary, read_file
from podium.schema.arrays import BoolMask, IndexArray
from podium.schema.data_errors import BadData
from podium.storage.object_store import StoreError, TooLarge
from podium.tables.frames import coerce_by_row
from podium.tables.labeled_rows import LabeledRows, UnreadableRows, labeled_rows_from_parquet
from podium.tables.split_keys import SINGLE_STRATUM, row_hash, split_keys, strata

CURRENT_CHAMPION = "(current champion)"
MAX_TEST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The current champion model, and how its project split the rows (None if unknown).

    `rows` are those it was trained on, with its out-of-fold scores, if it has no test rows.
    """

    model: Model
    project: Project | None
    split: SplitBoundary | None
    rows: LabeledRows | None = None


@dataclass(frozen=True, slots=True)
class ComparableRows:
    """Rows that the incumbent can predict: their positions and the incumbent's scores.

    `known_unseen` is false if the model that gave a score may have been trained on the row.
    """

    positions: IndexArray
    scores: np.ndarray
    known_unseen: bool


class NotComparable(ValueError):
    """There are no rows on which a version and the champion can be compared; the message says why."""


def incumbent_of(champion: LoadedVersion, fetch: Fetch) -> Incumbent:
    """Return the champion model. Without the rows it was trained on, it may have seen those that it is compared on."""
    manifest, rows = champion.manifest, None
    if manifest.is_out_of_fold:
        with contextlib.suppress(UnreadableRows, StoreError):
            stored = read_evaluation_rows(manifest, fetch)
            rows = stored if manifest.champion in stored.scores else None
    try:
        project = Project.model_validate(manifest.configuration)
    except ValidationError:  # the configuration is from another release
        project = None
    return Incumbent(champion.models[manifest.champion], project, manifest.split, rows)


def read_evaluation_rows(manifest: Manifest, fetch: Fetch) -> LabeledRows:
    """Return the test rows, or all rows with out-of-fold scores. Raises IntegrityError, TooLarge, UnreadableRows."""
    file = manifest.files.get(TEST_FILE)
    if file and file.size > MAX_TEST_BYTES:
        raise TooLarge(f"{TEST_FILE} has {file.size} bytes; at most {MAX_TEST_BYTES} are read")
    return labeled_rows_from_parquet(read_file(manifest, TEST_FILE, fetch))


def comparable_rows(incumbent: Incumbent, test: LabeledRows) -> ComparableRows:
    """Return the rows that the incumbent has not seen, parsed by its own rules, with its scores. Raises NotComparable.

    Rows that it has seen have its out-of-fold scores, if there are any.
    """
    incumbent_target, target = incumbent.model.signature.target, test.signature.target
    if (incumbent_target.task, incumbent_target.classes) != (target.task, target.classes):
        raise NotComparable("the champion has a different target")
    unseen, known = _unseen(incumbent, test)
    if not unseen.any():
        raise NotComparable("the champion was trained on all of these rows")
    positions, frame = _parse(incumbent.model, test, np.flatnonzero(unseen))
    scores = incumbent.model.scores(frame)
    if incumbent.rows is not None and known:
        seen, indices = _seen(incumbent, incumbent.rows, test.rows(positions))
        scores[seen] = incumbent.rows.scores[incumbent.model.family][indices]
    predicted = np.isfinite(scores).all(axis=1)  # a panel model has no prediction for unknown entities
    return ComparableRows(positions[predicted], scores[predicted], known)


def _unseen(incumbent: Incumbent, test: LabeledRows) -> tuple[BoolMask, bool]:
    """Return a mask of the rows that the incumbent has not seen, and whether that is known."""
    every = np.ones(len(test.inputs), dtype=bool)
    unknown = every, False
    if incumbent.split is None or incumbent.project is None or (test.raw is None and test.order is None):
        return unknown
    if incumbent.split.kind == "out-of-fold":
        columns = set(test.raw.column_names if test.raw is not None else ())
        return every, incumbent.rows is not None and columns >= set(incumbent.split.columns)
    try:
        return unseen_by(test, incumbent.split, incumbent.project), True
    except (BadData, KeyError):  # the table no longer has the columns of the split
        return unknown


def _seen(incumbent: Incumbent, seen: LabeledRows, test: LabeledRows) -> tuple[BoolMask, IndexArray]:
    """Return a mask of the test rows that are among the incumbent's rows, and the indices of these rows."""
    assert incumbent.split is not None and incumbent.project is not None and test.raw is not None and seen.order is not None
    numbers = pd.Series(np.arange(len(seen.order)), index=seen.order.to_numpy())
    keys = split_keys(test.raw.select(incumbent.split.columns), incumbent.project)
    found = numbers[~numbers.index.duplicated()].reindex(keys).to_numpy()
    return ~np.isnan(found), found[~np.isnan(found)].astype(np.intp)


def _parse(model: Model, test: LabeledRows, positions: IndexArray) -> tuple[IndexArray, pd.DataFrame]:
    columns = model.signature.inputs
    if test.raw is None:
        is_text = {column.name: column.is_text for column in test.signature.inputs}
        if any(is_text.get(column.name) != column.is_text for column in columns):
            raise NotComparable("the champion does not accept these rows")
        return positions, test.inputs.iloc[positions]
    try:
        frame, invalid = coerce_by_row(test.raw.take(positions), columns, test.raw.column_names)
    except BadData as error:
        raise NotComparable(f"the champion does not accept these rows: {error}") from None
    return np.delete(positions, list(invalid)), frame.drop(index=list(invalid)).reset_index(drop=True)


def compare(models: Sequence[Model], champion: Incumbent | None, test: LabeledRows, project: Project) -> pd.DataFrame:
    """Return one row per model, best first: rank, model, eval_metric, score_test, ci_low, ci_high, rows.

    All models are scored on the same rows: those that the champion can predict and has not seen, or has out-of-fold scores of.
    """
    name = metric_name(test.signature.target, project.metric)
    metric = metrics_for(test.signature.target)[name]
    positions, champion_scores = np.arange(len(test.inputs)), dict[str, np.ndarray]()
    with contextlib.suppress(NotComparable):
        if champion is not None:
            comparable = comparable_rows(champion, test)
            positions = comparable.positions
            champion_scores = {f"{champion.model.family} {CURRENT_CHAMPION}": comparable.scores}
    rows = test.rows(positions)
    scores = {model.family: model.out_of_sample_scores(rows) for model in models} | champion_scores
    finite = np.isfinite(np.hstack(list(scores.values()))).all(axis=1)
    if not finite.any():
        return pd.DataFrame()
    target, matrices = test.target.to_numpy()[positions][finite], [matrix[finite] for matrix in scores.values()]
    samples = bootstrap(metric, target, matrices, project.seed)
    table: list[dict[str, Any]] = [
        {
            "model": family,
            "eval_metric": name,
            "score_test": metric_value(metric, target, matrix),
            **dict(zip(("ci_low", "ci_high"), interval(samples[:, column]), strict=True)),
            "rows": int(finite.sum()),
        }
        for column, (family, matrix) in enumerate(zip(scores, matrices, strict=True))
    ]
    table.sort(key=lambda row: (-row["score_test"], row["model"]))
    return pd.DataFrame([{"rank": rank, **row} for rank, row in enumerate(table, 1)])


def unseen_by(rows: LabeledRows, split: SplitBoundary, project: Project) -> BoolMask:
    """Return a mask of the rows that a model trained with this split has not seen. Raises BadData, KeyError."""
    order = rows.order if rows.raw is None else split_keys(rows.raw.select(split.columns), project)
    assert order is not None, "panel rows have days, and other rows have their raw text"
    keys = order.to_numpy()
    if split.kind == "time":
        later: BoolMask = keys > split.boundaries[SINGLE_STRATUM]
        return later
    boundaries = [split.boundaries.get(stratum, 2**64 - 1) for stratum in strata(rows, split.kind)]
    unseen: BoolMask = row_hash(keys, project.seed) < np.array(boundaries, dtype=np.uint64)
    return unseen
