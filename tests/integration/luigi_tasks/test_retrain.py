"""Retraining of a panel with the luigi command: daily files, a run as of a day, a range of weeks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from podium.local import LocalCloud
from podium.registry.audit_log import entries_since
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import PromotionContext
from podium.registry.retrain_record import RetrainRecord, read_retrain, retrain_dates, retrain_key
from podium.registry.signing import Unsigned
from podium.settings import ROOT
from podium.storage.object_store import Store
from tests.integration.luigi_tasks.test_pipeline import LUIGI, luigi, stages
from tests.unit.training.test_panel import shops

pytestmark = pytest.mark.slow
PODIUM = str(Path(sys.executable).with_name("podium"))

PROJECT = """
data = "s3://podium/raw/weeks/"
target = "sold"
families = ["persistence", "linear"]
n_trials = 1
split.folds = 2
gates.non_inferiority = false
[panel]
entity = "shop"
time = "day"
lags = 2
"""
CLOSED_SUNDAY = "2026-01-11"


@pytest.fixture(scope="module")
def weeks(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Put four weeks of daily files without one Sunday; return the environment of their project."""
    folder = tmp_path_factory.mktemp("projects")
    (folder / "weeks").mkdir()
    (folder / "weeks" / "project.toml").write_text(PROJECT)
    for day, rows in shops(days=28).query(f"day != '{CLOSED_SUNDAY}'").groupby("day"):
        put(cloud, str(day), rows.to_csv(index=False).encode())
    return {**cloud.environment, "PODIUM_PROJECTS": str(folder)}


def put(cloud: LocalCloud, day: str, data: bytes) -> None:
    cloud.client().put_object(Bucket="podium", Key=f"raw/weeks/{day}.csv", Body=data)


def retrain_sundays(environment: dict[str, str], start: str, stop: str) -> subprocess.CompletedProcess[str]:
    command = [LUIGI, "--module", "luigi_tasks", "RangeWeekly", "--of", "Retrain", "--of-params", '{"project": "weeks"}']
    command += ["--start", start, "--stop", stop, "--local-scheduler"]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)


def receipts(store: Store) -> dict[str, dict[str, object]]:
    return {Path(info.key).stem: json.loads(store.read(info.key).data) for info in store.list_objects("runs/weeks/retrains/")}


def test_each_week_is_trained_once_on_the_data_up_to_its_day(
    weeks: dict[str, str], cloud: LocalCloud, cloud_store: Store, cloud_context: PromotionContext
) -> None:
    result = retrain_sundays(weeks, "2026-01-12", "2026-01-26")
    assert result.returncode == 0, result.stdout + result.stderr
    done = receipts(cloud_store)
    assert list(done) == ["2026-01-18", "2026-01-25"]
    first, second = done.values()
    assert second["decision"] == "promoted"
    assert first["decision"] == "promoted" or "No older data" in str(first["reason"])  # Luigi may run the later week first
    current = read_champion(cloud_store, "weeks", cloud_context.trust.promoters)
    assert current and current.champion == done["2026-01-25"]["version"]
    manifest = json.loads(cloud_store.read(f"versions/weeks/{current.champion}/manifest.json").data)
    assert manifest["data"]["until"] == "2026-01-25"

    put(cloud, "2026-01-20-again", shops(days=28).query("day == '2026-01-20'").to_csv(index=False).encode())
    again = retrain_sundays(weeks, "2026-01-12", "2026-01-26")
    assert again.returncode == 0 and receipts(cloud_store) == done
    assert not [stage for stage in stages(again) if stage == "Train"]

    early = retrain_sundays(weeks, "2026-01-05", "2026-01-12")
    assert early.returncode == 0, early.stdout + early.stderr
    assert "No older data" in str(receipts(cloud_store)[CLOSED_SUNDAY]["reason"])
    unchanged = read_champion(cloud_store, "weeks", cloud_context.trust.promoters)
    assert unchanged and unchanged.champion == current.champion


def test_a_day_after_the_end_of_the_data_is_not_trained(weeks: dict[str, str], cloud_store: Store) -> None:
    result = luigi(weeks, "Retrain", "weeks", "--date", "2026-02-01", "--local-scheduler")
    assert result.returncode != 0
    assert "ends at 2026-01-28" in result.stdout + result.stderr
    assert "2026-02-01" not in receipts(cloud_store)
    future = luigi(weeks, "Retrain", "weeks", "--date", "2099-01-01", "--local-scheduler")
    assert future.returncode != 0 and "has not come" in future.stdout + future.stderr


def test_an_empty_folder_is_reported(cloud: LocalCloud, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "project.toml").write_text(PROJECT.replace("raw/weeks/", "raw/nothing/"))
    result = luigi({**cloud.environment, "PODIUM_PROJECTS": str(tmp_path)}, "Pipeline", "empty", "--local-scheduler")
    assert result.returncode != 0
    assert "there are no files in s3://podium/raw/nothing/" in result.stdout + result.stderr


STORY = PROJECT.replace("raw/weeks", "raw/story").replace(
    "[panel]", 'gates.min_score = -2\nretrain.schedule = "weekly"\n[panel]'
)
BAD_WEEK = ("2026-02-02", "2026-02-08")


@pytest.mark.long
def test_the_records_tell_the_story_of_some_weeks(cloud: LocalCloud, cloud_context: PromotionContext, tmp_path: Path) -> None:
    """A missed week is caught up, a bad week is stopped by a gate, and a champion is rolled back."""
    (tmp_path / "story").mkdir()
    (tmp_path / "story" / "project.toml").write_text(STORY)
    environment = {**cloud.environment, "PODIUM_PROJECTS": str(tmp_path)}
    frame = shops(count=2, days=56)

    def deliver(first: str, last: str, factor: float = 1.0) -> None:
        """Put the daily files of some days; with a factor, the even days are multiplied by it."""
        for day, rows in frame.query(f"'{first}' <= day <= '{last}'").groupby("day"):
            wrong = rows.assign(sold=rows["sold"] * (factor if int(str(day)[-2:]) % 2 else 1))
            key = f"raw/story/{day}.csv"
            cloud.client().put_object(Bucket="podium", Key=key, Body=wrong.to_csv(index=False).encode())

    def retrain(day: str) -> str:
        result = luigi(environment, "RetrainDue", "story", "--date", day, "--local-scheduler")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def records() -> dict[str, RetrainRecord]:
        store, trainers = cloud_context.store, cloud_context.trust.trainers
        return {day: read_retrain(store, "story", day, trainers) for day in retrain_dates(store, "story")}

    deliver("2026-01-01", "2026-01-18")
    retrain("2026-01-18")
    assert "nothing is due" in retrain("2026-01-20")
    assert list(records()) == ["2026-01-18"]
    deliver("2026-01-19", "2026-02-01")
    retrain("2026-02-01")  # and the missed 25th
    deliver(*BAD_WEEK, factor=50)
    retrain("2026-02-08")
    rolled_back = luigi(environment, "Rollback", "story", "--reason", "complaints", "--local-scheduler")
    assert rolled_back.returncode == 0, rolled_back.stdout
    told = records()
    assert {day: record.decision for day, record in told.items()} == {
        "2026-01-18": "promoted",
        "2026-01-25": "promoted",
        "2026-02-01": "promoted",
        "2026-02-08": "refused",
    }
    assert "Minimum score" in told["2026-02-08"].reason
    assert any("Wasserstein" in change for change in told["2026-02-08"].data_changes)
    assert all(record.trigger == "schedule" and record.candidates and record.gates for record in told.values())
    assert [record.number for record in told.values()] == [1, 2, 3, 4]
    history = entries_since(cloud_context.store, "story", cloud_context.trust.promoters)
    assert [entry.action for entry in history] == ["promote", "promote", "promote", "refuse", "rollback"]
    listed = subprocess.run([PODIUM, "retrains", "list", "story"], env=environment, capture_output=True, text=True, check=True)
    assert [line.split()[2] for line in listed.stdout.splitlines()] == [record.decision for record in told.values()]
    key = retrain_key("story", "2026-02-08")
    document = json.loads(cloud_context.store.read(key).data)
    cloud_context.store.delete(key)
    cloud_context.store.create(key, json.dumps({**document, "decision": "promoted"}).encode())
    with pytest.raises(Unsigned):
        records()
