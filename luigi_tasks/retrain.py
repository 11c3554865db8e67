"""Train on the data as of a day and write a signed record, so that a range of weeks can be run and rerun."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import cast, get_args

import luigi
from luigi.tools.range import RangeDailyBase

from luigi_tasks.batch import DayParameter, utc_today
from luigi_tasks.stage import Ingest, ProjectParameter, Stage
from luigi_tasks.target import StoreTarget, store
from luigi_tasks.tasks import Pipeline, Promote, Publish
from podium.monitoring.version_changes import configuration_changes, data_changes
from podium.project import load_project
from podium.registry import provenance
from podium.registry.audit_entry import parse_entry
from podium.registry.audit_log import entry_key
from podium.registry.retrain_record import RetrainRecord, Trigger, read_retrain, retrain_dates, retrain_key
from podium.registry.versions import fetch_from, read_manifest
from podium.schema.columns import EPOCH
from podium.settings import StoreSettings
from podium.storage import datasets
from podium.storage.daily_ingest import IngestState, is_folder, read_daily_rows
from podium.storage.datasets import snapshot_as_of
from podium.storage.object_store import StoreError
from podium.storage.reports import read_report, reported_days
from podium.training.daily_files import day_number, row_days

FIRST_DAYS = 366
"""How far back the first due day of a schedule is looked for."""


class Retrain(luigi.Task):
    """Train on the data as of a day, and promote the version if it passes its gates.

    For a panel with daily files, these are the rows up to the day; for a table, the last snapshot that was taken up to its end.
    The target is a signed record, so later data does not rerun a finished day. Raises StoreError if there is no such data.
    """

    project: str = ProjectParameter(description="name of the project")
    date = luigi.DateParameter(description="last day of the data")
    trigger: str = luigi.ChoiceParameter(
        default="demand", choices=get_args(Trigger), significant=False, description="why it is retrained, for the record"
    )

    def output(self) -> StoreTarget:
        return StoreTarget(retrain_key(self.project, str(self.date)))

    def run(self) -> Iterator[luigi.Task]:
        if self.date > utc_today():
            raise StoreError(f"{self.date} has not come; a day is trained once, so its data would be left out")
        config = load_project(StoreSettings().projects, self.project)
        until = str(self.date) if config.panel and is_folder(str(config.data)) else ""
        if until or self.date >= utc_today():
            yield Ingest(project=self.project)
            pipeline: Stage = self.clone(Pipeline, until=until).of_latest()
        else:
            pipeline = self.clone(Pipeline, snapshot=self._snapshot(str(config.data)))
        if until:
            self._check_reaches(pipeline)
        yield pipeline
        settings = StoreSettings()
        record = self._record(pipeline, settings)
        self.output().write(record.signed(settings.signer()))

    def _snapshot(self, url: str) -> str:
        """Return the digest of the table as of the day."""
        end = datetime.combine(self.date + timedelta(days=1), time(), UTC)
        snapshot = snapshot_as_of(store(), self.project, url, end)
        if snapshot is None:
            raise StoreError(f"no data of {self.project} was collected up to {self.date}: run Ingest every day")
        return snapshot.sha256

    def _check_reaches(self, pipeline: Stage) -> None:
        """Require data up to this day or beyond; the day itself may have no rows."""
        config = pipeline.config
        assert config.panel
        keys = (config.panel.entity, config.panel.time)
        data = store().read(datasets.snapshot_key(self.project, pipeline.snapshot)).data
        last = row_days(read_daily_rows(store(), IngestState.from_json(data), None, 1, keys), config).max()
        if int(last) < day_number(str(self.date), config):
            end = date.fromordinal(int(last) + EPOCH)
            raise StoreError(f"the data of {self.project} ends at {end}; {self.date} cannot be trained yet")

    def _record(self, pipeline: Stage, settings: StoreSettings) -> RetrainRecord:
        """Return what the run did, compared with the retraining before."""
        outcome, version = (pipeline.clone(task).output_target.document() for task in (Promote, Publish))
        trust, fetch = settings.trust(), fetch_from(store())
        manifest, _ = read_manifest(store(), self.project, version["version"], trust.trainers.past)
        entry = parse_entry(store().read(entry_key(self.project, outcome["number"])).data, self.project, trust.promoters.past)
        earlier = [day for day in retrain_dates(store(), self.project) if day < str(self.date)]
        before = read_retrain(store(), self.project, earlier[-1], trust.trainers.past) if earlier else None
        facts = {"decision": "promoted" if outcome["promoted"] else "refused", "reason": outcome.get("reason", "")}
        changes: dict[str, tuple[str, ...]] = {"data_changes": (), "configuration_changes": ()}
        if before and before.run == pipeline.run_name:
            facts = {"decision": "unchanged", "reason": f"the data and the configuration are those of {before.date}"}
        elif before:
            old, _ = read_manifest(store(), self.project, before.version, trust.trainers.past)
            changes = {
                "data_changes": data_changes(old, manifest, fetch),
                "configuration_changes": configuration_changes(old, manifest),
            }
        return RetrainRecord(
            project=self.project,
            date=str(self.date),
            trigger=cast(Trigger, self.trigger),
            by=provenance.actor(settings.actor),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            snapshot=pipeline.snapshot,
            run=pipeline.run_name,
            version=manifest.version,
            created=manifest.created,
            number=outcome["number"],
            git=manifest.git,
            candidates=tuple(manifest.leaderboard),
            gates=entry.evidence,
            **facts,
            **changes,
        )


class RetrainDue(luigi.Task):
    """Retrain for each day that is due, in order: of the project's schedule, after an alarm, and after enough labels.

    Run it every day. Without an earlier retraining, only the last day of the schedule is due.
    """

    project: str = ProjectParameter(description="name of the project")
    date = DayParameter(description="today")

    def complete(self) -> bool:
        return not self._due()

    def run(self) -> Iterator[luigi.Task]:
        for day, trigger in self._due():  # one after another: each is compared with the one before
            yield self.clone(Retrain, date=day, trigger=trigger)

    def _due(self) -> list[tuple[date, Trigger]]:
        options = load_project(StoreSettings().projects, self.project).retrain
        done = retrain_dates(store(), self.project)
        last = date.fromisoformat(done[-1]) if done else self.date - timedelta(days=FIRST_DAYS)
        days = options.days(last, self.date)
        due: list[tuple[date, Trigger]] = [(day, "schedule") for day in (days if done else days[-1:])]
        if self.date > last and self.date not in days:
            reports = [
                read_report(store(), self.project, day) for day in reported_days(store(), self.project) if day > str(last)
            ]
            labels = sum(report["labels"]["received"] for report in reports)
            if options.on_alarm and any(report["alarms"] for report in reports):
                due.append((self.date, "alarm"))
            elif options.on_labels and labels >= options.on_labels:
                due.append((self.date, "labels"))
        return due


class RangeWeekly(RangeDailyBase):
    """Run a daily task once a week: `RangeWeekly --of Retrain --of-params '{"project": "P"}' --start …`."""

    weekday: int = luigi.NumericalParameter(
        default=7, var_type=int, min_value=1, max_value=8, description="day of the week: 1 is Monday, 7 is Sunday"
    )
    param_name = luigi.Parameter(  # type: ignore[assignment]
        default="date", positional=False, description="name of the task's date parameter"
    )
    days_back: int = luigi.IntParameter(default=3660, description="maximum age of the start of the range, in days")

    def finite_datetimes(self, finite_start: datetime, finite_stop: datetime) -> list[datetime]:
        days: list[datetime] = super().finite_datetimes(finite_start, finite_stop)
        return [day for day in days if day.isoweekday() == self.weekday]
