"""The stages, each a few lines around one function of podium/."""

from __future__ import annotations

import io
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import luigi
import pandas as pd

from luigi_tasks.stage import Ingest, Snapshot, Stage
from luigi_tasks.target import desk, store
from podium import provenance
from podium.data.read import read_table
from podium.learn.clean import Clean as CleanRows
from podium.learn.clean import clean, from_parquet, to_parquet
from podium.learn.explore import explore, report_html
from podium.learn.families import families_of
from podium.learn.publish import Claim, candidate_files, manifest_of, predictions_digest, source
from podium.learn.rank import rank
from podium.learn.select import kept_places, select, verdicts_from_json, verdicts_to_json
from podium.learn.split import held_out_rows, training_rows
from podium.learn.train import Candidate, features, train
from podium.model.encode import Encoder
from podium.promotion import GateFailed, promote, utc_now
from podium.settings import StoreSettings
from podium.store.history import AliasMoved, read_champion
from podium.store.versions import LEADERBOARD_FILE, REPORT_FILE, publish, version_prefix

__all__ = ["Clean", "Explore", "Features", "Ingest", "Pipeline", "Promote", "Publish", "Rank", "Select", "Snapshot", "Train"]


class Clean(Stage):
    """Raw text to typed rows."""

    file = "clean.parquet"

    def needs(self) -> luigi.Task:
        return Snapshot(project=self.project, snapshot=self.snapshot)

    def make(self) -> bytes:
        table = read_table(self.input().read(), gzipped=str(self.config.data).endswith(".gz"))
        return to_parquet(clean(table, self.config))


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

    file = "features.pkl"

    def make(self) -> bytes:
        return pickle.dumps(features(self.training(), self.config))


class Select(CleanedStage):
    """A verdict on every feature."""

    file = "selection.json"

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean), "features": self.clone(Features)}

    def make(self) -> bytes:
        rows, encoder = self.training(), _encoder(self.input()["features"])
        most = self.config.features.most_features
        matrix, target = encoder.transform(rows.inputs), rows.target.to_numpy()
        return verdicts_to_json(select(matrix, target, encoder.names, rows.signature.target, most, self.config.seed))


class Train(CleanedStage):
    """One family, searched by cross-validation and fitted."""

    family: str = luigi.Parameter(description="a name of podium.learn.families.FAMILIES")
    file = "candidates/{family}.pkl"

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean), "features": self.clone(Features), "selection": self.clone(Select)}

    def make(self) -> bytes:
        kept = kept_places(verdicts_from_json(self.input()["selection"].read()))
        encoder = _encoder(self.input()["features"]).only(kept)
        return pickle.dumps(train(self.family, self.training(), encoder, self.config))


class RankedStage(CleanedStage):
    """A stage that reads every candidate."""

    def needs(self) -> dict[str, Any]:
        families = families_of(self.config.families, self.config.kind)
        return {"clean": self.clone(Clean), "candidates": [self.clone(Train, family=name) for name in families]}

    def candidates(self) -> list[Candidate]:
        return [pickle.loads(target.read()) for target in self.input()["candidates"]]


class Rank(RankedStage):
    """The leaderboard; the only look at the test rows."""

    file = LEADERBOARD_FILE

    def make(self) -> bytes:
        board = rank(self.candidates(), self.training(), held_out_rows(self.clean(), self.config), self.config)
        return board.to_csv(index=False).encode()


class Publish(RankedStage):
    """An immutable version: models, leaderboard, report, golden rows, and last the manifest."""

    file = "publish.json"

    def needs(self) -> dict[str, Any]:
        StoreSettings().signer()  # before hours of training, not after
        return {**super().needs(), "leaderboard": self.clone(Rank), "report": self.clone(Explore)}

    def make(self) -> bytes:
        claim, rows, candidates = self._claim(), self.clean(), self.candidates()
        training, test = self.training(), held_out_rows(rows, self.config)
        board, report = self.input()["leaderboard"].read(), self.input()["report"].read()
        files = {LEADERBOARD_FILE: board, REPORT_FILE: report, **candidate_files(candidates, training, test, self.config)}
        author, predictions = provenance.actor(StoreSettings().actor), predictions_digest(candidates, test)
        data = source(self.config, claim, len(rows.inputs))
        manifest = manifest_of(claim, self.config, training.signature, data, files, author, predictions)
        publish(store(), manifest, files, StoreSettings().signer())
        place = store().url(version_prefix(self.project, claim.version))
        return json.dumps({"version": claim.version, "parent": claim.parent, "place": place}, indent=1).encode()

    def _claim(self) -> Claim:
        """The version's name and parent, settled once, so that a resumed run publishes the same version."""
        target = self.target("claim.json")
        standing = read_champion(store(), self.project, StoreSettings().trust().promoters)
        parent = standing.champion if standing else None
        target.write(Claim.now(datetime.now(UTC), self.run_name, self.snapshot, parent).to_json())
        return Claim.from_json(target.read())


class Promote(Stage):
    """Make the version the champion, if it passes its gates and the champion is the one that it was made to follow."""

    file = "promote.json"

    def needs(self) -> luigi.Task:
        published: luigi.Task = self.clone(Publish)
        return published

    def make(self) -> bytes:
        made = json.loads(self.input().read())
        version, reason = made["version"], f"run {self.run_name}"
        outcome: dict[str, Any] = {"version": version, "promoted": True}
        try:
            entry = promote(desk(), self.project, version, reason, utc_now, expect=made["parent"])
            outcome["number"] = entry.sequence
        except (AliasMoved, GateFailed) as refusal:
            outcome |= {"promoted": False, "reason": str(refusal)}
        return json.dumps(outcome, indent=1).encode()


class Pipeline(Stage):
    """The whole graph; says at the end what came out and where it lies."""

    file = "summary.txt"

    def needs(self) -> dict[str, Any]:
        return {"promote": self.clone(Promote), "leaderboard": self.clone(Rank), "report": self.clone(Explore)}

    def make(self) -> bytes:
        outcome = json.loads(self.input()["promote"].read())
        board = pd.read_csv(io.BytesIO(self.input()["leaderboard"].read()))
        lines = [
            f"{self.project}: version {outcome['version']}",
            "is the champion" if outcome["promoted"] else f"was not promoted: {outcome['reason']}",
            board[["rank", "model", "eval_metric", "score_val", "score_test", "ci_low", "ci_high", "tied_with_best"]]
            .round(4)
            .to_string(index=False),
            f"files   {store().url(version_prefix(self.project, outcome['version']))}",
            f"report  {self.input()['report'].url}",
        ]
        return "\n".join(lines).encode()


def _encoder(target: Any) -> Encoder:
    encoder: Encoder = pickle.loads(target.read())
    return encoder
