"""The audit log under races, crashes and foreign objects, on moto and on SeaweedFS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from podium.registry.audit_entry import AuditEntry, GateResult
from podium.registry.audit_log import (
    AliasMoved,
    append,
    check_history,
    entries_since,
    entry_key,
    finish_alias_update,
    read_history,
)
from podium.registry.champion_alias import alias_key, read_champion
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer, Unsigned, VerifyingKeys
from podium.registry.versions import (
    IntegrityError,
)
from podium.storage.object_store import Store, StoreError, TooLarge, digest
from tests.integration.registry.test_promotion import champion, check


def test_a_long_gate_detail_does_not_make_an_entry_too_large(context: PromotionContext) -> None:
    gate = GateResult(name="loads", passed=False, detail="\ud800" + "q" * (2 << 20))
    fields = {"action": "refuse", "version": "v1", "champion": None, "manifest_sha256": None, "previous": None}
    event = {**fields, "by": "ann", "reason": "x", "at": "now", "evidence": (gate,)}
    append(context.store, "p", context.signer, context.trust.promoters, lambda _: event)
    assert check_history(context.store, "p", context.trust.promoters) == []
    with pytest.raises(StoreError, match="too large"):
        append(context.store, "p", context.signer, context.trust.promoters, lambda _: {**event, "reason": "r" * (2 << 20)})
    assert check_history(context.store, "p", context.trust.promoters) == []


def together(calls: list[Callable[[], object]]) -> list[object]:
    """Call all at once; return what each returned or raised."""
    outcomes: list[object] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(index: int) -> None:
        barrier.wait()
        try:
            outcomes[index] = calls[index]()
        except StoreError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


ANY = "*"


def promotion(context: PromotionContext, version: str, expect: str | None) -> Callable[[], AuditEntry]:
    """Return the last step of a promotion, without the gates."""

    def build(head: AuditEntry | None) -> dict[str, Any]:
        current = head.champion if head else None
        if expect not in (ANY, current):
            raise AliasMoved(f"lost to number {head.sequence if head else 0}")
        fields = {"version": version, "champion": version, "manifest_sha256": "0" * 64, "previous": current}
        return {"action": "promote", **fields, "by": version, "reason": "race", "at": "now"}

    return lambda: append(context.store, "p", context.signer, context.trust.promoters, build)


@pytest.mark.slow
def test_one_of_fifty_concurrent_promotions_wins(context: PromotionContext) -> None:
    outcomes = together([promotion(context, f"v{number}", None) for number in range(50)])
    winners = [outcome for outcome in outcomes if isinstance(outcome, AuditEntry)]
    assert len(winners) == 1
    assert [str(outcome) for outcome in outcomes if not isinstance(outcome, AuditEntry)] == ["lost to number 1"] * 49
    assert champion(context) == winners[0].champion
    assert check(context) == []


def test_concurrent_promotions_without_expectation_make_one_linear_log(context: PromotionContext) -> None:
    outcomes = together([promotion(context, f"v{number}", ANY) for number in range(12)])
    assert sorted(entry.sequence for entry in outcomes if isinstance(entry, AuditEntry)) == list(range(1, 13))
    assert check(context) == []


class Crash(Exception):
    """The simulated end of the process."""


class CrashingClient:
    """A client that crashes before or after its n-th write."""

    def __init__(self, client: Any, number: int, after: bool) -> None:
        self._client, self._writes_left, self._after = client, number, after

    def put_object(self, **arguments: Any) -> Any:
        self._writes_left -= 1
        if self._writes_left == 0 and not self._after:
            raise Crash
        answer = self._client.put_object(**arguments)
        if self._writes_left == 0:
            raise Crash
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupted_promotion_is_finished_by_the_next(context: PromotionContext, number: int, after: bool) -> None:
    promotion(context, "v1", None)()
    crashing = replace(context, store=Store(CrashingClient(context.store.client, number, after), context.store.bucket))
    with pytest.raises(Crash):
        promotion(crashing, "v2", "v1")()
    entry = finish_alias_update(context.store, "p", context.trust.promoters)
    assert entry is not None
    assert entry.champion == ("v2" if (number, after) != (1, False) else "v1")
    assert champion(context) == entry.champion
    assert promotion(context, "v3", entry.champion)().champion == "v3"
    assert check(context) == []


def overwrite(store: Store, key: str, data: bytes | None) -> None:
    if data is None:
        store.client.delete_object(Bucket=store.bucket, Key=key)
    else:
        store.client.put_object(Bucket=store.bucket, Key=key, Body=data)


def edited(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}, indent=1).encode()


def test_every_manipulation_of_the_log_is_detected(context: PromotionContext) -> None:
    for number in range(1, 5):
        promotion(context, f"v{number}", ANY)()
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
        "reset the alias": {alias_key("p"): third},
        "append an unsigned entry": {entry_key("p", 5): edited(last, sequence=5)},
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
    """Objects that an attacker without a key could write under the next number."""
    first, last = (data for _, data in read_history(context.store, "p")[:2])
    document = {**json.loads(last), "sequence": 3, "previous_entry": None}
    other = {**document, "project": "q"}
    return {
        "empty": b"",
        "not JSON": b"\xff{",
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
        promotion(context, f"v{number}", ANY)()
    objects = foreign(context)
    for number, data in enumerate(objects.values(), 3):
        overwrite(context.store, entry_key("p", number), data)
    assert finish_alias_update(context.store, "p", context.trust.promoters) == read_champion(
        context.store, "p", context.trust.promoters
    )
    entry = promotion(context, "v3", "v2")()
    assert (entry.sequence, champion(context)) == (3 + len(objects), "v3")
    assert promotion(context, "v4", "v3")().sequence == entry.sequence + 1
    entries = entries_since(context.store, "p", context.trust.promoters)
    assert [entry.champion for entry in entries] == ["v1", "v2", "v3", "v4"]
    assert entries_since(context.store, "p", context.trust.promoters, 2, entry.sequence) == [entry]
    assert len(check(context)) == len(objects)


def test_concurrent_promotions_skip_foreign_objects(context: PromotionContext) -> None:
    promotion(context, "v0", None)()
    for number in (2, 5):
        overwrite(context.store, entry_key("p", number), b"{}")
    together([promotion(context, f"v{number}", ANY) for number in range(8)])
    entries = entries_since(context.store, "p", context.trust.promoters)
    assert [entry.sequence for entry in entries] == [1, 3, 4, 6, 7, 8, 9, 10, 11]
    assert len(check(context)) == 2


@pytest.mark.parametrize("alias", [b"{}", b"", b"\xff", b" " * (2 << 20)])
def test_a_foreign_alias_is_replaced_by_the_last_entry(context: PromotionContext, alias: bytes) -> None:
    overwrite(context.store, alias_key("p"), alias)
    assert finish_alias_update(context.store, "p", context.trust.promoters) is None
    promotion(context, "v1", None)()
    promotion(context, "v2", "v1")()
    overwrite(context.store, alias_key("p"), alias)
    assert champion_is_rejected(context)
    assert promotion(context, "v3", "v2")().sequence == 3
    assert champion(context) == "v3"
    assert check(context) == []


def champion_is_rejected(context: PromotionContext) -> bool:
    try:
        champion(context)
    except (Unsigned, TooLarge):
        return True
    return False


def test_a_log_with_a_changed_entry_is_not_read_as_a_shorter_one(context: PromotionContext) -> None:
    for number in range(1, 5):
        promotion(context, f"v{number}", ANY)()
    for number in (2, 4):
        key = entry_key("p", number)
        whole = context.store.read(key).data
        for data in (b"{}", None):
            overwrite(context.store, key, data)
            with pytest.raises(IntegrityError, match="is incomplete"):
                entries_since(context.store, "p", context.trust.promoters)
        overwrite(context.store, key, whole)


def test_keys_that_are_not_entries_do_no_harm(context: PromotionContext) -> None:
    promotion(context, "v1", None)()
    for key in ("00000002.json.bak", "x.json", "00000002/x", "٠٠٠٠٠٠٠٢.json"):
        overwrite(context.store, f"history/p/{key}", b"x")
    assert promotion(context, "v2", "v1")().sequence == 2
    assert [entry.champion for entry in entries_since(context.store, "p", context.trust.promoters)] == ["v1", "v2"]


def test_a_rotated_key_is_accepted_and_an_unknown_one_is_not(context: PromotionContext) -> None:
    new = Signer.new()
    both = VerifyingKeys([context.signer.public, new.public])
    promotion(context, "v1", None)()
    promotion(replace(context, signer=new, trust=replace(context.trust, promoters=both)), "v2", "v1")()
    assert check_history(context.store, "p", both) == []
    with pytest.raises(Unsigned):
        read_champion(context.store, "p", context.trust.promoters)
    assert check_history(context.store, "p", VerifyingKeys([new.public]))


def test_a_history_of_a_retired_key_is_whole_and_cannot_be_continued_with_it(context: PromotionContext) -> None:
    old, new = context.signer, Signer.new()
    both = VerifyingKeys([old.public, new.public])
    for number in (1, 2):
        promotion(context, f"v{number}", ANY)()
    promotion(replace(context, signer=new, trust=replace(context.trust, promoters=both)), "v3", "v2")()
    keys = VerifyingKeys([new.public], [old.public])
    now = replace(context, signer=new, trust=replace(context.trust, promoters=keys))
    last = list(read_history(context.store, "p"))[-1][1]
    document = {**json.loads(last), "sequence": 4, "previous_entry": digest(last), "champion": "v9"}
    forged = json.dumps({**document, "signatures": old.sign(document)}).encode()

    def champions() -> list[str | None]:
        return [entry.champion for entry in entries_since(context.store, "p", keys)]

    assert (champions(), check_history(context.store, "p", keys)) == (["v1", "v2", "v3"], [])
    overwrite(context.store, entry_key("p", 4), forged)
    assert champions() == ["v1", "v2", "v3"]
    assert [error.partition(":")[0] for error in check_history(context.store, "p", keys)] == [entry_key("p", 4)]
    overwrite(context.store, alias_key("p"), forged)
    assert champions() == ["v1", "v2", "v3"]
    with pytest.raises(Unsigned):
        read_champion(context.store, "p", keys)
    assert promotion(now, "v4", "v3")().sequence == 5
    assert (champions(), champion(now)) == (["v1", "v2", "v3", "v4"], "v4")
    overwrite(context.store, entry_key("p", 4), None)
    assert check_history(context.store, "p", keys) == []
    second = context.store.read(entry_key("p", 2)).data
    document = {**json.loads(second), "champion": "v9"}
    overwrite(context.store, entry_key("p", 2), json.dumps({**document, "signatures": old.sign(document)}).encode())
    with pytest.raises(IntegrityError, match="is incomplete"):
        champions()
    assert check_history(context.store, "p", keys)
    overwrite(context.store, entry_key("p", 2), second)
    overwrite(context.store, alias_key("p"), None)
    assert finish_alias_update(context.store, "p", keys) and champion(now) == "v4"
