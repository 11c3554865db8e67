"""The commands of the compose file as processes: store, table, training, Dask, two replicas, and the proxy if installed."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.services import breast_cancer
from podium.settings import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

COMPOSE = ROOT / "deploy" / "compose"
PROJECT = "/projects/breast-cancer"
SCRIPTS = Path(sysconfig.get_path("scripts"))
ENTRYPOINTS = {
    "s3": [str(SCRIPTS / "weed")],
    "train": [str(SCRIPTS / "luigi"), "--module", "luigi_tasks"],
    "table": [sys.executable, "-c"],
}
SERVE = [sys.executable, "-m", "service", "--host", "127.0.0.1", "--port", "8000"]


class Stack:
    """The services of the compose file; each name of a host is a port on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "podium.cli.main", "keys", "new", "--all", "--json"]
        self.secrets: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        self.services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
        names = ["s3:8333", "dask-scheduler:8786", "service-1:8000", "service-2:8000", "proxy:443"]
        *ports, self.first_free = free_ports(len(names) + 1)
        self.ports = dict(zip(names, ports, strict=True))
        self.processes: dict[str, Process] = {}

    def here(self, text: object) -> str:
        """Return a text with its variables, and with the addresses on loopback."""
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: self.secrets.get(found[1], ""), str(text))
        for name, port in self.ports.items():
            text = text.replace(name, f"127.0.0.1:{port}")
        return re.sub(r"(^|=)(s3|dask-scheduler)$", r"\g<1>127.0.0.1", text)

    def environment(self, name: str) -> dict[str, str]:
        variables = {key: self.here(value) for key, value in self.services[name].get("environment", {}).items()}
        own = {"PODIUM_CACHE": str(self.folder / name / "cache"), "PODIUM_ALLOWED_HOSTS": '["127.0.0.1", "localhost"]'}
        if "PODIUM_JOURNAL" in variables:
            own["PODIUM_JOURNAL"] = str(self.folder / name / "journal")
        return {**os.environ, **variables, **own}

    def command(self, name: str) -> list[str]:
        words = [self.here(word) for word in self.services[name].get("command", [])]
        if name.startswith("service"):
            return [*SERVE[:-1], str(self.ports[f"{name}:8000"])]
        if words and words[0] == "dask":
            port = ["--port", str(self.ports["dask-scheduler:8786"])]
            at = words.index("--port") if "--port" in words else None
            words[0] = str(SCRIPTS / "dask")
            return words if at is None else [*words[:at], *port, *words[at + 2 :]]
        return [*ENTRYPOINTS[name], *words]

    def start(self, name: str, *more: str) -> None:
        log = self.folder / f"{name}.log"
        self.processes[name] = Process([*self.command(name), *more], log, self.environment(name))

    def run(self, name: str, *more: str) -> None:
        subprocess.run(
            [*self.command(name), *more], env=self.environment(name), cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )

    def client(self, name: str) -> Client:
        return Client(f"http://127.0.0.1:{self.ports[f'{name}:8000']}")

    def wait_ready(self, name: str) -> None:
        client = self.client(name)
        client.wait_until(lambda: self._is_ready(client), 90)

    @staticmethod
    def _is_ready(client: Client) -> bool:
        try:
            return client.get("/readyz").status == 200
        except OSError:
            return False

    def stop(self) -> None:
        for process in reversed(list(self.processes.values())):
            process.stop(5)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("compose"))
    with ExitStack() as cleanup:
        cleanup.callback(started.stop)
        s3_port = started.ports["s3:8333"]
        names = (
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
        )
        others = [
            f"-{name}={port}" for name, port in zip((*names, "admin.port", "admin.port.grpc"), free_ports(9), strict=True)
        ]
        data = started.folder / "data"
        data.mkdir()
        started.services["s3"]["command"] = [
            *(
                word.replace("-dir=/data", f"-dir={data}").replace("8333", str(s3_port))
                for word in started.services["s3"]["command"]
            ),
            *(*others, "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=64"),
        ]
        started.start("s3")
        started.processes["s3"].wait_for(f"http://127.0.0.1:{s3_port}/", 60)
        started.run("table")
        started.run("train", "--budget", "5s")
        started.start("dask-scheduler")
        started.start("dask-worker")
        for name in ("service-1", "service-2"):
            started.start(name)
        for name in ("service-1", "service-2"):
            started.wait_ready(name)
        yield started


def key(stack: Stack) -> dict[str, str]:
    return {"x-api-key": json.loads(stack.secrets["PODIUM_API_KEYS"])["client"], "content-type": "application/json"}


def test_both_replicas_predict_over_the_cluster(stack: Stack) -> None:
    rows = json.loads(breast_cancer().drop(columns="diagnosis").head(50).to_json(orient="records"))
    body = json.dumps({"records": rows}).encode()
    answers = []
    for name in ("service-1", "service-2"):
        client = stack.client(name)
        assert client.post(f"{PROJECT}/predict", body, {"content-type": "application/json"}).status == 401
        client.wait_until(lambda client=client: status(client)["dask"]["mode"] == "cluster", 60)  # type: ignore[misc]
        answers.append(client.post(f"{PROJECT}/predict", body, key(stack)).json()["predictions"])
        state = status(client)["dask"]
        assert (state["batches"], state["fallbacks"]) == (1, 0), state
    assert answers[0] == answers[1] and len(answers[0]) == 50


def status(client: Client) -> Any:
    return client.get("/status.json").json()


@pytest.mark.skipif(not shutil.which("caddy"), reason="caddy is not installed")
def test_a_rolling_restart_behind_the_proxy_fails_no_request(stack: Stack, tmp_path: Path) -> None:
    port = stack.ports["proxy:443"]
    text = stack.here((COMPOSE / "Caddyfile").read_text()).replace("localhost {", f"localhost:{port} {{")
    (tmp_path / "Caddyfile").write_text(text.replace("admin off", "admin off\n\tauto_https disable_redirects"))
    command = [str(shutil.which("caddy")), "run", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    environment = {**stack.environment("service-1"), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    stack.processes["proxy"] = Process(command, tmp_path / "caddy.log", environment)
    record = breast_cancer().drop(columns="diagnosis").iloc[0].to_json().encode()
    context = ssl._create_unverified_context()  # Caddy's own authority
    counts, stop = {"answered": 0, "failed": 0}, threading.Event()

    def request() -> int:
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
        try:
            connection.request("POST", f"{PROJECT}/predict", record, key(stack))
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def load() -> None:
        while not stop.is_set():
            counts["answered" if request() == 200 else "failed"] += 1
            time.sleep(0.02)

    Client.wait_until(lambda: request() == 200, 30)
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for name in ("service-1", "service-2"):
            stack.processes[name].stop(60)
            stack.start(name)
            stack.wait_ready(name)
            time.sleep(3)  # the proxy's health checks see it
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert counts["failed"] == 0 and counts["answered"] > 100, counts
