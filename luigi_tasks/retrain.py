"""Training as of a day, once, with a receipt, so that a range of weeks can be asked for and repeated."""

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
    """Learn from what was known of a panel up to a day, and promote it if it passes its gates.

    The receipt is the target: what comes in later does not repeat a week that is done. Raises StoreError while the data end
    before the day.
    """

    project: str = ProjectParameter(description="a panel, collected from daily files")
    date = luigi.DateParameter(description="the last day that is learned from")

    def output(self) -> StoreTarget:
        return StoreTarget(f"runs/{self.project}/retrains/{self.date}.json")

    def run(self) -> Iterator[luigi.Task]:
        yield Ingest(project=self.project)
        pipeline: Stage = self.clone(Pipeline, until=str(self.date)).of_latest()
        self._check_reaches(pipeline)
        yield pipeline
        outcome, published = (pipeline.clone(task).own.document() for task in (Promote, Publish))
        facts = {"until": str(self.date), "snapshot": pipeline.snapshot, "run": pipeline.run_name}
        self.output().write(json.dumps({**facts, **published, **outcome}, indent=1).encode())

    def _check_reaches(self, pipeline: Stage) -> None:
        """What was collected must go to this day or beyond it; on the day itself there need not be a row."""
        config = pipeline.config
        if config.panel is None or not is_folder(str(config.data)):
            raise BadProject(f"{self.project} is no panel that is collected from daily files")
        keys = (config.panel.entity, config.panel.time)
        data = store().read(datasets.snapshot_key(self.project, pipeline.snapshot)).data
        last = row_days(read_daily_rows(store(), IngestState.from_json(data), None, 1, keys), config).max()
        if last < day_number(str(self.date), config):
            end = date.fromordinal(int(last) + EPOCH)
            raise StoreError(f"the data of {self.project} end at {end}: {self.date} cannot be learned yet")


class RangeWeekly(RangeDailyBase):
    """The days of a range that are one of the week: `RangeWeekly --of Retrain --of-params '{"project": "P"}' --start …`."""

    weekday: int = luigi.NumericalParameter(
        default=7, var_type=int, min_value=1, max_value=8, description="1 is Monday, 7 is Sunday"
    )
    param_name = luigi.Parameter(  # type: ignore[assignment]
        default="date", positional=False, description="of the task, which the day is given to"
    )
    days_back: int = luigi.IntParameter(default=3660, description="a range may begin so many days ago")

    def finite_datetimes(self, finite_start: datetime, finite_stop: datetime) -> list[datetime]:
        days: list[datetime] = super().finite_datetimes(finite_start, finite_stop)
        return [day for day in days if day.isoweekday() == self.weekday]
