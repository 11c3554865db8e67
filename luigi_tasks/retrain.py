"""Train on data up to a given day and write a receipt, so that a range of weeks can be run and rerun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime

import luigi
from luigi.tools.range import RangeDailyBase

from luigi_tasks.stage import Ingest, ProjectParameter, Stage
from luigi_tasks.target import StoreTarget, store
from luigi_tasks.tasks import Pipeline, Promote, Publish
from podium.project import BadProject
from podium.schema.columns import EPOCH
from podium.storage import datasets
from podium.storage.daily_ingest import IngestState, is_folder, read_daily_rows
from podium.storage.object_store import StoreError
from podium.training.daily_files import day_number, row_days


class Retrain(luigi.Task):
    """Train on the days of a panel up to a date, and promote the version if it passes its gates.

    The target is the receipt, so later data does not rerun a finished week. Raises StoreError if the data ends before the date.
    """

    project: str = ProjectParameter(description="name of a panel project with daily files")
    date = luigi.DateParameter(description="last day to train on")

    def output(self) -> StoreTarget:
        return StoreTarget(f"runs/{self.project}/retrains/{self.date}.json")

    def run(self) -> Iterator[luigi.Task]:
        yield Ingest(project=self.project)
        pipeline: Stage = self.clone(Pipeline, until=str(self.date)).of_latest()
        self._check_reaches(pipeline)
        yield pipeline
        outcome, published = (pipeline.clone(task).output_target.document() for task in (Promote, Publish))
        facts = {"until": str(self.date), "snapshot": pipeline.snapshot, "run": pipeline.run_name}
        self.output().write(json.dumps({**facts, **published, **outcome}, indent=1).encode())

    def _check_reaches(self, pipeline: Stage) -> None:
        """Require data up to this day or beyond; the day itself may have no rows."""
        config = pipeline.config
        if config.panel is None or not is_folder(str(config.data)):
            raise BadProject(
                f"{self.project} cannot be retrained by date: it needs a [panel] section and a folder of daily files as `data`"
            )
        keys = (config.panel.entity, config.panel.time)
        data = store().read(datasets.snapshot_key(self.project, pipeline.snapshot)).data
        last = row_days(read_daily_rows(store(), IngestState.from_json(data), None, 1, keys), config).max()
        if int(last) < day_number(str(self.date), config):
            end = date.fromordinal(int(last) + EPOCH)
            raise StoreError(f"the data of {self.project} ends at {end}; {self.date} cannot be trained yet")


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
