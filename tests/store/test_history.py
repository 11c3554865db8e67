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

from podium.data.read import read_csv
from podium.identity import second_person
from podium.learn.clean import from_parquet, to_parquet
from podium.learn.families import FAMILIES, Family
from podium.learn.publish import Claim
from podium.learn.whole import learn
from podium.project import ColumnOptions, Gates, Project, Rules
from podium.promotion import Desk, GateFailed, NothingBefore, promote, promote_in_turn, rollback
from podium.settings import BadRules, StoreSettings
from podium.store.history import (
    AliasMoved,
    Entry,
    Gate,
    alias_key,
    append,
    check_history,
    entries_since,
    entry_key,
    parse_entry,
    project_names,
    read_champion,
    read_history,
    repair,
)
from podium.store.s3 import Store, StoreError, TooLarge
from podium.store.signing import Keys, Signer, Unsigned
from podium.store.versions import Damaged, Manifest, NotPublished, describe, parse_manifest, publish, version_prefix
from tests import tables
from tests.conftest import publish_version
from tests.learn.test_panel import shops


def then() -> datetime:
    return datetime(2026, 1, 2, tzinfo=UTC)


FLOWERS = Project(name="p", data="s3://podium/x", target="kind", families=("linear",), budget=1)


def published(desk: Desk, seed: int) -> str:
    return publish_version(desk, tables.flowers(seed=seed), FLOWERS).version


def champion(desk: Desk) -> str | None:
    entry = read_champion(desk.store, "p", desk.trust.promoters)
    return entry.champion if entry else None


def check(desk: Desk) -> list[str]:
    return check_history(desk.store, "p", desk.trust.promoters)


def test_a_champion_moves_only_from_where_it_was_seen(desk: Desk) -> None:
    one, two, three = (published(desk, seed) for seed in (2, 3, 4))
    assert champion(desk) is None
    first = promote(desk, "p", one, "first", then, expect=None)
    assert (first.sequence, first.champion, first.previous, first.by, first.forced) == (1, one, None, "ann", False)
    second = promote(replace(desk, by="ben"), "p", two, "better", then, expect=one, force=True)
    assert (second.sequence, second.previous) == (2, one)
    for expect in (one, None):
        with pytest.raises(AliasMoved, match="since number 2, by ben"):
            promote(desk, "p", three, "late", then, expect=expect)
    assert promote(desk, "p", two, "again", then) == second
    assert champion(desk) == two
    assert project_names(desk.store) == ["p"]
    assert check(desk) == []


def test_what_was_never_published_is_not_promoted(desk: Desk) -> None:
    desk.store.create("versions/p/v1/models/linear.pkl", b"model")
    with pytest.raises(NotPublished):
        promote(desk, "p", "v1", "too early", then)
    assert champion(desk) is None


def test_rolling_back_goes_one_promotion_back_each_time(desk: Desk) -> None:
    one, two, three = (published(desk, seed) for seed in (2, 3, 4))
    with pytest.raises(NothingBefore):
        rollback(desk, "p", "nothing there", then)
    for version in (one, two, three):
        promote(desk, "p", version, "next", then, force=True)
    assert rollback(desk, "p", "three is bad", then).champion == two
    entry = rollback(desk, "p", "two as well", then)
    assert (entry.action, entry.champion, entry.previous, entry.sequence) == ("rollback", one, two, 5)
    with pytest.raises(NothingBefore, match="first champion"):
        rollback(desk, "p", "and one", then)
    assert rollback(desk, "p", "two was right", then, to=two).champion == two
    with pytest.raises(AliasMoved):
        rollback(desk, "p", "late", then, expect=three)
    assert check(desk) == []


def test_a_rollback_loads_what_it_goes_back_to(desk: Desk) -> None:
    one, two = (published(desk, seed) for seed in (2, 3))
    for version in (one, two):
        promote(desk, "p", version, "next", then, force=True)
    key = f"versions/p/{one}/models/linear.pkl"
    desk.store.replace(key, b"broken", desk.store.etag(key))
    with pytest.raises(StoreError, match="is not what was published"):
        rollback(desk, "p", "two is bad", then)
    assert champion(desk) == two


GATES = [
    ({"min_score": 0.5}, "ann", "min-score"),
    ({"most_bytes": 10}, "ann", "size"),
    ({"most_milliseconds": 1e-9}, "ann", "latency"),
    ({"second_person": True}, "trainer", "second-person"),
]


@pytest.mark.parametrize(("gates", "by", "failed"), GATES)
def test_a_failed_gate_refuses_and_is_written_down(desk: Desk, gates: dict[str, Any], by: str, failed: str) -> None:
    version = publish_version(desk, tables.flowers(), FLOWERS).version
    desk = replace(desk, by=by, rules=lambda _: Rules(gates=Gates.model_validate(gates)))
    with pytest.raises(GateFailed, match=failed) as refused:
        promote(desk, "p", version, "try", then)
    assert [each.name for each in refused.value.entry.evidence if not each.passed] == [failed]
    assert champion(desk) is None
    last = parse_entry(read_history(desk.store, "p")[-1][1], "p", desk.trust.promoters)
    assert (last.action, last.version, last.champion) == ("refuse", version, None)
    forced = promote(desk, "p", version, "the board said so", then, force=True)
    assert (forced.forced, forced.champion, forced.sequence) == (True, version, 2)
    assert check(desk) == []


def test_looking_first_writes_nothing(desk: Desk) -> None:
    version = published(desk, 2)
    entry = promote(desk, "p", version, "try", then, dry=True)
    assert (entry.action, entry.champion) == ("promote", version)
    assert {gate.name for gate in entry.evidence} >= {"golden-rows", "no-missing-predictions", "size"}
    assert read_history(desk.store, "p") == []
    assert champion(desk) is None


def test_a_worse_version_and_a_narrower_one_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    good = publish_version(desk, tables.flowers(600), FLOWERS).version
    promote(desk, "p", good, "first", then)
    monkeypatch.setitem(FAMILIES, "linear", Family(FAMILIES["linear"].build, FAMILIES["linear"].export, ({"strength": 1e-6},)))
    with pytest.raises(GateFailed, match="not-worse: difference"):
        promote(desk, "p", publish_version(desk, tables.flowers(600), FLOWERS).version, "worse", then)
    more = tables.flowers(600).rename(columns={"sepal": "colour"})
    with pytest.raises(GateFailed, match="column colour is new and required; column sepal is gone"):
        promote(desk, "p", publish_version(desk, more, FLOWERS).version, "narrower", then)
    assert champion(desk) == good


LOOSE = Gates(not_worse=False, compatible=False, most_bytes=1 << 40)


def test_a_manifest_cannot_switch_the_gates_off(desk: Desk) -> None:
    promote(desk, "p", publish_version(desk, tables.flowers(600), FLOWERS).version, "first", then)
    loose = FLOWERS.model_copy(update={"gates": LOOSE})
    narrower = tables.flowers(600).rename(columns={"sepal": "colour"})
    version = publish_version(desk, narrower, loose).version
    with pytest.raises(GateFailed, match="compatible: column colour is new and required"):
        promote(desk, "p", version, "loose", then)
    allowed = replace(desk, rules=lambda _: Rules(gates=LOOSE))
    assert promote(allowed, "p", version, "the promoter allows it", then).champion == version


def test_a_promoters_project_file_decides_and_without_one_the_defaults_do(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    settings = StoreSettings(projects=tmp_path)
    assert settings.rules_for("p") == Rules()
    assert Rules().gates.not_worse and Rules().gates.compatible
    (tmp_path / "p" / "project.toml").write_text('target = "y"\nmetric = "f1"\nseed = 3\n[gates]\nmin_score = 0.5')
    assert settings.rules_for("p") == Rules(gates=Gates(min_score=0.5), metric="f1", seed=3)
    (tmp_path / "p" / "project.toml").write_text("[gates]\nmin_scor = 0.5")
    with pytest.raises(BadRules, match=r"gates\.min_scor"):
        settings.rules_for("p")


def republished(desk: Desk, manifest: Manifest, version: str, files: dict[str, bytes], **changes: Any) -> str:
    """Another version of these files, signed by the trainer, as somebody with the trainer's key may make one."""
    kept = {name: desk.store.read(version_prefix("p", manifest.version) + name).data for name in manifest.files} | files
    changed = manifest.model_copy(update={"version": version, "files": describe(kept), "signatures": {}, **changes})
    publish(desk.store, changed, kept, desk.signer)
    return version


def test_a_stated_score_must_be_the_one_that_is_computed(desk: Desk) -> None:
    manifest = publish_version(desk, tables.flowers(600), FLOWERS)
    strict = replace(desk, rules=lambda _: Rules(gates=Gates(min_score=-0.001)))
    for turn, stated in enumerate((-0.0001, None, True, 1e300)):
        board = [{**row, "score_test": stated} for row in manifest.leaderboard]
        version = republished(desk, manifest, f"v{turn}", {}, leaderboard=board)
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
    with pytest.raises(Damaged):
        parse_manifest(data, honest.project, honest.version, Keys([signer.public]))


@pytest.fixture(scope="module")
def honest() -> Manifest:
    claim = Claim.now(datetime(2026, 1, 2, tzinfo=UTC), "0" * 24, "0" * 64, None)
    return learn(read_csv(tables.flowers(120).to_csv(index=False).encode()), FLOWERS, claim, "trainer")[0]


def test_second_person_needs_a_key_that_signed_the_version(signer: Signer, honest: Manifest) -> None:
    """A document that reads as another one is signed by nobody."""
    document = honest.model_dump(mode="json")
    keys = Keys([signer.public])
    signed = honest.model_copy(update={"signatures": signer.sign({**document, "format": "1"})})
    assert not second_person(signed, keys, "somebody else", signer).passed


def test_a_finding_of_any_length_leaves_the_history_readable(desk: Desk) -> None:
    gate = Gate(name="loads", passed=False, detail="\ud800" + "q" * (2 << 20))
    fields = {"action": "refuse", "version": "v1", "champion": None, "manifest": None, "previous": None}
    act = {**fields, "by": "ann", "reason": "x", "at": "now", "evidence": (gate,)}
    append(desk.store, "p", desk.signer, desk.trust.promoters, lambda _: act)
    assert check_history(desk.store, "p", desk.trust.promoters) == []
    with pytest.raises(StoreError, match="too large"):
        append(desk.store, "p", desk.signer, desk.trust.promoters, lambda _: {**act, "reason": "r" * (2 << 20)})
    assert check_history(desk.store, "p", desk.trust.promoters) == []


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def test_test_rows_that_are_not_the_versions_are_refused(desk: Desk) -> None:
    manifest = publish_version(desk, tables.flowers(600), FLOWERS)
    rows = from_parquet(desk.store.read(version_prefix("p", manifest.version) + "test.parquet").data)
    other = replace(rows.signature, target=replace(rows.signature.target, classes=(3, 2, 1)))
    huge = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["x" * (1 << 20)])})
    wrong = {
        "another target": to_parquet(replace(rows, signature=other)),
        "a class that the version does not know": to_parquet(replace(rows, target=rows.target + 7)),
        "ArrowInvalid": b"PAR1",
        "more than": parquet(huge),
        "take more than": parquet(huge, store_schema=False),
        "rows take more": parquet(huge.cast(pa.schema({"x": pa.dictionary(pa.int32(), pa.large_string())}))),
        "lists": parquet(pa.table({"x": [["a"]]})),
    }
    for turn, (words, data) in enumerate(wrong.items()):
        assert len(data) < 100_000
        version = republished(desk, manifest, f"v{turn}", {"test.parquet": data})
        with pytest.raises(GateFailed, match=f"test-rows: .*{words}"):
            promote(desk, "p", version, "other rows", then)


def test_a_second_person_has_another_key_and_another_name(desk: Desk) -> None:
    version = published(desk, 2)
    own = replace(desk, rules=lambda _: Rules(gates=Gates(second_person=True)))
    key = Signer.new()
    other = replace(own, signer=key, trust=replace(own.trust, promoters=Keys([desk.signer.public, key.public])))
    for wrong in (replace(own, by="somebody else"), replace(other, by=f"Trainer (key {'0' * 16})")):
        with pytest.raises(GateFailed, match="second-person: trained by trainer"):
            promote(wrong, "p", version, "by myself", then)
    assert promote(other, "p", version, "a second look", then).champion == version


def test_a_promotion_that_comes_second_is_judged_again_or_fails(desk: Desk) -> None:
    rivals = itertools.cycle([published(desk, seed) for seed in (3, 4)])
    version = published(desk, 2)
    left = [2]

    def fetch(key: str, sha256: str, max_bytes: int) -> bytes:
        if key.endswith("test.parquet") and left[0]:
            left[0] -= 1
            promote(desk, "p", next(rivals), "faster", then, force=True)
        return desk.fetch(key, sha256, max_bytes)

    raced = replace(desk, fetch=fetch, rules=lambda _: Rules(gates=LOOSE))
    entry = promote_in_turn(raced, "p", version, "in turn", then)
    assert (entry.champion, entry.sequence) == (version, 3)
    assert any(gate.name == "not-worse" for gate in entry.evidence) is False
    promote(desk, "p", next(rivals), "next", then, force=True)
    left[0] = 100
    with pytest.raises(AliasMoved):
        promote_in_turn(raced, "p", version, "in turn", then)
    assert check(desk) == []


def test_a_panel_does_not_go_back_in_time_unless_it_is_forced(desk: Desk) -> None:
    panel = {"entity": "shop", "time": "day", "steps": 2}
    own = Project(name="p", kind="panel", data="s3://podium/none", target="sold", panel=panel, budget=1, families=["linear"])  # type: ignore[arg-type]
    late, early = (publish_version(desk, shops(days=days), own).version for days in (40, 30))
    promote(desk, "p", late, "first", then)
    with pytest.raises(GateFailed, match="not-older: its data end at 2026-01-30, the champion's at 2026-02-09"):
        promote(desk, "p", early, "back", then)
    assert promote(desk, "p", early, "on purpose", then, force=True).forced


def test_an_equal_version_is_not_kept_out_by_chance(desk: Desk) -> None:
    promote(desk, "p", publish_version(desk, tables.flowers(600), FLOWERS).version, "first", then)
    fewer = tables.flowers(600).sample(frac=0.9, random_state=1)
    entry = promote(desk, "p", publish_version(desk, fewer, FLOWERS).version, "again", then)
    assert all(gate.passed for gate in entry.evidence)
    assert {"compatible", "not-worse"} <= {gate.name for gate in entry.evidence}


def test_a_version_that_leaves_a_column_out_is_compared(desk: Desk) -> None:
    promote(desk, "p", publish_version(desk, tables.flowers(600), FLOWERS).version, "first", then)
    without = FLOWERS.model_copy(update={"columns": {"sepal": ColumnOptions(ignore=True)}})
    entry = promote(desk, "p", publish_version(desk, tables.flowers(600), without).version, "simpler", then)
    (gate,) = (gate for gate in entry.evidence if gate.name == "not-worse")
    assert "on 120 test rows" in gate.detail and "not known" not in gate.detail


def test_a_refusal_says_why(desk: Desk) -> None:
    strict = replace(desk, rules=lambda _: Rules(gates=Gates(min_score=0.999)))
    with pytest.raises(GateFailed) as refused:
        promote(strict, "p", publish_version(desk, tables.flowers(240), FLOWERS).version, "try", then)
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


def moving(desk: Desk, version: str, expect: str | None) -> Callable[[], Entry]:
    """A promotion's last step, without the gates."""

    def draft(head: Entry | None) -> dict[str, Any]:
        standing = head.champion if head else None
        if expect not in (ANY, standing):
            raise AliasMoved(f"lost to number {head.sequence if head else 0}")
        fields = {"version": version, "champion": version, "manifest": "0" * 64, "previous": standing}
        return {"action": "promote", **fields, "by": version, "reason": "race", "at": "now"}

    return lambda: append(desk.store, "p", desk.signer, desk.trust.promoters, draft)


def test_of_fifty_promoters_at_once_one_wins_and_all_are_told(desk: Desk) -> None:
    outcomes = together([moving(desk, f"v{number}", None) for number in range(50)])
    winners = [outcome for outcome in outcomes if isinstance(outcome, Entry)]
    assert len(winners) == 1
    assert [str(outcome) for outcome in outcomes if not isinstance(outcome, Entry)] == ["lost to number 1"] * 49
    assert champion(desk) == winners[0].champion
    assert check(desk) == []


def test_promoters_that_expect_nothing_make_one_linear_history(desk: Desk) -> None:
    outcomes = together([moving(desk, f"v{number}", ANY) for number in range(12)])
    assert sorted(entry.sequence for entry in outcomes if isinstance(entry, Entry)) == list(range(1, 13))
    assert check(desk) == []


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
def test_who_dies_between_history_and_alias_is_repaired_by_the_next(desk: Desk, turn: int, after: bool) -> None:
    moving(desk, "v1", None)()
    dying = replace(desk, store=Store(Mortal(desk.store._client, turn, after), desk.store.bucket))
    with pytest.raises(Dies):
        moving(dying, "v2", "v1")()
    entry = repair(desk.store, "p", desk.trust.promoters)
    assert entry is not None
    assert entry.champion == ("v2" if (turn, after) != (1, False) else "v1")
    assert champion(desk) == entry.champion
    assert moving(desk, "v3", entry.champion)().champion == "v3"
    assert check(desk) == []


def overwrite(store: Store, key: str, data: bytes | None) -> None:
    if data is None:
        store._client.delete_object(Bucket=store.bucket, Key=key)
    else:
        store._client.put_object(Bucket=store.bucket, Key=key, Body=data)


def edited(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}, indent=1).encode()


def test_whatever_is_done_to_the_history_is_seen(desk: Desk) -> None:
    for number in range(1, 5):
        moving(desk, f"v{number}", ANY)()
    whole = dict(read_history(desk.store, "p"))
    alias = desk.store.read(alias_key("p")).data
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
    assert check(desk) == []
    for name, changes in attacks.items():
        for key, data in changes.items():
            overwrite(desk.store, key, data)
        assert check(desk), name
        for key in changes:
            overwrite(desk.store, key, alias if key == alias_key("p") else whole.get(key))
    assert check(desk) == []


def foreign(desk: Desk) -> dict[str, bytes]:
    """Objects that somebody without a key may put at the next number, by what they are."""
    first, last = (data for _, data in read_history(desk.store, "p")[:2])
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
        "of another project": json.dumps({**other, "signatures": desk.signer.sign(other)}).encode(),
        "of a bucket with the same keys": json.dumps({**document, "signatures": desk.signer.sign(document)}).encode(),
        "deep": b"[" * 100_000,
        "larger than any entry": b" " * (2 << 20),
    }


def test_a_foreign_object_at_the_next_number_is_skipped_and_reported(desk: Desk) -> None:
    for number in (1, 2):
        moving(desk, f"v{number}", ANY)()
    objects = foreign(desk)
    for number, data in enumerate(objects.values(), 3):
        overwrite(desk.store, entry_key("p", number), data)
    assert repair(desk.store, "p", desk.trust.promoters) == read_champion(desk.store, "p", desk.trust.promoters)
    entry = moving(desk, "v3", "v2")()
    assert (entry.sequence, champion(desk)) == (3 + len(objects), "v3")
    assert moving(desk, "v4", "v3")().sequence == entry.sequence + 1
    found = entries_since(desk.store, "p", desk.trust.promoters)
    assert [each.champion for each in found] == ["v1", "v2", "v3", "v4"]
    assert entries_since(desk.store, "p", desk.trust.promoters, 2, entry.sequence) == [entry]
    assert len(check(desk)) == len(objects)


def test_promoters_race_past_a_foreign_object_into_one_history(desk: Desk) -> None:
    moving(desk, "v0", None)()
    for number in (2, 5):
        overwrite(desk.store, entry_key("p", number), b"{}")
    together([moving(desk, f"v{number}", ANY) for number in range(8)])
    found = entries_since(desk.store, "p", desk.trust.promoters)
    assert [entry.sequence for entry in found] == [1, 3, 4, 6, 7, 8, 9, 10, 11]
    assert len(check(desk)) == 2


@pytest.mark.parametrize("alias", [b"{}", b"", b"\xff", b" " * (2 << 20)])
def test_a_foreign_alias_is_brought_back_to_the_last_entry(desk: Desk, alias: bytes) -> None:
    overwrite(desk.store, alias_key("p"), alias)
    assert repair(desk.store, "p", desk.trust.promoters) is None
    moving(desk, "v1", None)()
    moving(desk, "v2", "v1")()
    overwrite(desk.store, alias_key("p"), alias)
    assert champion_is_refused(desk)
    assert moving(desk, "v3", "v2")().sequence == 3
    assert champion(desk) == "v3"
    assert check(desk) == []


def champion_is_refused(desk: Desk) -> bool:
    try:
        champion(desk)
    except (Unsigned, TooLarge):
        return True
    return False


def test_a_history_with_a_changed_entry_is_not_read_as_a_shorter_one(desk: Desk) -> None:
    for number in range(1, 5):
        moving(desk, f"v{number}", ANY)()
    for number in (2, 4):
        key = entry_key("p", number)
        whole = desk.store.read(key).data
        for data in (b"{}", None):
            overwrite(desk.store, key, data)
            with pytest.raises(Damaged, match="not whole"):
                entries_since(desk.store, "p", desk.trust.promoters)
        overwrite(desk.store, key, whole)


def test_keys_that_are_no_entries_are_harmless(desk: Desk) -> None:
    moving(desk, "v1", None)()
    for key in ("00000002.json.bak", "x.json", "00000002/x", "٠٠٠٠٠٠٠٢.json"):
        overwrite(desk.store, f"history/p/{key}", b"x")
    assert moving(desk, "v2", "v1")().sequence == 2
    assert [each.champion for each in entries_since(desk.store, "p", desk.trust.promoters)] == ["v1", "v2"]


def test_a_new_key_is_taken_beside_the_old_one_and_a_strange_one_is_not(desk: Desk) -> None:
    new = Signer.new()
    both = Keys([desk.signer.public, new.public])
    moving(desk, "v1", None)()
    moving(replace(desk, signer=new, trust=replace(desk.trust, promoters=both)), "v2", "v1")()
    assert check_history(desk.store, "p", both) == []
    with pytest.raises(Unsigned):
        read_champion(desk.store, "p", desk.trust.promoters)
    assert check_history(desk.store, "p", Keys([new.public]))


def test_the_manifest_says_who_made_it(desk: Desk) -> None:
    manifest = publish_version(desk, tables.flowers(), FLOWERS)
    assert manifest.author == "trainer"
    assert len(manifest.predictions) == 64


def test_a_rollback_goes_only_to_what_served_and_from_what_serves(desk: Desk) -> None:
    one, two, three = (published(desk, seed) for seed in range(3))
    for name in (one, two):
        promote(desk, "p", name, "a test", then, force=True)
    for to, words in ((three, "never served"), (two, "serves now")):
        with pytest.raises(NothingBefore, match=words):
            rollback(desk, "p", "x", then, to=to)
    with pytest.raises(AliasMoved):
        rollback(desk, "p", "x", then, to=two, expect="garbage")
    with pytest.raises(AliasMoved):
        rollback(desk, "p", "x", then, to=one, expect=one)
    assert rollback(desk, "p", "x", then, to=one, expect=two).previous == two
    assert champion(desk) == one
    assert check(desk) == []
