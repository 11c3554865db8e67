"""The stages, each a few lines around one function of podium/."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import luigi
import pandas as pd

from luigi_tasks.stage import Snapshot, Stage
from luigi_tasks.target import desk, store
from podium import provenance
from podium.data.read import read_table
from podium.learn.clean import Clean as CleanRows
from podium.learn.clean import clean, from_parquet, to_parquet
from podium.learn.compare import Rival, compare, rival_of
from podium.learn.days import day_number, month_of, options_of, time_column
from podium.learn.explore import explore, report_html
from podium.learn.families import families_of
from podium.learn.intermediate import candidate_from_arrow, candidate_to_arrow, encoder_from_json, encoder_to_json
from podium.learn.publish import Claim, candidate_files, manifest_of, predictions_digest, source
from podium.learn.rank import rank
from podium.learn.select import kept_places, select, verdicts_from_json, verdicts_to_json
from podium.learn.split import held_out_rows, split_of, training_rows
from podium.learn.train import Candidate, features, train
from podium.project import BadProject
from podium.promotion import GateFailed, promote_in_turn, utc_now
from podium.prover import Prover
from podium.publication import publish_checked
from podium.settings import StoreSettings
from podium.store.collected import HISTORY, is_folder, read_history, refusals
from podium.store.history import read_champion
from podium.store.s3 import StoreError
from podium.store.versions import (
    COMPARISON_FILE,
    LEADERBOARD_FILE,
    REPORT_FILE,
    digest,
    read_manifest,
    version_prefix,
)


class Clean(Stage):
    """Raw text to typed rows."""

    file = "clean.parquet"

    def needs(self) -> luigi.Task:
        return Snapshot(project=self.project, snapshot=self.snapshot)

    def make(self) -> bytes:
        if self.until and self.config.kind != "panel":
            raise BadProject("--until asks for the days of a panel, and this project is none")
        until = day_number(self.until, self.config) if self.until else None
        data, url = self.input().read(), str(self.config.data)
        if not is_folder(url):
            return to_parquet(clean(read_table(data, gzipped=url.endswith(".gz")), self.config, until))
        history = HISTORY.validate_json(data)
        asked, time = options_of(self.config), time_column(self.config)
        last = None if until is None else month_of(until, time)
        table = read_history(store(), history, last, asked.most_rows, (asked.entity, asked.time))
        rows = clean(table, self.config, until)
        return to_parquet(replace(rows, notes=(*rows.notes, *refusals(history))))


class CleanedStage(Stage):
    """A stage that reads the clean rows."""

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean)}

    def clean(self) -> CleanRows:
        return from_parquet(self.input()["clean"].read())

    def training(self) -> CleanRows:
        return training_rows(self.clean(), self.config)


class Explore(CleanedStage):
    """Figures and facts of the training rows, one self-contained page."""

    file = "report.html"

    def make(self) -> bytes:
        title = self.config.title or self.project
        return report_html(self.project, title, explore(self.training()), StoreSettings().templates).encode()


class Features(CleanedStage):
    """The encoder, fitted on the training rows."""

    file = "features.json"

    def make(self) -> bytes:
        return encoder_to_json(features(self.training(), self.config))


class Select(CleanedStage):
    """A verdict on every feature."""

    file = "selection.json"

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean), "features": self.clone(Features)}

    def make(self) -> bytes:
        rows, encoder = self.training(), encoder_from_json(self.input()["features"].read())
        most = self.config.features.most_features
        matrix, target = encoder.transform(rows.inputs), rows.target.to_numpy()
        return verdicts_to_json(select(matrix, target, encoder.names, rows.signature.target, most, self.config.seed))


class Train(CleanedStage):
    """One family, searched by cross-validation and fitted."""

    family: str = luigi.Parameter(description="a name of podium.learn.families.FAMILIES")
    file = "candidates/{family}.arrow"

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean), "features": self.clone(Features), "selection": self.clone(Select)}

    def make(self) -> bytes:
        kept = kept_places(verdicts_from_json(self.input()["selection"].read()))
        encoder = encoder_from_json(self.input()["features"].read()).only(kept)
        return candidate_to_arrow(train(self.family, self.training(), encoder, self.config))


class RankedStage(CleanedStage):
    """A stage that reads every candidate."""

    def needs(self) -> dict[str, Any]:
        families = families_of(self.config.families, self.config.kind)
        return {"clean": self.clone(Clean), "candidates": [self.clone(Train, family=name) for name in families]}

    def candidates(self) -> list[Candidate]:
        return [candidate_from_arrow(target.read()) for target in self.input()["candidates"]]

    def claim(self) -> Claim:
        """The version's name and parent, settled once, so that a resumed run publishes the same version."""
        target = self.target("claim.json")
        standing = read_champion(store(), self.project, StoreSettings().trust().promoters)
        parent = standing.champion if standing else None
        target.write(Claim.now(datetime.now(UTC), self.run_name, self.snapshot, parent).to_json())
        return Claim.from_json(target.read()).checked(self.run_name, self.snapshot)


class Rank(RankedStage):
    """The leaderboard; the only look at the test rows."""

    file = LEADERBOARD_FILE

    def make(self) -> bytes:
        board = rank(self.candidates(), self.training(), held_out_rows(self.clean(), self.config), self.config)
        return board.to_csv(index=False).encode()


class Compare(RankedStage):
    """The candidates beside the champion that they would follow."""

    file = COMPARISON_FILE

    def make(self) -> bytes:
        test = held_out_rows(self.clean(), self.config)
        return compare(self.candidates(), self.champion(), test, self.config).to_csv(index=False).encode()

    def champion(self) -> Rival | None:
        """None when there is none, or none that can be loaded any more."""
        own, parent = desk(signing=False), self.claim().parent
        if parent is None:
            return None
        try:
            _, data = read_manifest(own.store, self.project, parent, own.trust.trainers)
            loaded = own.prover.load(self.project, parent, digest(data), own.fetch, own.trust.trainers)
        except StoreError:
            return None
        finally:
            own.prover.close()
        return rival_of(loaded)


class Publish(RankedStage):
    """An immutable version: models, leaderboard, report, golden rows, and last the manifest."""

    file = "publish.json"

    def needs(self) -> dict[str, Any]:
        StoreSettings().signer()  # before hours of training, not after
        return {
            **super().needs(),
            "leaderboard": self.clone(Rank),
            "report": self.clone(Explore),
            "comparison": self.clone(Compare),
        }

    def make(self) -> bytes:
        claim, rows, candidates = self.claim(), self.clean(), self.candidates()
        training, test = self.training(), held_out_rows(rows, self.config)
        made = {LEADERBOARD_FILE: "leaderboard", REPORT_FILE: "report", COMPARISON_FILE: "comparison"}
        files = {file: self.input()[name].read() for file, name in made.items()}
        files |= candidate_files(candidates, training, test, self.config)
        author, predictions = provenance.actor(StoreSettings().actor), predictions_digest(candidates, test)
        data = source(self.config, claim, rows)
        split = split_of(rows, self.config)
        manifest = manifest_of(claim, self.config, training.signature, data, files, author, predictions, split)
        prover = Prover()
        try:
            publish_checked(store(), manifest, files, StoreSettings().signer(), prover)
        finally:
            prover.close()
        place = store().url(version_prefix(self.project, claim.version))
        return json.dumps({"version": claim.version, "parent": claim.parent, "place": place}, indent=1).encode()


class Promote(Stage):
    """Make the version the champion if it passes its gates. Raises AliasMoved when other promotions came first every time."""

    file = "promote.json"

    def needs(self) -> luigi.Task:
        published: luigi.Task = self.clone(Publish)
        return published

    def make(self) -> bytes:
        version, reason = str(self.input().document().get("version")), f"run {self.run_name}"
        outcome: dict[str, Any] = {"version": version, "promoted": True}
        try:
            outcome["number"] = promote_in_turn(desk(signing=True), self.project, version, reason, utc_now).sequence
        except GateFailed as refusal:
            outcome |= {"promoted": False, "reason": str(refusal)}
        return json.dumps(outcome, indent=1).encode()


class Pipeline(Stage):
    """The whole graph; says at the end what came out and where it lies."""

    file = "summary.txt"

    def needs(self) -> dict[str, Any]:
        made = {"leaderboard": self.clone(Rank), "comparison": self.clone(Compare), "report": self.clone(Explore)}
        return {"promote": self.clone(Promote), **made}

    def make(self) -> bytes:
        outcome = self.input()["promote"].document()
        board = pd.read_csv(io.BytesIO(self.input()["leaderboard"].read()))
        lines = [
            f"{self.project}: version {outcome['version']}",
            "is the champion" if outcome["promoted"] else f"was not promoted: {outcome['reason']}",
            board[["rank", "model", "eval_metric", "score_val", "score_test", "ci_low", "ci_high", "tied_with_best"]]
            .round(4)
            .to_string(index=False),
            *_beside(self.input()["comparison"].read()),
            f"files   {store().url(version_prefix(self.project, outcome['version']))}",
            f"report  {self.input()['report'].url}",
        ]
        return "\n".join(lines).encode()


def _beside(comparison: bytes) -> list[str]:
    """The candidates beside the champion, when there was one to compare with."""
    if b"(serves)" not in comparison:
        return []
    table = pd.read_csv(io.BytesIO(comparison))
    return [f"beside the champion, on {table['rows'].iloc[0]} test rows", table.round(4).to_string(index=False)]
