"""Put constant load on a service to record what clients see while models are swapped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Self

from podium.local.http_client import Client

PAUSE_SECONDS = 0.002


class RequestLoad:
    """Clients that send the same record in a loop and collect the version of each response and every failure."""

    def __init__(self, client: Client, path: str, record: Mapping[str, float], clients: int = 3) -> None:
        self._client, self._path, self._record = client, path, record
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self.responses: list[tuple[float, str]] = []
        self.failures: list[str] = []

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                response = self._client.post_json(self._path, self._record)
            except OSError as error:
                self.failures.append(str(error))
                continue
            version = response.headers.get("x-model-version", "")
            if response.status != 200 or response.json()["version"] != version:
                self.failures.append(f"status {response.status}")
            self.responses.append((time.time(), version))
            time.sleep(PAUSE_SECONDS)

    def versions(self) -> list[str]:
        """Return the versions of the responses in chronological order."""
        return [version for _, version in sorted(self.responses)]

    def first_response(self, version: str) -> float | None:
        """Return the time of the first response of a version."""
        return next((moment for moment, responding in self.responses if responding == version), None)

    def wait_for_version(self, version: str, seconds: float) -> None:
        """Wait up to `seconds` for the first response of a version."""
        end = time.monotonic() + seconds
        while self.first_response(version) is None and time.monotonic() < end:
            time.sleep(0.02)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
