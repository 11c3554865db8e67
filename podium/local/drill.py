"""`podium drill`: break a replica of one's own installation in the ways that happen, and report what its clients see.

The replica runs on this machine, with the champions of the configured bucket, from which it reads through a proxy that can
fail. It writes nothing: the inbox and the prediction log are off.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from podium.local.check_report import CheckReport
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.request_load import RequestLoad
from podium.local.services import start_service
from podium.registry.champion_alias import read_champion
from podium.registry.loading import load_manifest, load_model
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer, VerifyingKeys
from podium.storage.object_store import StoreError

READY_SECONDS, POLL_SECONDS, RECOVERY_SECONDS = 120.0, 1.0, 30.0
ENDINGS = {"up": "passes", "refused": "refuses connections", "hanging": "accepts connections and never answers"}
Mode = Literal["up", "refused", "hanging"]


class StoreProxy:
    """An HTTP proxy for the way to the object store, also for TLS; `mode` decides how it fails."""

    def __init__(self) -> None:
        self.mode: Mode = "up"
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open = set[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def fail(self, mode: Mode) -> None:
        """Change the mode; connections that are open are closed."""
        self.mode = mode
        for link in list(self._open):
            link.close()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.mode == "refused":
                client.close()
                continue
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                head = client.recv(65536)
                if self.mode == "up" and head:
                    self._relay(client, head)
                while self.mode == "hanging":
                    time.sleep(0.1)
            except OSError:
                pass
        self._open.discard(client)

    def _relay(self, client: socket.socket, head: bytes) -> None:
        """Connect to the host that the first line names, and pass bytes both ways until one side ends."""
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        address = target.removeprefix("http://").split("/", 1)[0]
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port or 80)), timeout=10) as upstream:
            self._open.add(upstream)
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(head)
            while self.mode == "up":
                for readable in select.select([client, upstream], [], [], 0.2)[0]:
                    data = readable.recv(65536)
                    if not data:
                        return
                    (upstream if readable is client else client).sendall(data)
            self._open.discard(upstream)


class Drill:
    """The faults, one after another, under a constant load of valid records."""

    def __init__(self, report: CheckReport, context: PromotionContext, project: str, seconds: float) -> None:
        self.report, self.context, self.project, self.seconds = report, context, project, seconds

    def run(self, environment: Mapping[str, str], folder: Path) -> None:
        """Start the replica, and inject the faults. Raises StoreError, DidNotStart."""
        with ExitStack() as stack:
            proxy = StoreProxy()
            stack.callback(proxy.close)
            (port,) = free_ports(1)
            settings = {
                "HTTP_PROXY": proxy.url,
                "HTTPS_PROXY": proxy.url,
                "NO_PROXY": "",
                "PODIUM_LOG_KEY": "",
                "PODIUM_API_KEYS": "{}",
                "PODIUM_ALLOWED_HOSTS": '["127.0.0.1"]',
                "PODIUM_DASK_ADDRESS": "",
                "PODIUM_INBOX_POLL_SECONDS": "0",
                "PODIUM_POLL_SECONDS": str(POLL_SECONDS),
                "PODIUM_DASK_WORKERS": "0",
            }
            proxies = ("http_proxy", "https_proxy", "no_proxy")
            variables = {name: value for name, value in environment.items() if name.lower() not in proxies}
            process = start_service({**variables, **settings}, port, folder, workers=2)
            stack.callback(process.stop)
            client = Client(f"http://127.0.0.1:{port}")
            started = time.monotonic()
            client.wait_until(lambda: client.get("/readyz").status == 200, READY_SECONDS)
            self.report.figure("seconds_until_ready", time.monotonic() - started)
            record = client.get("/openapi.json").json()["components"]["schemas"][f"record-{self.project}"]["examples"][0]
            self._store_fails(proxy, client, record, "refused")
            self._store_fails(proxy, client, record, "hanging")
            self._worker_is_killed(process, client, record)
            self._event_is_lost(client)
            proxy.fail("refused")
            process.stop()
            self._starts_without_the_store(variables | settings, folder, record)
        self._version_is_damaged()

    def _load(self, client: Client, record: Mapping[str, Any]) -> RequestLoad:
        return RequestLoad(client, f"/projects/{self.project}/predict", record, 2)

    def _store_fails(self, proxy: StoreProxy, client: Client, record: Mapping[str, Any], mode: Mode) -> None:
        with self._load(client, record) as load:
            proxy.fail(mode)
            time.sleep(self.seconds)
            noticed = "stale_since" in client.get("/readyz").json()
            proxy.fail("up")
            seconds = self._seconds_until(lambda: "stale_since" not in client.get("/readyz").json())
        answers = f"{len(load.responses):,} answers, {len(load.failures)} failures in {self.seconds:g} s"
        self.report.check(not load.failures and bool(load.responses), f"the object store {ENDINGS[mode]}: {answers}")
        self.report.check(noticed, "  /readyz says since when it is away")
        self.report.check(seconds is not None, f"  recovered {_seconds(seconds)} after it came back")

    def _worker_is_killed(self, process: Process, client: Client, record: Mapping[str, Any]) -> None:
        with self._load(client, record) as load:
            time.sleep(1)
            pids = {worker["pid"] for worker in client.get("/status.json").json()["workers"]}
            os.kill(max(pids), signal.SIGKILL)
            seconds = self._seconds_until(lambda: len(self._pids(client) - {max(pids)}) >= len(pids))
        self.report.figure("connections_of_the_killed_worker_that_failed", len(load.failures))
        self.report.check(seconds is not None, f"one of {len(pids)} workers is killed: replaced {_seconds(seconds)} later")
        answers = f"{len(load.responses):,} answers, {len(load.failures)} connections were reset"
        self.report.check(len(load.failures) <= 2, f"  {answers}")

    @staticmethod
    def _pids(client: Client) -> set[int]:
        try:
            return {worker["pid"] for worker in client.get("/status.json").json()["workers"]}
        except OSError:
            return set()

    def _event_is_lost(self, client: Client) -> None:
        """No event reaches this replica: it has to look by itself."""
        before = self._checked_at(client)
        seconds = self._seconds_until(lambda: self._checked_at(client) > before)
        text = f"no event arrives: the replica looks for champions by itself, {_seconds(seconds)} later"
        self.report.check(seconds is not None, text)

    @staticmethod
    def _checked_at(client: Client) -> str:
        return min(str(worker["checked_at"]) for worker in client.get("/status.json").json()["workers"])

    def _starts_without_the_store(self, environment: Mapping[str, str], folder: Path, record: Mapping[str, Any]) -> None:
        (port,) = free_ports(1)
        started = time.monotonic()
        process = start_service(environment, port, folder)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            seconds = self._seconds_until(lambda: client.get("/readyz").status == 200)
            answered = client.post_json(f"/projects/{self.project}/predict", record).status == 200
        finally:
            process.stop()
        self.report.check(
            seconds is not None and answered,
            f"a restart while the object store is away: answers from the cache {_seconds(time.monotonic() - started)} later",
        )

    def _version_is_damaged(self) -> None:
        """The manifest is signed by another key, and a model file differs from its manifest in one bit."""
        trust, fetch = self.context.trust, self.context.fetch
        entry = read_champion(self.context.store, self.project, trust.promoters)
        assert entry and entry.champion and entry.manifest_sha256
        version = self.project, entry.champion, entry.manifest_sha256
        manifest = load_manifest(*version, fetch, trust.trainers)

        def damaged(key: str, sha256: str, max_bytes: int) -> bytes:
            data = bytearray(fetch(key, sha256, max_bytes))
            data[len(data) // 2] ^= 1
            return bytes(data)

        self._is_refused("a model file with one wrong bit", lambda: load_model(manifest, manifest.champion, damaged))
        other = VerifyingKeys([Signer.new().public])
        self._is_refused("a version that another key signed", lambda: load_manifest(*version, fetch, other))

    def _is_refused(self, fault: str, load: Callable[[], object]) -> None:
        try:
            load()
        except StoreError as error:
            return self.report.check(True, f"{fault}: refused ({error})")
        self.report.check(False, f"{fault}: it was accepted")

    @staticmethod
    def _seconds_until(condition: Callable[[], bool]) -> float | None:
        started = time.monotonic()
        while time.monotonic() - started < RECOVERY_SECONDS:
            try:
                if condition():
                    return time.monotonic() - started
            except (OSError, KeyError, ValueError):
                pass
            time.sleep(0.1)
        return None


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def run_drill(context: PromotionContext, project: str, seconds: float, as_json: bool) -> int:
    """Run all faults and print the results; return 0 if the installation passed. Raises StoreError, DidNotStart."""
    if read_champion(context.store, project, context.trust.promoters) is None:
        raise StoreError(f"{project} has no champion in {context.store.location}; see `podium models list`")
    report = CheckReport()
    with tempfile.TemporaryDirectory(prefix="podium-drill-") as folder:
        Drill(report, context, project, seconds).run(os.environ, Path(folder))
    report.print_summary(as_json)
    return 1 if report.failed else 0
