"""The report of a project's day: what was answered, how the inputs differ from the training rows, and whether it did harm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from podium.formatting import format_number
from podium.models.metrics import metric_name, metrics_for
from podium.models.model import Model
from podium.monitoring.drift import ColumnDrift, column_drift, comparable, joint_drift
from podium.monitoring.harm import HarmTest
from podium.monitoring.losses import Reference, cautious_losses, expected_errors
from podium.prediction_log.labels import read_labels
from podium.prediction_log.prediction_table import available_inputs, logged_keys, logged_scores
from podium.prediction_log.reading import read_day, read_labelled
from podium.prediction_log.replay import by_slice
from podium.prediction_log.verification import LoadModels
from podium.registry.comparison import read_evaluation_rows
from podium.registry.signing import Unsigned
from podium.registry.versions import TEST_FILE, Fetch, IntegrityError, Manifest
from podium.schema.arrays import FloatMatrix, FloatVector, IndexArray
from podium.schema.columns import Signature
from podium.storage.object_store import NotFound, Store
from podium.tables.panel import LAST, change_scale

MAX_ROWS = 5_000
"""Rows of a day, and of the reference, that are compared; of more, random ones."""
READ_ROWS = 20_000
"""Rows of a version that are read, whichever model they asked for."""
MIN_ROWS = 50
"""Fewer rows are counted and not compared."""
MAX_SLICES = 20
CLASS_TOLERANCE, NUMBER_TOLERANCE = 0.005, 0.05
"""By how much the error rate, and relatively the mean absolute error, may exceed the reference."""
LABELS, ESTIMATE = "labels", "estimate"
WORDS = {LABELS: "from the labels", ESTIMATE: "estimated without labels"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Day:
    """Logged rows of one version, with its models."""

    manifest: Manifest
    models: Mapping[str, Model]
    table: pa.Table

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    def of_champion(self) -> pa.Table:
        """Return rows of the model that is first on the leaderboard, at most MAX_ROWS at random."""
        table = _with_prediction(self.table.filter(pc.equal(self.table["model"], self.manifest.champion)))
        return table.take(pa.array(_chosen(table.num_rows)))


@dataclass(slots=True)
class Reporter:
    """Builds the reports of a bucket's projects."""

    store: Store
    load: LoadModels
    fetch: Fetch
    _references: dict[str, Reference | None] = field(default_factory=dict, init=False)

    def report(self, project: str, day: str, previous: Json | None) -> Json:
        """Return the report of a day (YYYY-MM-DD); `previous` is the report of an earlier day. Raises StoreError."""
        labels, unreadable = read_labels(self.store, project, day), dict[str, str]()
        logged = read_day(self.store, project, day, READ_ROWS)
        days = [found for each in logged if (found := self._day(each.table, unreadable))]
        tests = {name: _loaded(state) for name, state in ((previous or {}).get("tests") or {}).items()}
        report: Json = {
            "project": project,
            "day": day,
            "rows": sum(each.rows for each in logged),
            "requests": sum(each.requests for each in logged),
            "versions": {each.table["version"][0].as_py(): each.rows for each in logged},
            "alarms": [],
            "labels": self._labels(project, labels, tests, unreadable),
            "unreadable": unreadable,
        }
        if days:
            latest = max(days, key=lambda each: pc.max(each.table["promotion"]).as_py())
            report |= {"version": latest.manifest.version, **self._comparison(latest, tests)}
        for key, test in tests.items():
            if test.is_alarm:
                report["alarms"].append(_alarm(report, key, test))
                tests[key] = test.restarted()
        current = {report.get("version"), *(each["version"] for each in report["labels"]["versions"])} - {None}
        kept = current or {key.split("/")[0] for key in tests}
        report["tests"] = {key: _stored(test) for key, test in tests.items() if key.split("/")[0] in kept}
        return _finite(report)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def _day(self, table: pa.Table, unreadable: dict[str, str]) -> Day | None:
        """Return the rows with their version; None if its files were deleted or are damaged, which `unreadable` then says."""
        project, version, sha256 = (table[name][0].as_py() for name in ("project", "version", "manifest_sha256"))
        try:
            return Day(*self.load(project, version, sha256), table)
        except (IntegrityError, NotFound, Unsigned) as error:
            unreadable[version] = str(error)
            return None

    def _reference(self, day: Day) -> Reference | None:
        """Return the rows that a version was evaluated on, or None if it was imported without any."""
        version = day.manifest.version
        if version not in self._references:
            self._references[version] = None
            if TEST_FILE in day.manifest.files:
                rows = read_evaluation_rows(day.manifest, self.fetch)
                known = np.flatnonzero(rows.target.notna())
                known = known[_chosen(len(known))]
                rows = rows.rows(known)
                if len(known) >= MIN_ROWS:
                    scores = day.models[day.manifest.champion].out_of_sample_scores(rows)
                    labels = rows.target.to_numpy(dtype=float)
                    self._references[version] = Reference(day.signature.target, rows.inputs, scores, labels)
        return self._references[version]

    # --- labels ------------------------------------------------------------------------------------------------------------

    def _labels(self, project: str, labels: pd.DataFrame, tests: dict[str, HarmTest], unreadable: dict[str, str]) -> Json:
        """Return the errors of labelled predictions by version, and add them to the tests."""
        found, versions = 0, []
        for logged in read_labelled(self.store, project, labels):
            table = _with_prediction(logged)
            if not len(table):
                continue
            day, truth = self._day(table, unreadable), table["label"].to_pylist()
            if day is None:
                continue
            values = _logged_errors(day, truth)
            found += len(values)
            reference = self._reference(day)
            facts: Json = {"version": day.manifest.version, "rows": len(values), "error": float(values.mean())}
            facts |= _metric(day, truth)
            if day.manifest.champion in logged_scores(day.table) and reference:
                test = _test(tests, day.manifest.version, LABELS, reference)
                tests[f"{day.manifest.version}/{LABELS}"] = test.after(reference.losses(values))
                facts |= {"expected": float(reference.errors.mean())}
            inputs = available_inputs(day.table, day.signature)
            facts["slices"] = by_slice(inputs, values, MIN_ROWS, MAX_SLICES, "error")
            versions.append(facts)
        return {"received": len(labels), "unknown": len(labels) - found, "versions": versions}

    # --- comparison --------------------------------------------------------------------------------------------------------

    def _comparison(self, day: Day, tests: dict[str, HarmTest]) -> Json:
        """Return the drift of a day, and the error to be expected, and add it to the tests."""
        reference, table = self._reference(day), day.of_champion()
        if reference is None:
            return {"note": "nothing to compare with: the version was imported without rows and their target"}
        if table.num_rows < MIN_ROWS:
            return {"note": f"{table.num_rows} rows are too few to compare; it takes {MIN_ROWS}"}
        inputs = available_inputs(table, day.signature)
        if inputs.empty:
            return {"note": "nothing to compare: all inputs are excluded from the log or hashed"}
        scores = logged_scores(table)[day.manifest.champion]
        old, new = (comparable(frame[list(inputs.columns)], day.signature) for frame in (reference.inputs, inputs))
        columns = [column_drift(name, old[name], new[name]) for name in old.columns]
        dates = [column.name for column in day.signature.inputs if column.kind == "date"]
        joint = joint_drift(*(frame.drop(columns=dates, errors="ignore") for frame in (old, new)))
        test = _test(tests, day.manifest.version, ESTIMATE, reference)
        error: Json = {
            "name": _error_name(day.signature),
            "expected": float(reference.errors.mean()),
            "allowed": test.allowed * reference.unit,
        }
        report: Json = {"error": error}
        if joint.comparable_rows >= MIN_ROWS:
            values = expected_errors(replace(reference, inputs=old), joint.weights, new, scores)
            error["estimated"] = float(values.mean())
            tests[f"{day.manifest.version}/{ESTIMATE}"] = test.after(cautious_losses(reference, values, joint.comparable_rows))
        else:
            report["note"] = "the rows differ too much from the training rows to estimate the error without labels"
        return report | {
            "drift": {
                "joint": joint.auc,
                "predictions": asdict(_prediction_drift(reference, scores)),
                "columns": [asdict(each) for each in sorted(columns, key=lambda each: -each.distance)],
            },
        }


def _error_name(signature: Signature) -> str:
    if signature.panel:
        return "mean absolute error of the change, relative to the value before"
    return "error rate" if signature.target.classes else "mean absolute error"


def _with_prediction(table: pa.Table) -> pa.Table:
    """Return the rows that have a prediction; unknown entities of a panel have none."""
    predictions = table["prediction"]
    has_one = pc.is_finite(predictions) if pa.types.is_floating(predictions.type) else pc.is_valid(predictions)
    return table.filter(pc.fill_null(has_one, False))


def _chosen(rows: int) -> IndexArray:
    """Return the indices of all rows, or of MAX_ROWS random ones."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:MAX_ROWS])


def _test(tests: Mapping[str, HarmTest], version: str, kind: str, reference: Reference) -> HarmTest:
    """Return the test of a version so far, or a new one."""
    losses = reference.losses(reference.errors)
    tolerance = CLASS_TOLERANCE if reference.target.classes else NUMBER_TOLERANCE * float(losses.mean())
    return tests.get(f"{version}/{kind}") or HarmTest.of_reference(losses, tolerance)


def _logged_errors(day: Day, truth: Sequence[str]) -> FloatVector:
    """Return the error of each logged prediction, whichever model gave it."""
    logged = day.table["prediction"].to_pylist()
    if day.signature.target.classes:
        return np.array([str(prediction) != label for prediction, label in zip(logged, truth, strict=True)], dtype=float)
    values, keys = np.array(truth, dtype=float), logged_keys(day.table, day.signature)
    if keys is None:
        return np.abs(np.array(logged, dtype=float) - values)
    changes = (values - keys[LAST]) / change_scale(keys[LAST])  # as a panel's models predict them
    return np.abs(next(iter(logged_scores(day.table).values()))[:, 0] - changes)


def _metric(day: Day, truth: Sequence[str]) -> Json:
    """Return the project's metric of the labelled predictions."""
    target, scores = day.signature.target, logged_scores(day.table).get(day.manifest.champion)
    codes = {str(label): code for code, label in enumerate(target.classes)}
    if scores is None or day.signature.panel or (codes and not codes.keys() >= set(truth)):
        return {}
    labels = np.array([codes[label] if codes else float(label) for label in truth], dtype=float)
    name = metric_name(target, day.manifest.configuration.get("metric"))
    with np.errstate(all="ignore"):
        return {"metric": name, "value": metrics_for(target)[name].function(labels, scores)}


def _prediction_drift(reference: Reference, scores: FloatMatrix) -> ColumnDrift:
    """Compare the scores: of the second class, of the predicted class of more than two, or the numbers."""
    column = 1 if scores.shape[1] == 2 else 0
    if scores.shape[1] > 2:
        old, new = (each.argmax(axis=1).astype(str) for each in (reference.scores, scores))
        return column_drift("predictions", pd.Series(old), pd.Series(new))
    return column_drift("predictions", pd.Series(reference.scores[:, column]), pd.Series(scores[:, column]))


def _alarm(report: Json, key: str, test: HarmTest) -> Json:
    version, kind = key.split("/")
    message = f"{report['project']} {version} makes more errors than in its evaluation, {WORDS[kind]}"
    return {"kind": kind, "version": version, "message": f"{message}: {_figures(report, version, kind)}"}


def _figures(report: Json, version: str, kind: str) -> str:
    """Return the error of the day and that of the evaluation."""
    if kind == ESTIMATE:
        error, expected = report["error"]["estimated"], report["error"]["expected"]
    else:
        labelled = next(each for each in report["labels"]["versions"] if each["version"] == version)
        error, expected = labelled["error"], labelled["expected"]
    return f"{format_number(error)} instead of {format_number(expected)}"


def _stored(test: HarmTest) -> Json:
    return {"allowed": test.allowed, "evidence": [each if math.isfinite(each) else None for each in test.evidence]}


def _loaded(state: Json) -> HarmTest:
    return HarmTest(state["allowed"], tuple(-math.inf if each is None else each for each in state["evidence"]))


def _finite(value: Any) -> Any:
    """Return JSON values without NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
