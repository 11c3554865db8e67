"""The stages of training; each calls one function of `podium.training` or `podium.registry`."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import luigi
import pandas as pd

from luigi_tasks.stage import SnapshotInput, Stage
from luigi_tasks.target import promotion_context, store
from podium.registry import provenance
from podium.registry.champion_alias import read_champion
from podium.registry.comparison import Incumbent, compare, incumbent_of
from podium.registry.promotion import GateFailed, promote_with_retries, utc_now
from podium.registry.publication import publish_checked
from podium.registry.validation import Validator
from podium.registry.versions import COMPARISON_FILE, LEADERBOARD_FILE, REPORT_FILE, read_manifest, version_prefix
from podium.schema.reading import Finding
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError, digest
from podium.tables.labeled_rows import LabeledRows, labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.training.candidates import Candidate, out_of_fold_scores, train
from podium.training.data_report import build_data_report, report_html
from podium.training.ensemble import ensemble_of
from podium.training.families import select_families
from podium.training.feature_selection import decisions_from_json, decisions_to_json, kept_indices, select_features
from podium.training.findings import findings_text
from podium.training.leaderboard import rank
from podium.training.project_kinds import kind_of
from podium.training.run_outputs import candidate_from_arrow, candidate_to_arrow, encoder_from_json, encoder_to_json
from podium.training.splits import evaluation_rows, training_rows
from podium.training.version_files import TrainedRun, VersionReservation


class Clean(Stage):
    """Convert the raw table to prepared rows."""

    file = "clean.parquet"

    def inputs(self) -> luigi.Task:
        return SnapshotInput(project=self.project, snapshot=self.snapshot)

    def build(self) -> bytes:
        return labeled_rows_to_parquet(kind_of(self.config).load(self.input().read(), store(), self.until))


class CleanedStage(Stage):
    """A stage that reads the prepared rows."""

    def inputs(self) -> dict[str, Any]:
        return {"clean": self.clone(Clean)}

    def rows(self) -> LabeledRows:
        return labeled_rows_from_parquet(self.input()["clean"].read())

    def training(self) -> LabeledRows:
        return training_rows(self.rows(), self.config)


class Explore(CleanedStage):
    """The data report of the training rows."""

    file = "report.html"

    def build(self) -> bytes:
        title = self.config.title or self.project
        return report_html(self.project, title, build_data_report(self.training()), StoreSettings().templates).encode()


class Features(CleanedStage):
    """The encoder, fitted on the training rows."""

    file = "features.json"

    def build(self) -> bytes:
        return encoder_to_json(kind_of(self.config).fit_encoder(self.training()))


class Select(CleanedStage):
    """The decision to keep or drop each feature."""

    file = "selection.json"

    def inputs(self) -> dict[str, Any]:
        return {**super().inputs(), "features": self.clone(Features)}

    def build(self) -> bytes:
        rows, encoder = self.training(), encoder_from_json(self.input()["features"].read())
        matrix, target, kind = encoder.transform(rows.inputs), rows.target.to_numpy(), rows.signature.target
        max_features, seed = self.config.features.max_features, self.config.seed
        return decisions_to_json(select_features(matrix, target, encoder.names, kind, max_features, seed))


class Train(CleanedStage):
    """One family, tuned by cross-validation and fitted."""

    family: str = luigi.Parameter(description="a key of podium.training.families.FAMILIES")
    file = "candidates/{family}.arrow"

    def inputs(self) -> dict[str, Any]:
        return {**super().inputs(), "features": self.clone(Features), "selection": self.clone(Select)}

    def build(self) -> bytes:
        kept = kept_indices(decisions_from_json(self.input()["selection"].read()))
        encoder = encoder_from_json(self.input()["features"].read()).subset(kept)
        return candidate_to_arrow(train(self.family, self.training(), encoder, self.config))


class Ensemble(CleanedStage):
    """The weighted mean of the families; empty if one family is best alone."""

    file = "candidates/ensemble.arrow"

    def inputs(self) -> dict[str, Any]:
        families = [self.clone(Train, family=name) for name in select_families(self.config)]
        return {**super().inputs(), "families": families}

    def build(self) -> bytes:
        candidates = [candidate_from_arrow(target.read()) for target in self.input()["families"]]
        ensemble = ensemble_of(candidates, self.training(), self.config)
        return candidate_to_arrow(ensemble) if ensemble else b""


class RankedStage(CleanedStage):
    """A stage that reads every candidate."""

    def inputs(self) -> dict[str, Any]:
        families = [self.clone(Train, family=name) for name in select_families(self.config)]
        return {**super().inputs(), "candidates": [*families, self.clone(Ensemble)]}

    def candidates(self) -> list[Candidate]:
        """Return the candidates of all families, and their ensemble if there is one."""
        files = [target.read() for target in self.input()["candidates"]]
        return [candidate_from_arrow(file) for file in files if file]

    def evaluation(self, candidates: list[Candidate]) -> LabeledRows:
        """Return the rows to evaluate on."""
        return evaluation_rows(self.rows(), self.config, out_of_fold_scores(candidates))

    def reservation(self) -> VersionReservation:
        """Return the name and parent of the version, stored once so that a resumed run publishes the same version."""
        target = self.target("reservation.json")
        champion = read_champion(store(), self.project, StoreSettings().trust().promoters)
        parent = champion.champion if champion else None
        target.write(VersionReservation.now(datetime.now(UTC), self.run_name, self.snapshot, parent).to_json())
        return VersionReservation.from_json(target.read()).checked(self.run_name, self.snapshot)


class Rank(RankedStage):
    """The leaderboard."""

    file = LEADERBOARD_FILE

    def build(self) -> bytes:
        candidates = self.candidates()
        return rank(candidates, self.training(), self.evaluation(candidates), self.config).to_csv(index=False).encode()


class Compare(RankedStage):
    """The candidates compared with the current champion."""

    file = COMPARISON_FILE

    def build(self) -> bytes:
        candidates = self.candidates()
        models, rows = [candidate.model for candidate in candidates], self.evaluation(candidates)
        return compare(models, self.champion(), rows, self.config).to_csv(index=False).encode()

    def champion(self) -> Incumbent | None:
        """Return the current champion, or None if there is none or it cannot be loaded."""
        context, parent = promotion_context(signing=False), self.reservation().parent
        if parent is None:
            return None
        try:
            _, data = read_manifest(context.store, self.project, parent, context.trust.trainers)
            loaded = context.validator.load(self.project, parent, digest(data), context.fetch, context.trust.trainers)
        except StoreError:
            return None
        finally:
            context.validator.close()
        return incumbent_of(loaded, context.fetch)


class Publish(RankedStage):
    """An immutable version: models, leaderboard, report and golden rows; the manifest is written last."""

    file = "publish.json"

    def inputs(self) -> dict[str, Any]:
        StoreSettings().signer()  # fail before hours of training, not after
        return {
            **super().inputs(),
            "leaderboard": self.clone(Rank),
            "report": self.clone(Explore),
            "comparison": self.clone(Compare),
        }

    def build(self) -> bytes:
        run = TrainedRun(self.config, self.reservation(), self.rows(), self.candidates())
        sources = {LEADERBOARD_FILE: "leaderboard", REPORT_FILE: "report", COMPARISON_FILE: "comparison"}
        files = {file: self.input()[name].read() for file, name in sources.items()}
        manifest, files = run.version_files(files, provenance.actor(StoreSettings().actor))
        validator = Validator()
        try:
            publish_checked(store(), manifest, files, StoreSettings().signer(), validator)
        finally:
            validator.close()
        url = store().url(version_prefix(self.project, manifest.version))
        return json.dumps({"version": manifest.version, "parent": manifest.parent, "url": url}, indent=1).encode()


class Promote(Stage):
    """Promote the version if it passes its gates. Raises AliasMoved if every retry loses to another promotion."""

    file = "promote.json"

    def inputs(self) -> luigi.Task:
        published: luigi.Task = self.clone(Publish)
        return published

    def build(self) -> bytes:
        version, reason = str(self.input().document().get("version")), f"run {self.run_name}"
        context = promotion_context(signing=True)
        outcome: dict[str, Any] = {"version": version, "promoted": True}
        try:
            outcome["number"] = promote_with_retries(context, self.project, version, reason, utc_now).sequence
        except GateFailed as error:
            outcome |= {"promoted": False, "reason": str(error), "number": error.entry.sequence}
        return json.dumps(outcome, indent=1).encode()


class Pipeline(Stage):
    """The whole graph, with a summary of its outcome."""

    file = "summary.txt"

    def inputs(self) -> dict[str, Any]:
        return {
            "promote": self.clone(Promote),
            "leaderboard": self.clone(Rank),
            "comparison": self.clone(Compare),
            "report": self.clone(Explore),
        }

    def build(self) -> bytes:
        outcome = self.input()["promote"].document()
        board = pd.read_csv(io.BytesIO(self.input()["leaderboard"].read()))
        lines = [
            f"{self.project}: version {outcome['version']}",
            "Promoted: now the champion" if outcome["promoted"] else f"Not promoted: {outcome['reason']}",
            board[["rank", "model", "eval_metric", "score_val", "score_test", "ci_low", "ci_high", "tied_with_best"]]
            .round(4)
            .to_string(index=False),
            *_comparison_lines(self.input()["comparison"].read()),
            *findings_text(self.findings(outcome["version"])),
            f"files   {store().url(version_prefix(self.project, outcome['version']))}",
            f"report  {self.input()['report'].url}",
        ]
        return "\n".join(lines).encode()

    def findings(self, version: str) -> tuple[Finding, ...]:
        """Return what was noticed in the training table."""
        manifest, _ = read_manifest(store(), self.project, version, StoreSettings().trust().trainers)
        return manifest.findings


def _comparison_lines(comparison: bytes) -> list[str]:
    """The comparison with the champion, or nothing if there was no champion."""
    table = pd.read_csv(io.BytesIO(comparison))
    if not table["model"].str.endswith(")").any():  # only the champion's name has a suffix
        return []
    title = f"Compared with the current champion on {table['rows'].iloc[0]} shared rows"
    return [title, table.round(4).to_string(index=False)]
