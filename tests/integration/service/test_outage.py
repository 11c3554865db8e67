"""Predictions continue while the store refuses, hangs, fails, truncates or resets; then the service catches up."""

from __future__ import annotations

import http.client
import http.server
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import start_service
from podium.registry.champion_alias import alias_key
from podium.registry.promotion import PromotionContext
from podium.settings import ROOT
from podium.storage.object_store import Store, digest
from tests import tables
from tests.conftest import Put
from tests.integration.service.test_swaps import Load, append_promotion

pytestmark = pytest.mark.slow

FAULTS = ("refuse", "hang", "500", "503", "truncate", "reset")
CALLS = {"list": "list-type=2", "alias": "/aliases/", "manifest": "manifest.json", "model": "/models/"}
PATH = "/projects/swap/predict"


class FaultyStore(http.server.ThreadingHTTPServer):
    """A proxy that forwards signed requests to S3, except those that the fault applies to."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        self.upstream, self.fault, self.part, self.hit = upstream.removeprefix("http://"), "", "", 0
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self, fault: str, part: str) -> None:
        self.over.clear()
        self.fault, self.part, self.hit = fault, part, 0

    def end(self) -> None:
        self.fault = ""
        self.over.set()

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyStore

    def do_GET(self) -> None:
        fault = self.server.fault if self.server.part in self.path else ""
        self.server.hit += bool(fault)
        if fault == "hang":
            self.server.over.wait(30)
        if fault in ("refuse", "hang"):
            return self._close()
        if fault in ("500", "503"):
            body = b"<Error><Code>InternalError</Code></Error>"
            return self._send(int(fault), [("Content-Type", "application/xml")], body, len(body))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            data = response.read()
            length = len(data) if self.command != "HEAD" else int(response.headers.get("Content-Length") or 0)
            kept = [pair for pair in response.getheaders() if pair[0].lower() not in ("content-length", "transfer-encoding")]
            cut = fault in ("truncate", "reset") and response.status == 200
            self._send(response.status, kept, data[: len(data) // 2] if cut else data, length)
            if cut:
                self._close(reset=fault == "reset")
        finally:
            upstream.close()

    do_HEAD = do_PUT = do_GET  # noqa: N815 - required by http.server

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def _close(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class Outage:
    """A service that uses the store through the proxy, three versions, and their expected predictions."""

    service: Client
    proxy: FaultyStore
    cache: Path
    digests: dict[str, str]
    expected: dict[str, Any]

    def next(self) -> str:
        """Return the version that is not in memory."""
        versions = list(self.digests)
        return versions[(versions.index(serving(self.service)) + 1) % len(versions)]


def serving(client: Client) -> str:
    return client.post_json(PATH, {"petal": 2.5, "sepal": 5.1}).headers["x-model-version"] or ""


@pytest.fixture(scope="module")
def outage(
    cloud: LocalCloud, cloud_context: PromotionContext, put_champion: Put, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outage]:
    manifests = [
        put_champion(tables.flowers(seed=seed), name="swap", target="kind", families=["linear", "lightgbm"], n_trials=1)
        for seed in (11, 12, 13)
    ]
    store = cloud_context.store
    digests = {m.version: digest(store.read(f"versions/swap/{m.version}/manifest.json").data) for m in manifests}
    folder, (port,) = tmp_path_factory.mktemp("outage"), free_ports(1)
    with FaultyStore(cloud.environment["AWS_ENDPOINT_URL_S3"]) as proxy:
        variables = {"AWS_ENDPOINT_URL_S3": proxy.url, "PODIUM_POLL_SECONDS": "0.3", "PODIUM_DASK_WORKERS": "0"}
        process = start_service({**cloud.environment, **variables}, port, folder)
        try:
            service, expected = Client(f"http://127.0.0.1:{port}"), {}
            for version in digests:
                append_promotion(cloud_context, version, digests[version])
                service.wait_until(lambda version=version: serving(service) == version, 30)
                expected[version] = service.post_json(PATH, {"petal": 2.5, "sepal": 5.1}).json()["predictions"]
            yield Outage(service, proxy, folder / "cache", digests, expected)
        finally:
            process.stop()
            proxy.end()
            proxy.shutdown()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_predictions_continue_and_the_service_catches_up(
    outage: Outage, cloud_context: PromotionContext, fault: str, call: str
) -> None:
    service, before, target = outage.service, serving(outage.service), outage.next()
    for path in outage.cache.glob("[0-9a-f]*"):
        if path.is_file():
            path.unlink()  # so that every file must be fetched
    outage.proxy.begin(fault, CALLS[call])
    try:
        with Load(service, outage.expected, 2) as load:
            append_promotion(cloud_context, target, outage.digests[target])
            service.wait_until(lambda: outage.proxy.hit > 0, 20)
            sent = load.requests
            service.wait_until(lambda: load.requests - sent > 200, 20)
        assert load.errors == []
        assert serving(service) == before
        assert service.get("/readyz").status == 200
    finally:
        outage.proxy.end()
    service.wait_until(lambda: serving(service) == target, 20)
    service.wait_until(lambda: not service.get("/status").json()["failures"], 20)


def stale(client: Client) -> bool:
    return bool(client.get("/status").json()["store"]["stale_since"])


@pytest.mark.parametrize("fetched", [False, True])
def test_a_start_without_the_store_serves_the_last_champion(
    outage: Outage, cloud: LocalCloud, cloud_context: PromotionContext, tmp_path: Path, fetched: bool
) -> None:
    """The cache is from an earlier run or from `podium champions`. It is verified again, and a modified cache is rejected."""
    last = serving(outage.service)
    (port,) = free_ports(1)
    variables = {"AWS_ENDPOINT_URL_S3": outage.proxy.url, "PODIUM_POLL_SECONDS": "0.3", "PODIUM_DASK_WORKERS": "0"}
    if fetched:
        command = [sys.executable, "-m", "podium.cli.main", "champions", str(tmp_path / "cache"), "swap"]
        command_output = subprocess.run(
            command, env={**cloud.environment, **variables}, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert last in command_output.stdout
    else:
        shutil.copytree(outage.cache, tmp_path / "cache")
    outage.proxy.begin("503", "/")
    try:
        process = start_service({**cloud.environment, **variables}, port, tmp_path)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            client.wait_until(lambda: client.post_json(PATH, {"petal": 2.5, "sepal": 5.1}).status == 200, 60)
            assert stale(client)
            response = client.post_json(PATH, {"petal": 2.5, "sepal": 5.1})
            assert (response.headers["x-model-version"], response.json()["predictions"]) == (last, outage.expected[last])
            outage.proxy.end()
            client.wait_until(lambda: not stale(client), 30)
        finally:
            process.stop()
        outage.proxy.begin("503", "/")
        for path in (tmp_path / "cache").glob("[0-9a-f]*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:-1] + b"x")
        process = start_service({**cloud.environment, **variables}, port, tmp_path)
        try:
            assert client.get("/readyz").status == 503
            assert client.post_json(PATH, {"petal": 2.5, "sepal": 5.1}).status in (404, 503)
        finally:
            process.stop()
    finally:
        outage.proxy.end()


STORE_PAGES = ("versions", "leaderboard.csv")


@pytest.fixture
def hanging_service(outage: Outage) -> Iterator[Client]:
    """A service whose store hangs and whose cache is empty."""
    for path in outage.cache.glob("[0-9a-f]*"):
        if path.is_file():
            path.unlink()
    outage.proxy.begin("hang", "/")
    try:
        yield outage.service
    finally:
        outage.proxy.end()
        outage.service.wait_until(lambda: not stale(outage.service), 30)


def test_pages_respond_in_time_while_the_store_hangs(hanging_service: Client) -> None:
    """Many concurrent requests must not block other pages."""

    def timed(path: str, accept: str = "*/*") -> tuple[int, float, str | None]:
        started = time.monotonic()
        response = hanging_service.request("GET", path, headers={"accept": accept})
        return response.status, time.monotonic() - started, response.headers["retry-after"]

    paths = [f"/projects/swap/{name}" for name in STORE_PAGES] * 8
    with ThreadPoolExecutor(len(paths) + 2) as threads:
        futures = [threads.submit(timed, path) for path in paths]
        futures.append(threads.submit(timed, "/projects/swap/versions", "text/html"))
        card = threads.submit(timed, "/projects/swap/card")
        for path in ("/", "/projects/swap", "/status", "/metrics", "/static/style.css", "/projects/swap/schema"):
            assert timed(path)[0] == 200
        assert hanging_service.post_json(PATH, {"petal": 2.5, "sepal": 5.1}).status == 200
        for future in futures:
            status, seconds, retry = future.result()
            assert (status, bool(retry)) == (503, True)
            assert seconds < 5
        assert card.result()[0] == 200  # without the approval
        assert card.result()[1] < 5


def test_a_hanging_store_is_reported_as_stale_and_down(hanging_service: Client) -> None:
    assert hanging_service.get("/readyz").status == 200
    hanging_service.wait_until(lambda: "stale_since" in hanging_service.get("/readyz").json(), 15)
    hanging_service.wait_until(lambda: "store_up 0.0" in hanging_service.get("/metrics").text, 30)
    last = re.search(r"(?m)^store_last_success_timestamp_seconds (\S+)", hanging_service.get("/metrics").text)
    assert last and time.time() - 60 < float(last[1]) < time.time()
    error = hanging_service.get("/status").json()["store"]["error"]
    assert error.startswith("store-unavailable: ")
    assert "127.0.0.1" not in hanging_service.get("/status").text
    assert "Object store unreachable since" in hanging_service.request("GET", "/status", headers={"accept": "text/html"}).text


def test_an_unsigned_alias_does_not_affect_readiness(outage: Outage, cloud_store: Store) -> None:
    service, key = outage.service, alias_key("never-existed")
    cloud_store.create(key, b"{}")
    try:
        service.wait_until(lambda: service.get("/status").json()["rejected_aliases"]["count"] == 1, 20)
        assert service.get("/readyz").status == 200
        assert service.get("/v2/health/ready").status == 200
        assert service.get("/projects/never-existed").status == 404
        assert "never-existed" not in service.get("/status").json()["failures"]
        assert "never-existed" not in service.get("/metrics").text
        assert "never-existed" in service.request("GET", "/status", headers={"accept": "text/html"}).text
    finally:
        cloud_store.delete(key)
    service.wait_until(lambda: service.get("/status").json()["rejected_aliases"]["count"] == 0, 20)


def test_a_browser_that_reloads_a_result_is_redirected_to_the_form(outage: Outage) -> None:
    for path in ("predict", "batch", "predict.html", "batch.html"):
        response = outage.service.request("GET", f"/projects/swap/{path}", headers={"accept": "text/html,*/*;q=0.8"})
        assert (response.status, response.headers["location"]) == (303, "/projects/swap")
    record = outage.service.get("/projects/swap/predict?petal=2.5&sepal=5.1")
    assert (record.status, record.json()["version"]) == (200, serving(outage.service))


def test_the_fast_path_counts_its_rows(outage: Outage) -> None:
    def rows() -> float:
        match = re.search(r'batch_rows_total{model_name="swap"} (\S+)', outage.service.get("/metrics").text)
        return float(match[1]) if match else 0.0

    before = rows()
    for _ in range(5):
        outage.service.post_json(PATH, {"petal": 2.5, "sepal": 5.1})
    assert rows() - before == 5
