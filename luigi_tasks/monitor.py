"""Report each day of a project: volume, drift, errors and alarms."""

from __future__ import annotations

import json
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import luigi

from luigi_tasks.batch import DayParameter, raise_alarm, utc_today
from luigi_tasks.target import StoreTarget, store
from podium.monitoring.daily_report import Reporter
from podium.prediction_log.verification import loader
from podium.registry.loading import fetcher
from podium.settings import StoreSettings
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import StoreError
from podium.storage.reports import days_to_report, latest_report, report_key


def utc_yesterday() -> date:
    return utc_today() - timedelta(days=1)


class Monitor(luigi.Task):
    """Report a day, after the days before it that have no report. Alarms are sent before a report is written."""

    project: str = luigi.Parameter(description="name of the project")
    date = DayParameter(today=utc_yesterday, description="a day that has ended (UTC); yesterday by default")

    def output(self) -> StoreTarget:
        return StoreTarget(report_key(self.project, str(self.date)))

    def run(self) -> None:
        """Raises StoreError, AlarmNotSent."""
        if self.date >= utc_today():
            raise StoreError(f"{self.date} has not ended; `podium monitor {self.project}` shows it so far")
        settings, bucket = StoreSettings(), store()
        report = latest_report(bucket, self.project)
        with tempfile.TemporaryDirectory() as folder:
            fetch = fetcher(bucket, ModelCache(Path(folder)))
            reporter = Reporter(bucket, loader(fetch, settings.trust().trainers.past), fetch)
            for day in days_to_report(bucket, self.project, self.date):
                report = reporter.report(self.project, str(day), report)
                self._finish(report)

    def _finish(self, report: dict[str, Any]) -> None:
        for alarm in report["alarms"]:
            raise_alarm({"project": self.project, "day": report["day"], **alarm})
        StoreTarget(report_key(self.project, report["day"])).write(json.dumps(report, indent=1).encode())
