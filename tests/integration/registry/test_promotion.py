"""Promotion, rejection and rollback of versions, on moto and on SeaweedFS."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.project import ColumnOptions, GateOptions, Project, PromotionRules
from podium.registry.actors import four_eyes
from podium.registry.audit_entry import parse_entry
from podium.registry.audit_log import AliasMoved, check_history, read_history
from podium.registry.champion_alias import project_names, read_champion
from podium.registry.promotion import GateFailed, NoPreviousChampion, PromotionContext, promote, promote_with_retries, rollback
from podium.registry.signing import Signer, VerifyingKeys
from podium.registry.versions import (
    IntegrityError,
    Manifest,
    NotPublished,
    file_digests,
    parse_manifest,
    publish,
    version_prefix,
)
from podium.settings import BadRules, StoreSettings
from podium.storage.object_store import StoreError
from podium.tables.labeled_rows import labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.training.families import FAMILIES
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables
from tests.conftest import publish_version
from tests.unit.training.test_panel import shops


def now() -> datetime:
    return datetime(2026, 1, 2, tzinfo=UTC)


FLOWERS = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)


def published(context: PromotionContext, seed: int) -> str:
    return publish_version(context, tables.flowers(seed=seed), FLOWERS).version


def champion(context: PromotionContext) -> str | None:
    entry = read_champion(context.store, "p", context.trust.promoters)
    return entry.champion if entry else None


def check(context: PromotionContext) -> list[str]:
    return check_history(context.store, "p", context.trust.promoters)


def test_a_champion_changes_only_from_the_expected_one(context: PromotionContext) -> None:
    one, two, three = (published(context, seed) for seed in (2, 3, 4))
    assert champion(context) is None
    first = promote(context, "p", one, "first", now, expect=None)
    assert (first.sequence, first.champion, first.previous, first.by, first.forced) == (1, one, None, "ann", False)
    second = promote(replace(context, by="ben"), "p", two, "better", now, expect=one, force=True)
    assert (second.sequence, second.previous) == (2, one)
    for expect in (one, None):
        with pytest.raises(AliasMoved, match="entry 2, by ben"):
            promote(context, "p", three, "late", now, expect=expect)
    assert promote(context, "p", two, "again", now) == second
    assert champion(context) == two
    assert project_names(context.store) == ["p"]
    assert check(context) == []


def test_an_unpublished_version_is_not_promoted(context: PromotionContext) -> None:
    context.store.create("versions/p/v1/models/linear.pkl", b"model")
    with pytest.raises(NotPublished):
        promote(context, "p", "v1", "too early", now)
    assert champion(context) is None


def test_each_rollback_goes_one_promotion_back(context: PromotionContext) -> None:
    one, two, three = (published(context, seed) for seed in (2, 3, 4))
    with pytest.raises(NoPreviousChampion):
        rollback(context, "p", "nothing there", now)
    for version in (one, two, three):
        promote(context, "p", version, "next", now, force=True)
    assert rollback(context, "p", "three is bad", now).champion == two
    entry = rollback(context, "p", "two as well", now)
    assert (entry.action, entry.champion, entry.previous, entry.sequence) == ("rollback", one, two, 5)
    with pytest.raises(NoPreviousChampion, match="first champion"):
        rollback(context, "p", "and one", now)
    assert rollback(context, "p", "two was right", now, to=two).champion == two
    with pytest.raises(AliasMoved):
        rollback(context, "p", "late", now, expect=three)
    assert check(context) == []


def test_a_rollback_loads_its_target(context: PromotionContext) -> None:
    one, two = (published(context, seed) for seed in (2, 3))
    for version in (one, two):
        promote(context, "p", version, "next", now, force=True)
    key = f"versions/p/{one}/models/linear.pkl"
    context.store.replace(key, b"broken", context.store.etag(key))
    with pytest.raises(StoreError, match="differs from the published file"):
        rollback(context, "p", "two is bad", now)
    assert champion(context) == two


GATES = [
    ({"min_score": 0.5}, "ann", "min-score", "Minimum score"),
    ({"max_bytes": 10}, "ann", "size", "Size"),
    ({"max_latency_ms": 1e-9}, "ann", "latency", "Latency"),
    ({"four_eyes": True}, "trainer", "four-eyes", "Four eyes"),
]


@pytest.mark.parametrize(("gates", "by", "failed", "title"), GATES)
def test_a_failed_gate_rejects_the_version_and_is_recorded(
    context: PromotionContext, gates: dict[str, Any], by: str, failed: str, title: str
) -> None:
    version = publish_version(context, tables.flowers(), FLOWERS).version
    context = replace(context, by=by, rules=lambda _: PromotionRules(gates=GateOptions.model_validate(gates)))
    with pytest.raises(GateFailed, match=title) as rejected:
        promote(context, "p", version, "try", now)
    assert [gate.name for gate in rejected.value.entry.failed_gates] == [failed]
    assert champion(context) is None
    last = parse_entry(read_history(context.store, "p")[-1][1], "p", context.trust.promoters)
    assert (last.action, last.version, last.champion) == ("refuse", version, None)
    forced = promote(context, "p", version, "the board said so", now, force=True)
    assert (forced.forced, forced.champion, forced.sequence) == (True, version, 2)
    assert check(context) == []


def test_a_dry_run_writes_nothing(context: PromotionContext) -> None:
    version = published(context, 2)
    entry = promote(context, "p", version, "try", now, dry_run=True)
    assert (entry.action, entry.champion) == ("promote", version)
    assert {gate.name for gate in entry.evidence} >= {"golden-rows", "no-missing-predictions", "size"}
    assert read_history(context.store, "p") == []
    assert champion(context) is None


def test_a_worse_or_incompatible_version_is_rejected(context: PromotionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    good = publish_version(context, tables.flowers(600), FLOWERS).version
    promote(context, "p", good, "first", now)
    monkeypatch.setitem(FAMILIES, "linear", replace(FAMILIES["linear"], settings=({"C": 1e-6},)))
    with pytest.raises(GateFailed, match="Not worse than champion: log_loss: worse by"):
        promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "worse", now)
    more = tables.flowers(600).rename(columns={"petal": "colour"})
    with pytest.raises(GateFailed, match="column colour is new and required; column petal was removed"):
        promote(context, "p", publish_version(context, more, FLOWERS).version, "narrower", now)
    assert champion(context) == good


LOOSE = GateOptions(non_inferiority=False, compatible=False, max_bytes=1 << 40)


def test_a_manifest_cannot_switch_the_gates_off(context: PromotionContext) -> None:
    promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "first", now)
    loose = FLOWERS.model_copy(update={"gates": LOOSE})
    narrower = tables.flowers(600).rename(columns={"petal": "colour"})
    version = publish_version(context, narrower, loose).version
    with pytest.raises(GateFailed, match="Compatibility: column colour is new and required"):
        promote(context, "p", version, "loose", now)
    allowed = replace(context, rules=lambda _: PromotionRules(gates=LOOSE))
    assert promote(allowed, "p", version, "the promoter allows it", now).champion == version


def test_the_promoters_project_file_decides_or_else_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    settings = StoreSettings(projects=tmp_path)
    assert settings.rules_for("p") == PromotionRules()
    assert PromotionRules().gates.non_inferiority and PromotionRules().gates.compatible
    (tmp_path / "p" / "project.toml").write_text('target = "y"\nmetric = "f1"\nseed = 3\n[gates]\nmin_score = 0.5')
    assert settings.rules_for("p") == PromotionRules(gates=GateOptions(min_score=0.5), metric="f1", seed=3)
    (tmp_path / "p" / "project.toml").write_text("[gates]\nmin_scor = 0.5")
    with pytest.raises(BadRules, match=r"gates\.min_scor"):
        settings.rules_for("p")


def republished(context: PromotionContext, manifest: Manifest, version: str, files: dict[str, bytes], **changes: Any) -> str:
    """Publish these files as another version with the trainer's key, as an attacker with that key could."""
    kept = {name: context.store.read(version_prefix("p", manifest.version) + name).data for name in manifest.files} | files
    changed = manifest.model_copy(update={"version": version, "files": file_digests(kept), "signatures": {}, **changes})
    publish(context.store, changed, kept, context.signer)
    return version


def test_a_reported_score_must_match_the_computed_one(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(600), FLOWERS)
    strict = replace(context, rules=lambda _: PromotionRules(gates=GateOptions(min_score=-0.001)))
    for number, reported in enumerate((-0.0001, None, True, 1e300)):
        board = [{**row, "score_test": reported} for row in manifest.leaderboard]
        version = republished(context, manifest, f"v{number}", {}, leaderboard=board)
        with pytest.raises(GateFailed) as rejected:
            promote(strict, "p", version, "better than it is", now)
        failed = {gate.name for gate in rejected.value.entry.failed_gates}
        assert failed >= {"min-score"} and (reported is None or "scores" in failed), reported


INVALID: list[Callable[[dict[str, Any]], Any]] = [
    lambda document: document.update(note="x"),
    lambda document: document.update(champion="nobody"),
    lambda document: document.update(created="yesterday"),
    lambda document: document.update(author="A" * (1 << 20)),
    lambda document: document["leaderboard"][0].update(score_test="high"),
    lambda document: document["leaderboard"][0].update(interval_90="abc"),
    lambda document: document["leaderboard"][0].pop("model"),
    lambda document: document["files"]["golden.json"].update(sha256="/dev/zero"),
    lambda document: document["files"]["golden.json"].update(sha256="../" * 20 + "dev/zero"),
    lambda document: document["files"].update(more={"sha256": "0" * 64, "size": -(10**15)}),
]


@pytest.mark.parametrize("change", INVALID, ids=range(len(INVALID)))
def test_an_invalid_manifest_is_rejected_even_if_signed(
    signer: Signer, unchanged: Manifest, change: Callable[[dict[str, Any]], Any]
) -> None:
    document = unchanged.model_dump(mode="json")
    change(document)
    data = json.dumps({**document, "signatures": signer.sign(document)}).encode()
    with pytest.raises(IntegrityError):
        parse_manifest(data, unchanged.project, unchanged.version, VerifyingKeys([signer.public]))


@pytest.fixture(scope="module")
def unchanged() -> Manifest:
    reservation = VersionReservation.now(datetime(2026, 1, 2, tzinfo=UTC), "0" * 24, "0" * 64, None)
    return train_locally(tables.flowers(120).to_csv(index=False).encode(), FLOWERS, reservation, "trainer")[0]


def test_four_eyes_needs_a_valid_signature_of_the_trainer(signer: Signer, unchanged: Manifest) -> None:
    """A signature of a document with another format field does not count."""
    document = unchanged.model_dump(mode="json")
    keys = VerifyingKeys([signer.public])
    signed = unchanged.model_copy(update={"signatures": signer.sign({**document, "format": "1"})})
    assert not four_eyes(signed, keys, "somebody else", signer).passed


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def test_test_rows_of_another_version_are_rejected(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(600), FLOWERS)
    rows = labeled_rows_from_parquet(context.store.read(version_prefix("p", manifest.version) + "test.parquet").data)
    other = replace(rows.signature, target=replace(rows.signature.target, classes=(3, 2, 1)))
    huge = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["x" * (1 << 20)])})
    wrong = {
        "a different target": labeled_rows_to_parquet(replace(rows, signature=other)),
        "a class that the version does not have": labeled_rows_to_parquet(replace(rows, target=rows.target + 7)),
        "ArrowInvalid": b"PAR1",
        "more than": parquet(huge),
        "take more than": parquet(huge, store_schema=False),
        "rows take more": parquet(huge.cast(pa.schema({"x": pa.dictionary(pa.int32(), pa.large_string())}))),
        "lists": parquet(pa.table({"x": [["a"]]})),
    }
    for number, (message, data) in enumerate(wrong.items()):
        assert len(data) < 100_000
        version = republished(context, manifest, f"v{number}", {"test.parquet": data})
        with pytest.raises(GateFailed, match=f"Test rows: .*{message}"):
            promote(context, "p", version, "other rows", now)


def test_out_of_fold_scores_of_another_model_are_rejected(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(600), FLOWERS)
    rows = labeled_rows_from_parquet(context.store.read(version_prefix("p", manifest.version) + "test.parquet").data)
    perfect = {"linear": np.eye(3)[rows.target.astype(int)]}
    board = [{**row, "score_test": 0.0} for row in manifest.leaderboard]
    wrong: dict[str, dict[str, np.ndarray]] = {
        "Test rows: .*do not have the out-of-fold scores": {},
        "Test rows: .*have the wrong number": {"linear": rows.scores["linear"][:, :2]},
        "Test rows: .*not finite": {"linear": rows.scores["linear"] * np.nan},
        "Reported scores: linear predicts the rows it was trained on worse": perfect,
    }
    for number, (message, scores) in enumerate(wrong.items()):
        data = labeled_rows_to_parquet(replace(rows, scores=scores))
        version = republished(context, manifest, f"v{number}", {"test.parquet": data}, leaderboard=board)
        with pytest.raises(GateFailed, match=message):
            promote(context, "p", version, "other scores", now)


def test_four_eyes_needs_another_key_and_another_name(context: PromotionContext) -> None:
    version = published(context, 2)
    strict = replace(context, rules=lambda _: PromotionRules(gates=GateOptions(four_eyes=True)))
    key = Signer.new()
    other = replace(
        strict, signer=key, trust=replace(strict.trust, promoters=VerifyingKeys([context.signer.public, key.public]))
    )
    for wrong in (replace(strict, by="somebody else"), replace(other, by=f"Trainer (key {'0' * 16})")):
        with pytest.raises(GateFailed, match="Four eyes: trained by trainer"):
            promote(wrong, "p", version, "by myself", now)
    assert promote(other, "p", version, "a second look", now).champion == version


def test_a_promotion_that_lost_a_race_is_evaluated_again_or_fails(context: PromotionContext) -> None:
    others = itertools.cycle([published(context, seed) for seed in (3, 4)])
    version = published(context, 2)
    races_left = [2]

    def fetch(key: str, sha256: str, max_bytes: int) -> bytes:
        if key.endswith(f"{version}/test.parquet") and races_left[0]:
            races_left[0] -= 1
            promote(context, "p", next(others), "faster", now, force=True)
        return context.fetch(key, sha256, max_bytes)

    raced = replace(context, fetch=fetch, rules=lambda _: PromotionRules(gates=LOOSE))
    entry = promote_with_retries(raced, "p", version, "in turn", now)
    assert (entry.champion, entry.sequence) == (version, 3)
    assert any(gate.name == "non-inferiority" for gate in entry.evidence) is False
    promote(context, "p", next(others), "next", now, force=True)
    races_left[0] = 100
    with pytest.raises(AliasMoved):
        promote_with_retries(raced, "p", version, "in turn", now)
    assert check(context) == []


def test_a_model_with_older_data_is_promoted_only_by_force(context: PromotionContext) -> None:
    panel = {"entity": "shop", "time": "day", "lags": 2}
    forecast = Project(name="p", data="s3://podium/none", target="sold", panel=panel, n_trials=1, families=["linear"])  # type: ignore[arg-type]
    late, early = (publish_version(context, shops(days=days), forecast).version for days in (40, 30))
    promote(context, "p", late, "first", now)
    with pytest.raises(GateFailed, match="No older data: training data ends on 2026-01-30, the champion's on 2026-02-09"):
        promote(context, "p", early, "back", now)
    assert promote(context, "p", early, "on purpose", now, force=True).forced


def test_an_equal_version_passes_the_comparison(context: PromotionContext) -> None:
    promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "first", now)
    fewer = tables.flowers(600).sample(frac=0.9, random_state=1)
    entry = promote(context, "p", publish_version(context, fewer, FLOWERS).version, "again", now)
    assert all(gate.passed for gate in entry.evidence)
    assert {"compatible", "non-inferiority"} <= {gate.name for gate in entry.evidence}


def test_a_version_without_one_of_the_columns_is_compared(context: PromotionContext) -> None:
    promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "first", now)
    without = FLOWERS.model_copy(update={"columns": {"sepal": ColumnOptions(ignore=True)}})
    entry = promote(context, "p", publish_version(context, tables.flowers(600), without).version, "simpler", now)
    (gate,) = (gate for gate in entry.evidence if gate.name == "non-inferiority")
    assert "600 rows" in gate.detail and "may have seen" not in gate.detail


def test_a_rejection_gives_the_reason(context: PromotionContext) -> None:
    strict = replace(context, rules=lambda _: PromotionRules(gates=GateOptions(min_score=0.999)))
    with pytest.raises(GateFailed) as rejected:
        promote(strict, "p", publish_version(context, tables.flowers(240), FLOWERS).version, "try", now)
    assert rejected.value.entry.why.startswith("try (Minimum score: score -0.")


def test_the_manifest_names_its_author(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(), FLOWERS)
    assert manifest.author == "trainer"
    assert len(manifest.predictions_sha256) == 64


def test_a_rollback_goes_from_the_champion_to_an_earlier_one(context: PromotionContext) -> None:
    one, two, three = (published(context, seed) for seed in range(3))
    for name in (one, two):
        promote(context, "p", name, "a test", now, force=True)
    for to, message in ((three, "was never the champion"), (two, "is already the champion")):
        with pytest.raises(NoPreviousChampion, match=message):
            rollback(context, "p", "x", now, to=to)
    with pytest.raises(AliasMoved):
        rollback(context, "p", "x", now, to=two, expect="garbage")
    with pytest.raises(AliasMoved):
        rollback(context, "p", "x", now, to=one, expect=one)
    assert rollback(context, "p", "x", now, to=one, expect=two).previous == two
    assert champion(context) == one
    assert check(context) == []


def test_a_version_with_a_leak_is_rejected(context: PromotionContext) -> None:
    frame = tables.prices(300).assign(total=lambda frame: 2 * frame["price"] + 1)
    leaking = Project(name="p", data="s3://podium/x", target="price", families=("linear",), n_trials=1)
    version = publish_version(context, frame, leaking).version
    with pytest.raises(
        GateFailed, match=r"No leakage: total alone predicts 100.0% of price.*Set columns.total.ignore = true, or"
    ):
        promote(context, "p", version, "first", now)
    promote(context, "p", publish_version(context, frame.drop(columns="total"), leaking).version, "first", now)
