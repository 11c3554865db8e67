"""The report of a day: from logged predictions and labels to drift, errors and alarms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.monitoring.daily_report import Reporter
from podium.monitoring.report_text import report_text
from podium.prediction_log.journal import Entry
from podium.prediction_log.labels import is_label_file, labels_of, labels_prefix, read_label_file
from podium.prediction_log.prediction_table import Privacy, entries_table, rows_table, to_bytes
from podium.prediction_log.reading import read_day
from podium.prediction_log.replay import replay, replay_gate
from podium.prediction_log.shipping import parquet_bytes
from podium.prediction_log.verification import loader
from podium.project import GateOptions, Project, PromotionRules
from podium.registry.audit_entry import GateResult
from podium.registry.champion_alias import read_champion
from podium.registry.comparison import read_evaluation_rows
from podium.registry.loading import load_model
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.registry.versions import MANIFEST, Manifest
from podium.schema.columns import Target
from podium.schema.data_errors import BadData
from podium.storage.object_store import digest
from podium.storage.predictions import logged_key
from podium.tables.frames import columns_of
from podium.tables.panel import ACTUAL, DAY, INDEX, LAST
from tests import tables
from tests.conftest import publish_champion, publish_version
from tests.unit.training.test_panel import shops

OPTIONS: dict[str, Any] = {"data": "s3://podium/none", "families": ["linear"], "n_trials": 1}
ROWS = 400
pytestmark = pytest.mark.slow


class Log:
    """Writes days of predictions of a version, as if they had been shipped."""

    def __init__(self, context: PromotionContext, manifest: Manifest) -> None:
        self.context, self.manifest = context, manifest
        self.rows = read_evaluation_rows(manifest, context.fetch)
        self.model = load_model(manifest, manifest.champion, context.fetch)
        entry = read_champion(context.store, manifest.project, context.trust.promoters)
        assert entry and entry.manifest_sha256
        self.version = (manifest.project, manifest.version, entry.manifest_sha256, entry.sequence)
        self.reporter = Reporter(context.store, loader(context.fetch, context.trust.trainers), context.fetch)
        self.random = np.random.default_rng(0)

    def sample(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return typed rows with the codes or values of their target."""
        chosen = self.rows.rows(self.random.integers(0, len(self.rows.inputs), ROWS))
        return chosen.inputs.reset_index(drop=True), chosen.target.to_numpy()

    def write(
        self, day: str, frame: pd.DataFrame, options: Privacy | None = None, keys: dict[str, np.ndarray] | None = None
    ) -> list[str]:
        """Write one request, and return its prediction id for each row."""
        signature, scores = self.manifest.signature, {self.manifest.champion: self.model.scores(frame)}
        table = rows_table(signature, self.manifest.families, columns_of(frame), scores, keys)
        segment = f"{day.replace('-', '')}{self.random.integers(1 << 40):012x}"
        entry = Entry(0, 1.0, self.version, "", b"", {self.manifest.champion: []}, [], to_bytes(table))
        logged = entries_table([entry], segment, signature, self.manifest.families, options or Privacy())
        self.context.store.create(logged_key(self.manifest.project, segment, 1), parquet_bytes(logged))
        return [f"{segment}-0"] * len(frame)

    def label(self, day: str, ids: list[str], labels: list[object]) -> None:
        target, rows = self.manifest.signature.target, range(1, len(ids) + 1)
        key = f"{labels_prefix(self.manifest.project, day)}{self.random.integers(1 << 40):012x}.parquet"
        self.context.store.create(key, parquet_bytes(labels_of(ids, list(rows), labels, target, "ann").table))

    def report(self, day: str, previous: dict[str, Any] | None = None) -> dict[str, Any]:
        report = self.reporter.report(self.manifest.project, day, previous)
        json.dumps(report, allow_nan=False)
        return report


@pytest.fixture
def mixed(context: PromotionContext) -> Iterator[Log]:
    project = Project(name="mixed", target="bought", columns=tables.MIXED_COLUMNS, **OPTIONS)
    yield Log(context, publish_champion(context, tables.mixed(1500), project))


@pytest.fixture
def prices(context: PromotionContext) -> Log:
    return Log(context, publish_champion(context, tables.prices(800), Project(name="prices", target="price", **OPTIONS)))


def test_days_like_the_training_data_are_without_alarm(mixed: Log) -> None:
    report = None
    for day in range(1, 6):
        date, (frame, codes) = f"2026-11-0{day}", mixed.sample()
        ids = mixed.write(date, frame)
        classes = mixed.manifest.signature.target.classes
        mixed.label(date, ids, [classes[int(code)] for code in codes])
        report = mixed.report(date, report)
        assert report["alarms"] == [] and report["rows"] == ROWS and report["requests"] == 1
        assert report["drift"]["joint"] < 0.6 and abs(report["error"]["estimated"] - report["error"]["expected"]) < 0.02
        assert report["labels"]["unknown"] == 0
        assert abs(report["labels"]["versions"][0]["error"] - report["error"]["expected"]) < 0.08
        assert {"city", "member"} & {each["column"] for each in report["labels"]["versions"][0]["slices"]}
        assert report["labels"]["versions"][0]["metric"] == "roc_auc"
    assert "estimated" in report_text(report) and "ALARM" not in report_text(report)


def test_wrong_labels_raise_an_alarm_and_drift_alone_does_not(mixed: Log) -> None:
    frame, codes = mixed.sample()
    classes = mixed.manifest.signature.target.classes
    shifted = frame.assign(visits=frame["visits"] + 15)  # nothing depends on them
    ids = mixed.write("2026-11-01", shifted)
    report = mixed.report("2026-11-01")
    assert report["alarms"] == [] and report["drift"]["joint"] > 0.8
    assert report["drift"]["columns"][0]["column"] == "visits"
    flipped = [classes[int(1 - code if number % 3 == 0 else code)] for number, code in enumerate(codes)]
    mixed.label("2026-11-02", ids, list(flipped))
    report = mixed.report("2026-11-02", report)
    assert report["rows"] == 0 and report["labels"]["received"] == ROWS
    assert [alarm["kind"] for alarm in report["alarms"]] == ["labels"]
    assert "ALARM" in report_text(report)
    after = mixed.report("2026-11-03", report)
    assert after["alarms"] == []  # it starts again


def test_rows_that_are_hard_to_predict_raise_an_alarm_without_labels(prices: Log) -> None:
    frame, values = prices.sample()
    assert prices.report("2026-10-31")["rows"] == 0
    prices.write("2026-11-01", frame)
    report = prices.report("2026-11-01")
    assert report["error"]["name"] == "mean absolute error" and report["alarms"] == []
    ids = prices.write("2026-11-02", frame)
    prices.label("2026-11-02", ids, [repr(float(value + 100_000)) for value in values])
    report = prices.report("2026-11-02", report)
    assert [alarm["kind"] for alarm in report["alarms"]] == ["labels"]
    prices.label("2026-11-03", ["20261101aaaaaaaaaaaa-0"], ["1"])
    assert prices.report("2026-11-03", report)["labels"]["unknown"] == 1


def test_a_version_that_changes_many_logged_predictions_is_refused(prices: Log) -> None:
    frame, _ = prices.sample()
    context, name = prices.context, prices.manifest.project

    def candidate(factor: float, room: str = "") -> list[GateResult]:
        table = tables.prices(800, seed=5)
        table["rooms"] = room + table["rooms"].astype(str)
        project = Project(name=name, target="price", **OPTIONS)
        manifest = publish_version(context, table.assign(price=table["price"] * factor), project)
        gates = PromotionRules(gates=GateOptions(max_changed=0.1, non_inferiority=False))
        checked = replace(context, rules=lambda _: gates, replay=replay_gate)
        entry = promote(checked, name, manifest.version, "a test", utc_now, force=True, dry_run=True)
        return [gate for gate in entry.evidence if gate.name == "replay"]

    assert [gate.detail for gate in candidate(1)] == ["not compared: no predictions are logged"]
    prices.write("2026-11-01", frame)
    (same,), (doubled,) = candidate(1), candidate(2)
    assert same.passed and "of the last 400 logged predictions change by more than 5%" in same.detail
    assert not doubled.passed and doubled.detail.startswith("100.0%")
    assert [gate.detail for gate in candidate(1, "r")] == [
        "not compared: the log has no values of rooms that the version accepts"
    ]


def test_a_replay_says_by_how_much_probabilities_differ(mixed: Log) -> None:
    frame, _ = mixed.sample()
    mixed.write("2026-11-01", frame)
    context, served = mixed.context, mixed.manifest
    project = Project(name="mixed", target="bought", columns=tables.MIXED_COLUMNS, **OPTIONS)
    other = publish_version(context, tables.mixed(1500, seed=8), project)
    documents = [context.store.read(f"versions/mixed/{each.version}/{MANIFEST}").data for each in (served, other)]
    same, differs = (
        replay(context.store, context.load("mixed", each.version, digest(document)))
        for each, document in zip((served, other), documents, strict=True)
    )
    assert (same.changed, same.largest) == (0, 0)
    before, after = (load_model(each, each.champion, context.fetch).scores(frame)[:, 1] for each in (served, other))
    assert differs.largest == pytest.approx(np.abs(after - before).max())
    assert 0 < (differs.typical or 0) < differs.largest and "probabilities differ by" in str(differs)


def test_a_version_whose_files_were_deleted_is_counted_and_named(prices: Log) -> None:
    frame, _ = prices.sample()
    ids, version = prices.write("2026-11-01", frame), prices.manifest.version
    prices.label("2026-11-01", ids[:2], [1, 2])
    prices.context.store.delete(f"versions/prices/{version}/models/linear.pkl")
    report = prices.report("2026-11-01")
    assert report["rows"] == ROWS and report["versions"] == {version: ROWS} and report["labels"]["unknown"] == 2
    assert "missing" in report["unreadable"][version] and f"{version} cannot be compared" in report_text(report)


def test_forecasts_of_a_panel_are_compared_and_labelled(context: PromotionContext) -> None:
    fields = {"name": "shops", "target": "sold", "panel": {"entity": "shop", "time": "day", "lags": 2}, **OPTIONS}
    log = Log(context, publish_champion(context, shops(count=4, days=100), Project.model_validate(fields)))
    frame, _ = log.sample()
    keys = {
        INDEX: np.arange(ROWS) * 1.0,
        DAY: np.full(ROWS, 20_000.0),
        ACTUAL: np.full(ROWS, np.nan),
        LAST: np.full(ROWS, 100.0),
    }
    keys[LAST][:3] = np.nan  # without a forecast
    ids = log.write("2026-11-01", frame, keys=keys)
    log.label("2026-11-01", ids, list(100 + 100 * log.model.scores(frame)[:, 0]))
    report = log.report("2026-11-01")
    assert report["rows"] == ROWS and "relative to the value before" in report["error"]["name"]
    (labelled,) = report["labels"]["versions"]
    assert labelled["rows"] == ROWS - 3 and labelled["error"] < 1e-9


def test_texts_and_dates_are_no_drift_and_strangers_are_not_estimated(context: PromotionContext) -> None:
    words, random = ["fine", "good", "poor", "late", "lost", "kind", "cold", "hot"], np.random.default_rng(1)
    days = (pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 300, 900), "D")).strftime("%Y-%m-%d")
    texts = [" ".join(random.choice(words, 6)) + f" {number}" for number in range(900)]
    frame = pd.DataFrame({"note": texts, "day": days, "size": random.normal(size=900).round(3)})
    frame["late"] = np.where(frame["size"] + random.normal(0, 0.5, 900) > 0, "yes", "no")
    kinds = {"note": {"kind": "text"}, "day": {"kind": "date"}}
    project = Project.model_validate({"name": "notes", "target": "late", "columns": kinds, **OPTIONS})
    log = Log(context, publish_champion(context, frame, project))
    rows, _ = log.sample()
    later = rows.assign(day=rows["day"] + 400, note=[f"{note} again {number}" for number, note in enumerate(rows["note"])])
    log.write("2026-11-01", later)
    report = log.report("2026-11-01")
    distances = {each["column"]: each for each in report["drift"]["columns"]}
    assert distances["day"]["distance"] > 2 and distances["note"]["measure"] == "Wasserstein"
    assert "estimated" in report["error"] and report["alarms"] == []
    log.write("2026-11-02", rows.assign(size=rows["size"] + 50))
    strange = log.report("2026-11-02", report)
    assert "differ too much" in strange["note"] and "estimated" not in strange["error"] and strange["alarms"] == []
    assert "differ too much" in report_text(strange)


def test_a_large_day_is_counted_and_sampled(prices: Log) -> None:
    frame, _ = prices.sample()
    for _ in range(5):
        prices.write("2026-11-01", frame)
    (day,) = read_day(prices.context.store, "prices", "2026-11-01", 30)
    assert (day.rows, day.requests) == (5 * ROWS, 5)
    assert day.table.num_rows == 30 and len(day.table["prediction_id"].unique()) > 1


def test_few_rows_and_hidden_inputs_are_reported_as_such(prices: Log) -> None:
    frame, _ = prices.sample()
    prices.write("2026-11-01", frame.head(10))
    assert "too few" in prices.report("2026-11-01")["note"]
    prices.write("2026-11-02", frame, Privacy(exclude=("area",)))
    assert [each["column"] for each in prices.report("2026-11-02")["drift"]["columns"]] == ["rooms"]
    prices.write("2026-11-03", frame, Privacy(hash=("rooms", "area"), key=b"k"))
    assert "excluded" in prices.report("2026-11-03")["note"]


ID = "20261101aaaaaaaaaaaa-0"
CLASSES, CODES, NUMBER = Target("y", "binary", ("no", "yes")), Target("y", "binary", (0, 1)), Target("y", "regression")


@pytest.mark.parametrize(
    ("data", "target", "labels", "unlabelled"),
    [
        (f"\ufeffprediction_id;y\n{ID}; Yes\n{ID};no\n", CLASSES, [(1, "yes"), (1, "no")], 0),
        (f"prediction_id,row,label\n{ID},2.0,1.0\n{ID},3.0,\n", CODES, [(2, "1")], 1),  # as pandas writes them
        (f"other,prediction_id,row,label\nx,{ID},2,1e3\n", NUMBER, [(2, "1000.0")], 0),
        (json.dumps([{"prediction_id": ID, "label": 1}, {"prediction_id": ID, "row": 2, "y": None}]), CODES, [(1, "1")], 1),
        (f'"prediction_id"\t"label"\n{ID}\t0.0\n', CODES, [(1, "0")], 0),
    ],
)
def test_label_files_are_read_as_people_write_them(
    data: str, target: Target, labels: list[tuple[int, str]], unlabelled: int
) -> None:
    assert is_label_file(data.encode(), target)
    found = read_label_file(data.encode(), target, "ann")
    assert list(zip(found.table["row"].to_pylist(), found.table["label"].to_pylist(), strict=True)) == labels
    assert found.unlabelled == unlabelled


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", "csv-header"),
        ("[{]", "csv-header"),
        ("id,label\n1,2\n", "missing-field"),
        ("prediction_id,label\nx,1\n", "invalid-type"),
        (f"prediction_id,row,label\n{ID},0,1\n", "invalid-type"),
        (f"prediction_id,row,label\n{ID},1.5,1\n", "invalid-type"),
        (f"prediction_id,label\n{ID},nan\n", "invalid-type"),
        (f"prediction_id,label\n{ID},1e999\n", "invalid-type"),
    ],
)
def test_label_files_are_refused_with_the_reason(data: str, code: str) -> None:
    with pytest.raises(BadData) as error:
        read_label_file(data.encode(), NUMBER, "")
    assert error.value.code == code


def test_a_table_with_ids_and_inputs_is_not_a_file_of_labels() -> None:
    assert not is_label_file(f"prediction_id,age,city\n{ID},3,Bonn\n".encode(), NUMBER)
    assert not is_label_file(b"prediction_id_of_yesterday,label\n1,2\n", NUMBER)
