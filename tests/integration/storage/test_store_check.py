"""`podium check-store` accepts the stores of the other tests, and names what a store lacks."""

from __future__ import annotations

from typing import Any

from podium.storage.object_store import Store
from podium.storage.store_check import check_store


def test_the_stores_of_the_tests_have_what_is_needed(store: Store) -> None:
    assert [check for check in check_store(store) if not check.passed] == []


class Unconditional:
    """A client whose store ignores conditions of writes, as some do."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put_object(self, **arguments: Any) -> Any:
        return self._client.put_object(**{name: each for name, each in arguments.items() if not name.startswith("If")})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_store_that_ignores_conditions_is_found_out(store: Store) -> None:
    failed = [check for check in check_store(Store(Unconditional(store.client), store.bucket)) if not check.passed]
    assert [check.detail for check in failed] == ["it was accepted", "it was accepted", "8 succeeded", "8 succeeded"]
