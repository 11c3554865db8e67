"""Base classes for the stages of a run: each has one project, one data snapshot and one output."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import luigi

from luigi_tasks.target import StoreTarget, store
from podium.project import BUDGET, BUDGET_RULE, BadProject, Project, load_project
from podium.registry.provenance import run_name
from podium.settings import StoreSettings
from podium.storage import daily_ingest, datasets
from podium.storage.table_parts import TableParts, list_parts
from podium.training.daily_files import daily_rows, parse_fingerprint


class ProjectParameter(luigi.Parameter):
    """The name of a project, validated before any task runs."""

    def parse(self, text: str) -> str:
        try:
            load_project(StoreSettings().projects, text)
        except BadProject as error:
            raise SystemExit(str(error)) from None
        return text


class BudgetParameter(luigi.Parameter):
    """A time for training, validated before any task runs."""

    def parse(self, text: str) -> str:
        if text and not re.fullmatch(BUDGET, text):
            raise SystemExit(f"--budget: {BUDGET_RULE}")
        return text


class Ingest(luigi.Task):
    """Take a snapshot of the data source; the output identifies the snapshot."""

    project: str = ProjectParameter(description="name of a folder under projects/")

    @cached_property
    def config(self) -> Project:
        return load_project(StoreSettings().projects, self.project)

    @cached_property
    def url(self) -> str:
        url = self.config.data
        if url is None:
            raise BadProject(
                f"{self.project} has no training data: set `data` in projects/{self.project}/project.toml, or import a model "
                "with `podium models import`"
            )
        allowed = {StoreSettings().bucket, *StoreSettings().source_buckets}
        if datasets.split_url(url)[0] not in allowed:
            buckets = ", ".join(sorted(allowed))
            raise BadProject(f"{url} is not in an allowed bucket ({buckets}); add its bucket to PODIUM_SOURCE_BUCKETS")
        return url

    @cached_property
    def etag(self) -> str:
        """The state of the source, read once per task, so that a run never mixes two states."""
        bucket, key = datasets.split_url(self.url)
        if not daily_ingest.is_folder(self.url):
            return store(bucket).etag(key)
        return self.folder.state(self.parser) if self.config.panel else self.parts.state

    @cached_property
    def folder(self) -> daily_ingest.SourceFolder:
        """The daily files, if the source is a folder."""
        return daily_ingest.list_source_files(store(datasets.split_url(self.url)[0]), self.url)

    @cached_property
    def parts(self) -> TableParts:
        """The files of a table, if the source is a folder."""
        return list_parts(store(datasets.split_url(self.url)[0]), self.url)

    @cached_property
    def parser(self) -> daily_ingest.Parser:
        return daily_ingest.Parser(functools.partial(daily_rows, project=self.config), parse_fingerprint(self.config))

    def output(self) -> StoreTarget:
        return StoreTarget(datasets.receipt_key(self.project, self.url, self.etag))

    def run(self) -> None:
        if daily_ingest.is_folder(self.url) and self.config.panel:
            snapshot = daily_ingest.ingest_new_files(self.folder, self.parser, store(), self.project)
        elif daily_ingest.is_folder(self.url):
            snapshot = self.parts.snapshot(store(), self.project)
        else:
            source = store(datasets.split_url(self.url)[0])
            snapshot = datasets.take_snapshot(source, self.url, self.etag, store(), self.project)
        self.output().write(snapshot.to_json())


class SnapshotInput(luigi.ExternalTask):
    """The bytes of a data snapshot."""

    project: str = luigi.Parameter()
    snapshot: str = luigi.Parameter()

    def output(self) -> StoreTarget:
        return StoreTarget(datasets.snapshot_key(self.project, self.snapshot))


class Stage(luigi.Task):
    """A pure function of a data snapshot and a project.

    A subclass names its `file`, lists its `inputs` and `build`s the bytes of its output. Without a snapshot, a stage delegates
    to the stage for the current state of the source.
    """

    project: str = ProjectParameter(description="name of a folder under projects/")
    snapshot: str = luigi.Parameter(default="", description="sha256 of a data snapshot; the current data when empty")
    until: str = luigi.Parameter(default="", description="panels only: last day to train on; all days when empty")
    budget: str = BudgetParameter(default="", description="time for training, such as 30s; that of the project when empty")

    file: str

    def inputs(self) -> Any:
        """Return the upstream tasks."""
        raise NotImplementedError

    def build(self) -> bytes:
        """Return the content of the output."""
        raise NotImplementedError

    @cached_property
    def config(self) -> Project:
        project = load_project(StoreSettings().projects, self.project)
        return project.with_budget(self.budget) if self.budget else project

    @cached_property
    def run_name(self) -> str:
        return run_name(self.config, self.snapshot, self.until)

    def requires(self) -> Any:
        return self.inputs() if self.snapshot else Ingest(project=self.project)

    def output(self) -> StoreTarget | list[StoreTarget]:
        return self.output_target if self.snapshot else []

    @property
    def output_target(self) -> StoreTarget:
        """The target of this stage; placeholders in `file` are filled with its parameters."""
        return self.target(self.file.format_map(self.param_kwargs))

    def target(self, file: str) -> StoreTarget:
        """Return the target for a file of this run."""
        return StoreTarget(f"runs/{self.project}/{self.run_name}/{file}")

    def complete(self) -> bool:
        if self.snapshot:
            return bool(super().complete())
        ingested = Ingest(project=self.project)
        return ingested.complete() and self.of_latest().complete()

    def of_latest(self) -> Stage:
        """Return this stage for the latest snapshot of the source."""
        receipt = datasets.DatasetSnapshot.from_json(Ingest(project=self.project).output().read())
        stage: Stage = self.clone(snapshot=receipt.sha256)
        return stage

    def run(self) -> Iterator[Stage]:
        if not self.snapshot:
            yield self.of_latest()
        else:
            self.output_target.write(self.build())
