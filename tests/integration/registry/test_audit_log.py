"""Champions: judged, promoted, rolled back and written down, on moto and on SeaweedFS alike."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.project import ColumnOptions, GateOptions, Project, PromotionRules
from podium.registry.audit_log import (
    AliasMoved,
    AuditEntry,
    GateResult,
    alias_key,
    append,
    check_history,
    entries_since,
    entry_key,
    finish_alias_update,
    parse_entry,
    project_names,
    read_champion,
    read_history,
)
from podium.registry.identity import four_eyes
from podium.registry.promotion import GateFailed, NoPreviousChampion, PromotionContext, promote, promote_with_retries, rollback
from podium.registry.signing import Signer, Unsigned, VerifyingKeys
from podium.registry.versions import IntegrityError, Manifest, NotPublished, describe, parse_manifest, publish, version_prefix
from podium.settings import BadRules, StoreSettings
from podium.storage.object_store import Store, StoreError, TooLarge
from podium.tables.labeled_rows import labeled_rows_from_parquet, labeled_rows_to_parquet
from podium.tables.readers import read_csv
from podium.training.families import FAMILIES
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables
from tests.conftest import publish_version
from tests.unit.training.test_panel import shops


def then() -> datetime:
    return datetime(2026, 1, 2, tzinfo=UTC)


FLOWERS = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), n_trials=1)


def published(context: PromotionContext, seed: int) -> str:
    return publish_version(context, tables.flowers(seed=seed), FLOWERS).version


def champion(context: PromotionContext) -> str | None:
    entry = read_champion(context.store, "p", context.trust.promoters)
    return entry.champion if entry else None


def check(context: PromotionContext) -> list[str]:
    return check_history(context.store, "p", context.trust.promoters)


def test_a_champion_moves_only_from_where_it_was_seen(context: PromotionContext) -> None:
    one, two, three = (published(context, seed) for seed in (2, 3, 4))
    assert champion(context) is None
    first = promote(context, "p", one, "first", then, expect=None)
    assert (first.sequence, first.champion, first.previous, first.by, first.forced) == (1, one, None, "ann", False)
    second = promote(replace(context, by="ben"), "p", two, "better", then, expect=one, force=True)
    assert (second.sequence, second.previous) == (2, one)
    for expect in (one, None):
        with pytest.raises(AliasMoved, match="since number 2, by ben"):
            promote(context, "p", three, "late", then, expect=expect)
    assert promote(context, "p", two, "again", then) == second
    assert champion(context) == two
    assert project_names(context.store) == ["p"]
    assert check(context) == []


def test_what_was_never_published_is_not_promoted(context: PromotionContext) -> None:
    context.store.create("versions/p/v1/models/linear.pkl", b"model")
    with pytest.raises(NotPublished):
        promote(context, "p", "v1", "too early", then)
    assert champion(context) is None


def test_rolling_back_goes_one_promotion_back_each_time(context: PromotionContext) -> None:
    one, two, three = (published(context, seed) for seed in (2, 3, 4))
    with pytest.raises(NoPreviousChampion):
        rollback(context, "p", "nothing there", then)
    for version in (one, two, three):
        promote(context, "p", version, "next", then, force=True)
    assert rollback(context, "p", "three is bad", then).champion == two
    entry = rollback(context, "p", "two as well", then)
    assert (entry.action, entry.champion, entry.previous, entry.sequence) == ("rollback", one, two, 5)
    with pytest.raises(NoPreviousChampion, match="first champion"):
        rollback(context, "p", "and one", then)
    assert rollback(context, "p", "two was right", then, to=two).champion == two
    with pytest.raises(AliasMoved):
        rollback(context, "p", "late", then, expect=three)
    assert check(context) == []


def test_a_rollback_loads_what_it_goes_back_to(context: PromotionContext) -> None:
    one, two = (published(context, seed) for seed in (2, 3))
    for version in (one, two):
        promote(context, "p", version, "next", then, force=True)
    key = f"versions/p/{one}/models/linear.pkl"
    context.store.replace(key, b"broken", context.store.etag(key))
    with pytest.raises(StoreError, match="is not what was published"):
        rollback(context, "p", "two is bad", then)
    assert champion(context) == two


GATES = [
    ({"min_score": 0.5}, "ann", "min-score"),
    ({"max_bytes": 10}, "ann", "size"),
    ({"max_latency_ms": 1e-9}, "ann", "latency"),
    ({"four_eyes": True}, "trainer", "four-eyes"),
]


@pytest.mark.parametrize(("gates", "by", "failed"), GATES)
def test_a_failed_gate_refuses_and_is_written_down(
    context: PromotionContext, gates: dict[str, Any], by: str, failed: str
) -> None:
    version = publish_version(context, tables.flowers(), FLOWERS).version
    context = replace(context, by=by, rules=lambda _: PromotionRules(gates=GateOptions.model_validate(gates)))
    with pytest.raises(GateFailed, match=failed) as refused:
        promote(context, "p", version, "try", then)
    assert [each.name for each in refused.value.entry.evidence if not each.passed] == [failed]
    assert champion(context) is None
    last = parse_entry(read_history(context.store, "p")[-1][1], "p", context.trust.promoters)
    assert (last.action, last.version, last.champion) == ("refuse", version, None)
    forced = promote(context, "p", version, "the board said so", then, force=True)
    assert (forced.forced, forced.champion, forced.sequence) == (True, version, 2)
    assert check(context) == []


def test_looking_first_writes_nothing(context: PromotionContext) -> None:
    version = published(context, 2)
    entry = promote(context, "p", version, "try", then, dry=True)
    assert (entry.action, entry.champion) == ("promote", version)
    assert {gate.name for gate in entry.evidence} >= {"golden-rows", "no-missing-predictions", "size"}
    assert read_history(context.store, "p") == []
    assert champion(context) is None


def test_a_worse_version_and_a_narrower_one_are_refused(context: PromotionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    good = publish_version(context, tables.flowers(600), FLOWERS).version
    promote(context, "p", good, "first", then)
    monkeypatch.setitem(FAMILIES, "linear", replace(FAMILIES["linear"], param_grid=({"C": 1e-6},)))
    with pytest.raises(GateFailed, match="not-worse: difference"):
        promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "worse", then)
    more = tables.flowers(600).rename(columns={"sepal": "colour"})
    with pytest.raises(GateFailed, match="column colour is new and required; column sepal is gone"):
        promote(context, "p", publish_version(context, more, FLOWERS).version, "narrower", then)
    assert champion(context) == good


LOOSE = GateOptions(non_inferiority=False, compatible=False, max_bytes=1 << 40)


def test_a_manifest_cannot_switch_the_gates_off(context: PromotionContext) -> None:
    promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "first", then)
    loose = FLOWERS.model_copy(update={"gates": LOOSE})
    narrower = tables.flowers(600).rename(columns={"sepal": "colour"})
    version = publish_version(context, narrower, loose).version
    with pytest.raises(GateFailed, match="compatible: column colour is new and required"):
        promote(context, "p", version, "loose", then)
    allowed = replace(context, rules=lambda _: PromotionRules(gates=LOOSE))
    assert promote(allowed, "p", version, "the promoter allows it", then).champion == version


def test_a_promoters_project_file_decides_and_without_one_the_defaults_do(tmp_path: Path) -> None:
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
    """Another version of these files, signed by the trainer, as somebody with the trainer's key may make one."""
    kept = {name: context.store.read(version_prefix("p", manifest.version) + name).data for name in manifest.files} | files
    changed = manifest.model_copy(update={"version": version, "files": describe(kept), "signatures": {}, **changes})
    publish(context.store, changed, kept, context.signer)
    return version


def test_a_stated_score_must_be_the_one_that_is_computed(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(600), FLOWERS)
    strict = replace(context, rules=lambda _: PromotionRules(gates=GateOptions(min_score=-0.001)))
    for turn, stated in enumerate((-0.0001, None, True, 1e300)):
        board = [{**row, "score_test": stated} for row in manifest.leaderboard]
        version = republished(context, manifest, f"v{turn}", {}, leaderboard=board)
        with pytest.raises(GateFailed) as refused:
            promote(strict, "p", version, "better than it is", then)
        failed = {gate.name for gate in refused.value.entry.evidence if not gate.passed}
        assert failed >= {"min-score"} and (stated is None or "scores" in failed), stated


ODD: list[Callable[[dict[str, Any]], Any]] = [
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


@pytest.mark.parametrize("change", ODD, ids=range(len(ODD)))
def test_a_signed_manifest_that_podium_would_not_write_is_refused(
    signer: Signer, honest: Manifest, change: Callable[[dict[str, Any]], Any]
) -> None:
    document = honest.model_dump(mode="json")
    change(document)
    data = json.dumps({**document, "signatures": signer.sign(document)}).encode()
    with pytest.raises(IntegrityError):
        parse_manifest(data, honest.project, honest.version, VerifyingKeys([signer.public]))


@pytest.fixture(scope="module")
def honest() -> Manifest:
    claim = VersionReservation.now(datetime(2026, 1, 2, tzinfo=UTC), "0" * 24, "0" * 64, None)
    return train_locally(read_csv(tables.flowers(120).to_csv(index=False).encode()), FLOWERS, claim, "trainer")[0]


def test_second_person_needs_a_key_that_signed_the_version(signer: Signer, honest: Manifest) -> None:
    """A document that reads as another one is signed by nobody."""
    document = honest.model_dump(mode="json")
    keys = VerifyingKeys([signer.public])
    signed = honest.model_copy(update={"signatures": signer.sign({**document, "format": "1"})})
    assert not four_eyes(signed, keys, "somebody else", signer).passed


def test_a_finding_of_any_length_leaves_the_history_readable(context: PromotionContext) -> None:
    gate = GateResult(name="loads", passed=False, detail="\ud800" + "q" * (2 << 20))
    fields = {"action": "refuse", "version": "v1", "champion": None, "manifest": None, "previous": None}
    act = {**fields, "by": "ann", "reason": "x", "at": "now", "evidence": (gate,)}
    append(context.store, "p", context.signer, context.trust.promoters, lambda _: act)
    assert check_history(context.store, "p", context.trust.promoters) == []
    with pytest.raises(StoreError, match="too large"):
        append(context.store, "p", context.signer, context.trust.promoters, lambda _: {**act, "reason": "r" * (2 << 20)})
    assert check_history(context.store, "p", context.trust.promoters) == []


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def test_test_rows_that_are_not_the_versions_are_refused(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(600), FLOWERS)
    rows = labeled_rows_from_parquet(context.store.read(version_prefix("p", manifest.version) + "test.parquet").data)
    other = replace(rows.signature, target=replace(rows.signature.target, classes=(3, 2, 1)))
    huge = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["x" * (1 << 20)])})
    wrong = {
        "another target": labeled_rows_to_parquet(replace(rows, signature=other)),
        "a class that the version does not know": labeled_rows_to_parquet(replace(rows, target=rows.target + 7)),
        "ArrowInvalid": b"PAR1",
        "more than": parquet(huge),
        "take more than": parquet(huge, store_schema=False),
        "rows take more": parquet(huge.cast(pa.schema({"x": pa.dictionary(pa.int32(), pa.large_string())}))),
        "lists": parquet(pa.table({"x": [["a"]]})),
    }
    for turn, (words, data) in enumerate(wrong.items()):
        assert len(data) < 100_000
        version = republished(context, manifest, f"v{turn}", {"test.parquet": data})
        with pytest.raises(GateFailed, match=f"test-rows: .*{words}"):
            promote(context, "p", version, "other rows", then)


def test_a_second_person_has_another_key_and_another_name(context: PromotionContext) -> None:
    version = published(context, 2)
    own = replace(context, rules=lambda _: PromotionRules(gates=GateOptions(four_eyes=True)))
    key = Signer.new()
    other = replace(own, signer=key, trust=replace(own.trust, promoters=VerifyingKeys([context.signer.public, key.public])))
    for wrong in (replace(own, by="somebody else"), replace(other, by=f"Trainer (key {'0' * 16})")):
        with pytest.raises(GateFailed, match="second-person: trained by trainer"):
            promote(wrong, "p", version, "by myself", then)
    assert promote(other, "p", version, "a second look", then).champion == version


def test_a_promotion_that_comes_second_is_judged_again_or_fails(context: PromotionContext) -> None:
    rivals = itertools.cycle([published(context, seed) for seed in (3, 4)])
    version = published(context, 2)
    left = [2]

    def fetch(key: str, sha256: str, max_bytes: int) -> bytes:
        if key.endswith("test.parquet") and left[0]:
            left[0] -= 1
            promote(context, "p", next(rivals), "faster", then, force=True)
        return context.fetch(key, sha256, max_bytes)

    raced = replace(context, fetch=fetch, rules=lambda _: PromotionRules(gates=LOOSE))
    entry = promote_with_retries(raced, "p", version, "in turn", then)
    assert (entry.champion, entry.sequence) == (version, 3)
    assert any(gate.name == "non-inferiority" for gate in entry.evidence) is False
    promote(context, "p", next(rivals), "next", then, force=True)
    left[0] = 100
    with pytest.raises(AliasMoved):
        promote_with_retries(raced, "p", version, "in turn", then)
    assert check(context) == []


def test_a_panel_does_not_go_back_in_time_unless_it_is_forced(context: PromotionContext) -> None:
    panel = {"entity": "shop", "time": "day", "lags": 2}
    own = Project(name="p", data="s3://podium/none", target="sold", panel=panel, n_trials=1, families=["linear"])  # type: ignore[arg-type]
    late, early = (publish_version(context, shops(days=days), own).version for days in (40, 30))
    promote(context, "p", late, "first", then)
    with pytest.raises(GateFailed, match="not-older: its data end at 2026-01-30, the champion's at 2026-02-09"):
        promote(context, "p", early, "back", then)
    assert promote(context, "p", early, "on purpose", then, force=True).forced


def test_an_equal_version_is_not_kept_out_by_chance(context: PromotionContext) -> None:
    promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "first", then)
    fewer = tables.flowers(600).sample(frac=0.9, random_state=1)
    entry = promote(context, "p", publish_version(context, fewer, FLOWERS).version, "again", then)
    assert all(gate.passed for gate in entry.evidence)
    assert {"compatible", "non-inferiority"} <= {gate.name for gate in entry.evidence}


def test_a_version_that_leaves_a_column_out_is_compared(context: PromotionContext) -> None:
    promote(context, "p", publish_version(context, tables.flowers(600), FLOWERS).version, "first", then)
    without = FLOWERS.model_copy(update={"columns": {"sepal": ColumnOptions(ignore=True)}})
    entry = promote(context, "p", publish_version(context, tables.flowers(600), without).version, "simpler", then)
    (gate,) = (gate for gate in entry.evidence if gate.name == "non-inferiority")
    assert "on 120 test rows" in gate.detail and "not known" not in gate.detail


def test_a_refusal_says_why(context: PromotionContext) -> None:
    strict = replace(context, rules=lambda _: PromotionRules(gates=GateOptions(min_score=0.999)))
    with pytest.raises(GateFailed) as refused:
        promote(strict, "p", publish_version(context, tables.flowers(240), FLOWERS).version, "try", then)
    assert refused.value.entry.why.startswith("try (min-score: test score -0.")


def together(calls: list[Callable[[], object]]) -> list[object]:
    """Call all at once; what each returned or raised."""
    outcomes: list[object] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(place: int) -> None:
        gate.wait()
        try:
            outcomes[place] = calls[place]()
        except StoreError as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


ANY = "*"


def moving(context: PromotionContext, version: str, expect: str | None) -> Callable[[], AuditEntry]:
    """A promotion's last step, without the gates."""

    def draft(head: AuditEntry | None) -> dict[str, Any]:
        standing = head.champion if head else None
        if expect not in (ANY, standing):
            raise AliasMoved(f"lost to number {head.sequence if head else 0}")
        fields = {"version": version, "champion": version, "manifest": "0" * 64, "previous": standing}
        return {"action": "promote", **fields, "by": version, "reason": "race", "at": "now"}

    return lambda: append(context.store, "p", context.signer, context.trust.promoters, draft)


def test_of_fifty_promoters_at_once_one_wins_and_all_are_told(context: PromotionContext) -> None:
    outcomes = together([moving(context, f"v{number}", None) for number in range(50)])
    winners = [outcome for outcome in outcomes if isinstance(outcome, AuditEntry)]
    assert len(winners) == 1
    assert [str(outcome) for outcome in outcomes if not isinstance(outcome, AuditEntry)] == ["lost to number 1"] * 49
    assert champion(context) == winners[0].champion
    assert check(context) == []


def test_promoters_that_expect_nothing_make_one_linear_history(context: PromotionContext) -> None:
    outcomes = together([moving(context, f"v{number}", ANY) for number in range(12)])
    assert sorted(entry.sequence for entry in outcomes if isinstance(entry, AuditEntry)) == list(range(1, 13))
    assert check(context) == []


class Dies(Exception):
    """The process ends here."""


class Mortal:
    """A client that dies before or after its n-th call that writes."""

    def __init__(self, client: Any, turn: int, after: bool) -> None:
        self._client, self._left, self._after = client, turn, after

    def put_object(self, **arguments: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Dies
        answer = self._client.put_object(**arguments)
        if self._left == 0:
            raise Dies
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("turn", [1, 2])
def test_who_dies_between_history_and_alias_is_repaired_by_the_next(context: PromotionContext, turn: int, after: bool) -> None:
    moving(context, "v1", None)()
    dying = replace(context, store=Store(Mortal(context.store._client, turn, after), context.store.bucket))
    with pytest.raises(Dies):
        moving(dying, "v2", "v1")()
    entry = finish_alias_update(context.store, "p", context.trust.promoters)
    assert entry is not None
    assert entry.champion == ("v2" if (turn, after) != (1, False) else "v1")
    assert champion(context) == entry.champion
    assert moving(context, "v3", entry.champion)().champion == "v3"
    assert check(context) == []


def overwrite(store: Store, key: str, data: bytes | None) -> None:
    if data is None:
        store._client.delete_object(Bucket=store.bucket, Key=key)
    else:
        store._client.put_object(Bucket=store.bucket, Key=key, Body=data)


def edited(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}, indent=1).encode()


def test_whatever_is_done_to_the_history_is_seen(context: PromotionContext) -> None:
    for number in range(1, 5):
        moving(context, f"v{number}", ANY)()
    whole = dict(read_history(context.store, "p"))
    alias = context.store.read(alias_key("p")).data
    second, third, last = (whole[entry_key("p", number)] for number in (2, 3, 4))
    document = json.loads(edited(last, reason="other"))
    forged = json.dumps({**document, "signatures": Signer.new().sign(document)}).encode()
    attacks: dict[str, dict[str, bytes | None]] = {
        "edit": {entry_key("p", 2): edited(second, by="nobody")},
        "drop": {entry_key("p", 2): None},
        "drop the tail": {entry_key("p", 4): None},
        "reorder": {entry_key("p", 2): third, entry_key("p", 3): second},
        "forge": {entry_key("p", 4): forged, alias_key("p"): forged},
        "truncate": {entry_key("p", 3): third[:50]},
        "put the alias back": {alias_key("p"): third},
        "append what nobody signed": {entry_key("p", 5): edited(last, sequence=5)},
        "repeat": {entry_key("p", 5): last},
    }
    assert check(context) == []
    for name, changes in attacks.items():
        for key, data in changes.items():
            overwrite(context.store, key, data)
        assert check(context), name
        for key in changes:
            overwrite(context.store, key, alias if key == alias_key("p") else whole.get(key))
    assert check(context) == []


def foreign(context: PromotionContext) -> dict[str, bytes]:
    """Objects that somebody without a key may put at the next number, by what they are."""
    first, last = (data for _, data in read_history(context.store, "p")[:2])
    document = {**json.loads(last), "sequence": 3, "before": None}
    other = {**document, "project": "q"}
    return {
        "empty": b"",
        "no JSON": b"\xff{",
        "unsigned": b"{}",
        "a list": b"[]",
        "an earlier entry": first,
        "an edited entry": edited(last, sequence=3),
        "signed by another key": json.dumps({**document, "signatures": Signer.new().sign(document)}).encode(),
        "of another project": json.dumps({**other, "signatures": context.signer.sign(other)}).encode(),
        "of a bucket with the same keys": json.dumps({**document, "signatures": context.signer.sign(document)}).encode(),
        "deep": b"[" * 100_000,
        "larger than any entry": b" " * (2 << 20),
    }


def test_a_foreign_object_at_the_next_number_is_skipped_and_reported(context: PromotionContext) -> None:
    for number in (1, 2):
        moving(context, f"v{number}", ANY)()
    objects = foreign(context)
    for number, data in enumerate(objects.values(), 3):
        overwrite(context.store, entry_key("p", number), data)
    assert finish_alias_update(context.store, "p", context.trust.promoters) == read_champion(
        context.store, "p", context.trust.promoters
    )
    entry = moving(context, "v3", "v2")()
    assert (entry.sequence, champion(context)) == (3 + len(objects), "v3")
    assert moving(context, "v4", "v3")().sequence == entry.sequence + 1
    found = entries_since(context.store, "p", context.trust.promoters)
    assert [each.champion for each in found] == ["v1", "v2", "v3", "v4"]
    assert entries_since(context.store, "p", context.trust.promoters, 2, entry.sequence) == [entry]
    assert len(check(context)) == len(objects)


def test_promoters_race_past_a_foreign_object_into_one_history(context: PromotionContext) -> None:
    moving(context, "v0", None)()
    for number in (2, 5):
        overwrite(context.store, entry_key("p", number), b"{}")
    together([moving(context, f"v{number}", ANY) for number in range(8)])
    found = entries_since(context.store, "p", context.trust.promoters)
    assert [entry.sequence for entry in found] == [1, 3, 4, 6, 7, 8, 9, 10, 11]
    assert len(check(context)) == 2


@pytest.mark.parametrize("alias", [b"{}", b"", b"\xff", b" " * (2 << 20)])
def test_a_foreign_alias_is_brought_back_to_the_last_entry(context: PromotionContext, alias: bytes) -> None:
    overwrite(context.store, alias_key("p"), alias)
    assert finish_alias_update(context.store, "p", context.trust.promoters) is None
    moving(context, "v1", None)()
    moving(context, "v2", "v1")()
    overwrite(context.store, alias_key("p"), alias)
    assert champion_is_refused(context)
    assert moving(context, "v3", "v2")().sequence == 3
    assert champion(context) == "v3"
    assert check(context) == []


def champion_is_refused(context: PromotionContext) -> bool:
    try:
        champion(context)
    except (Unsigned, TooLarge):
        return True
    return False


def test_a_history_with_a_changed_entry_is_not_read_as_a_shorter_one(context: PromotionContext) -> None:
    for number in range(1, 5):
        moving(context, f"v{number}", ANY)()
    for number in (2, 4):
        key = entry_key("p", number)
        whole = context.store.read(key).data
        for data in (b"{}", None):
            overwrite(context.store, key, data)
            with pytest.raises(IntegrityError, match="not whole"):
                entries_since(context.store, "p", context.trust.promoters)
        overwrite(context.store, key, whole)


def test_keys_that_are_no_entries_are_harmless(context: PromotionContext) -> None:
    moving(context, "v1", None)()
    for key in ("00000002.json.bak", "x.json", "00000002/x", "٠٠٠٠٠٠٠٢.json"):
        overwrite(context.store, f"history/p/{key}", b"x")
    assert moving(context, "v2", "v1")().sequence == 2
    assert [each.champion for each in entries_since(context.store, "p", context.trust.promoters)] == ["v1", "v2"]


def test_a_new_key_is_taken_beside_the_old_one_and_a_strange_one_is_not(context: PromotionContext) -> None:
    new = Signer.new()
    both = VerifyingKeys([context.signer.public, new.public])
    moving(context, "v1", None)()
    moving(replace(context, signer=new, trust=replace(context.trust, promoters=both)), "v2", "v1")()
    assert check_history(context.store, "p", both) == []
    with pytest.raises(Unsigned):
        read_champion(context.store, "p", context.trust.promoters)
    assert check_history(context.store, "p", VerifyingKeys([new.public]))


def test_the_manifest_says_who_made_it(context: PromotionContext) -> None:
    manifest = publish_version(context, tables.flowers(), FLOWERS)
    assert manifest.author == "trainer"
    assert len(manifest.predictions) == 64


def test_a_rollback_goes_only_to_what_served_and_from_what_serves(context: PromotionContext) -> None:
    one, two, three = (published(context, seed) for seed in range(3))
    for name in (one, two):
        promote(context, "p", name, "a test", then, force=True)
    for to, words in ((three, "never served"), (two, "serves now")):
        with pytest.raises(NoPreviousChampion, match=words):
            rollback(context, "p", "x", then, to=to)
    with pytest.raises(AliasMoved):
        rollback(context, "p", "x", then, to=two, expect="garbage")
    with pytest.raises(AliasMoved):
        rollback(context, "p", "x", then, to=one, expect=one)
    assert rollback(context, "p", "x", then, to=one, expect=two).previous == two
    assert champion(context) == one
    assert check(context) == []
