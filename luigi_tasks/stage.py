"""What every stage of a run shares: its project, its snapshot, and where its one output lies."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import luigi

from luigi_tasks.target import StoreTarget, store
from podium.project import BadProject, Project, load_project
from podium.registry.provenance import run_name
from podium.settings import StoreSettings
from podium.storage import daily_ingest, datasets
from podium.training.daily_files import daily_rows, parse_fingerprint


class ProjectParameter(luigi.Parameter):
    """A project's name, checked on the command line before anything runs."""

    def parse(self, text: str) -> str:
        try:
            load_project(StoreSettings().projects, text)
        except BadProject as error:
            raise SystemExit(str(error)) from None
        return text


class Ingest(luigi.Task):
    """Take a snapshot of the source as it is now; the output says which."""

    project: str = ProjectParameter(description="folder name under projects/")

    @cached_property
    def config(self) -> Project:
        return load_project(StoreSettings().projects, self.project)

    @cached_property
    def url(self) -> str:
        url = self.config.data
        if url is None:
            raise BadProject(
                f"projects/{self.project}/project.toml names no `data` to learn from: it is for imported models only"
            )
        allowed = {StoreSettings().bucket, *StoreSettings().source_buckets}
        bucket = datasets.split_url(url)[0]
        if bucket not in allowed:
            raise BadProject(
                f"{url} lies in none of the configured buckets ({', '.join(sorted(allowed))}): see PODIUM_SOURCE_BUCKETS"
            )
        return url

    @cached_property
    def etag(self) -> str:
        """The state of the source, looked at once, so that one run means one state."""
        bucket, key = datasets.split_url(self.url)
        if daily_ingest.is_folder(self.url):
            return self.folder.state(self.parser)
        return store(bucket).etag(key)

    @cached_property
    def folder(self) -> daily_ingest.SourceFolder:
        """The daily files, if the source is a folder."""
        return daily_ingest.list_source_files(store(datasets.split_url(self.url)[0]), self.url)

    @cached_property
    def parser(self) -> daily_ingest.Parser:
        return daily_ingest.Parser(functools.partial(daily_rows, project=self.config), parse_fingerprint(self.config))

    def output(self) -> StoreTarget:
        return StoreTarget(datasets.receipt_key(self.project, self.url, self.etag))

    def run(self) -> None:
        if daily_ingest.is_folder(self.url):
            snapshot = daily_ingest.ingest_new_files(self.folder, self.parser, store(), self.project)
        else:
            source = store(datasets.split_url(self.url)[0])
            snapshot = datasets.take_snapshot(source, self.url, self.etag, store(), self.project)
        self.output().write(snapshot.to_json())


class SnapshotInput(luigi.ExternalTask):
    """The bytes that a run starts from."""

    project: str = luigi.Parameter()
    snapshot: str = luigi.Parameter()

    def output(self) -> StoreTarget:
        return StoreTarget(datasets.snapshot_key(self.project, self.snapshot))


class Stage(luigi.Task):
    """A pure function of a snapshot and a project; without a snapshot, of the source as it is now.

    A stage names its `file`, what it `needs`, and `make`s the bytes of its output.
    """

    project: str = ProjectParameter(description="folder name under projects/")
    snapshot: str = luigi.Parameter(default="", description="sha256 of an earlier snapshot; empty: the source as it is now")
    until: str = luigi.Parameter(default="", description="of a panel: the last day that is learned from; empty: all there are")

    file: str

    def needs(self) -> Any:
        raise NotImplementedError

    def make(self) -> bytes:
        raise NotImplementedError

    @cached_property
    def config(self) -> Project:
        return load_project(StoreSettings().projects, self.project)

    @cached_property
    def run_name(self) -> str:
        return run_name(self.config, self.snapshot, self.until)

    def requires(self) -> Any:
        return self.needs() if self.snapshot else Ingest(project=self.project)

    def output(self) -> StoreTarget | list[StoreTarget]:
        return self.own if self.snapshot else []

    @property
    def own(self) -> StoreTarget:
        """Where this stage's output lies; its file may name parameters."""
        return self.target(self.file.format_map(self.param_kwargs))

    def target(self, file: str) -> StoreTarget:
        return StoreTarget(f"runs/{self.project}/{self.run_name}/{file}")

    def complete(self) -> bool:
        if self.snapshot:
            return bool(super().complete())
        ingested = Ingest(project=self.project)
        return ingested.complete() and self.of_latest().complete()

    def of_latest(self) -> Stage:
        """This stage for the snapshot that the source became."""
        receipt = datasets.DatasetSnapshot.from_json(Ingest(project=self.project).output().read())
        stage: Stage = self.clone(snapshot=receipt.sha256)
        return stage

    def run(self) -> Iterator[Stage]:
        if not self.snapshot:
            yield self.of_latest()
        else:
            self.own.write(self.make())
