"""The stages, each a few lines around one function of podium/."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import luigi
import pandas as pd

from luigi_tasks.stage import SnapshotInput, Stage
from luigi_tasks.target import promotion_context, store
from podium.project import BadProject
from podium.registry import provenance
from podium.registry.audit_log import read_champion
from podium.registry.comparison import CURRENT_CHAMPION, Incumbent, compare, incumbent_of
from podium.registry.promotion import GateFailed, promote_with_retries, utc_now
from podium.registry.publication import publish_checked
from podium.registry.validation import Validator
from podium.registry.versions import COMPARISON_FILE, LEADERBOARD_FILE, REPORT_FILE, read_manifest, version_prefix
from podium.settings import StoreSettings
from podium.storage.daily_ingest import IngestState, is_folder, read_daily_rows, unreadable_files
from podium.storage.object_store import StoreError, digest
from podium.tables.labeled_rows import LabeledRows, labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.tables.readers import read_table
from podium.training.candidates import Candidate, fit_features, train
from podium.training.daily_files import day_number, month_of, panel_options, time_column
from podium.training.data_report import build_data_report, report_html
from podium.training.families import select_families
from podium.training.feature_selection import decisions_from_json, decisions_to_json, kept_indices, select_features
from podium.training.preparation import prepare
from podium.training.ranking import rank
from podium.training.run_outputs import candidate_from_arrow, candidate_to_arrow, encoder_from_json, encoder_to_json
from podium.training.splits import held_out_rows, split_boundary, training_rows
from podium.training.version_files import VersionReservation, build_manifest, candidate_files, data_source, predictions_digest


class Clean(Stage):
    """Raw text to typed rows."""

    file = "clean.parquet"

    def needs(self) -> luigi.Task:
        return SnapshotInput(project=self.project, snapshot=self.snapshot)

    def make(self) -> bytes:
        if self.until and not self.config.panel:
            raise BadProject("--until asks for the days of a panel, and this project is none")
        until = day_number(self.until, self.config) if self.until else None
        data, url = self.input().read(), str(self.config.data)
        if not is_folder(url):
            return labeled_rows_to_parquet(prepare(read_table(data, gzipped=url.endswith(".gz")), self.config, until))
        history = IngestState.from_json(data)
        asked, time = panel_options(self.config), time_column(self.config)
        last = None if until is None else month_of(until, time)
        table = read_daily_rows(store(), history, last, asked.max_rows, (asked.entity, asked.time))
        rows = prepare(table, self.config, until)
        return labeled_rows_to_parquet(replace(rows, notes=(*rows.notes, *unreadable_files(history))))


class CleanedStage(Stage):
    """A stage that reads the clean rows."""

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean)}

    def rows(self) -> LabeledRows:
        return labeled_rows_from_parquet(self.input()["clean"].read())

    def training(self) -> LabeledRows:
        return training_rows(self.rows(), self.config)


class Explore(CleanedStage):
    """Figures and facts of the training rows, one self-contained page."""

    file = "report.html"

    def make(self) -> bytes:
        title = self.config.title or self.project
        return report_html(self.project, title, build_data_report(self.training()), StoreSettings().templates).encode()


class Features(CleanedStage):
    """The encoder, fitted on the training rows."""

    file = "features.json"

    def make(self) -> bytes:
        return encoder_to_json(fit_features(self.training(), self.config))


class Select(CleanedStage):
    """A verdict on every feature."""

    file = "selection.json"

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean), "features": self.clone(Features)}

    def make(self) -> bytes:
        rows, encoder = self.training(), encoder_from_json(self.input()["features"].read())
        most = self.config.features.max_features
        matrix, target = encoder.transform(rows.inputs), rows.target.to_numpy()
        return decisions_to_json(select_features(matrix, target, encoder.names, rows.signature.target, most, self.config.seed))


class Train(CleanedStage):
    """One family, searched by cross-validation and fitted."""

    family: str = luigi.Parameter(description="a name of podium.training.families.FAMILIES")
    file = "candidates/{family}.arrow"

    def needs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean), "features": self.clone(Features), "selection": self.clone(Select)}

    def make(self) -> bytes:
        kept = kept_indices(decisions_from_json(self.input()["selection"].read()))
        encoder = encoder_from_json(self.input()["features"].read()).subset(kept)
        return candidate_to_arrow(train(self.family, self.training(), encoder, self.config))


class RankedStage(CleanedStage):
    """A stage that reads every candidate."""

    def needs(self) -> dict[str, Any]:
        families = select_families(self.config.families, self.config.panel is not None)
        return {"clean": self.clone(Clean), "candidates": [self.clone(Train, family=name) for name in families]}

    def candidates(self) -> list[Candidate]:
        return [candidate_from_arrow(target.read()) for target in self.input()["candidates"]]

    def claim(self) -> VersionReservation:
        """The version's name and parent, settled once, so that a resumed run publishes the same version."""
        target = self.target("claim.json")
        standing = read_champion(store(), self.project, StoreSettings().trust().promoters)
        parent = standing.champion if standing else None
        target.write(VersionReservation.now(datetime.now(UTC), self.run_name, self.snapshot, parent).to_json())
        return VersionReservation.from_json(target.read()).checked(self.run_name, self.snapshot)


class Rank(RankedStage):
    """The leaderboard; the only look at the test rows."""

    file = LEADERBOARD_FILE

    def make(self) -> bytes:
        board = rank(self.candidates(), self.training(), held_out_rows(self.rows(), self.config), self.config)
        return board.to_csv(index=False).encode()


class Compare(RankedStage):
    """The candidates beside the champion that they would follow."""

    file = COMPARISON_FILE

    def make(self) -> bytes:
        test = held_out_rows(self.rows(), self.config)
        return (
            compare([candidate.model for candidate in self.candidates()], self.champion(), test, self.config)
            .to_csv(index=False)
            .encode()
        )

    def champion(self) -> Incumbent | None:
        """None when there is none, or none that can be loaded any more."""
        own, parent = promotion_context(signing=False), self.claim().parent
        if parent is None:
            return None
        try:
            _, data = read_manifest(own.store, self.project, parent, own.trust.trainers)
            loaded = own.validator.load(self.project, parent, digest(data), own.fetch, own.trust.trainers)
        except StoreError:
            return None
        finally:
            own.validator.close()
        return incumbent_of(loaded)


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
        claim, rows, candidates = self.claim(), self.rows(), self.candidates()
        training, test = self.training(), held_out_rows(rows, self.config)
        made = {LEADERBOARD_FILE: "leaderboard", REPORT_FILE: "report", COMPARISON_FILE: "comparison"}
        files = {file: self.input()[name].read() for file, name in made.items()}
        files |= candidate_files(candidates, training, test, self.config)
        author, predictions = provenance.actor(StoreSettings().actor), predictions_digest(candidates, test)
        data = data_source(self.config, claim, rows)
        split = split_boundary(rows, self.config)
        manifest = build_manifest(claim, self.config, training.signature, data, files, author, predictions, split)
        validator = Validator()
        try:
            publish_checked(store(), manifest, files, StoreSettings().signer(), validator)
        finally:
            validator.close()
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
            outcome["number"] = promote_with_retries(
                promotion_context(signing=True), self.project, version, reason, utc_now
            ).sequence
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
            *_comparison_lines(self.input()["comparison"].read()),
            f"files   {store().url(version_prefix(self.project, outcome['version']))}",
            f"report  {self.input()['report'].url}",
        ]
        return "\n".join(lines).encode()


def _comparison_lines(comparison: bytes) -> list[str]:
    """The candidates beside the champion, when there was one to compare with."""
    if CURRENT_CHAMPION.encode() not in comparison:
        return []
    table = pd.read_csv(io.BytesIO(comparison))
    return [f"beside the champion, on {table['rows'].iloc[0]} test rows", table.round(4).to_string(index=False)]
