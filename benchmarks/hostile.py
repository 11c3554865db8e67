"""Send malformed requests of every format to a service; check its responses, memory and health.

`python -m benchmarks.hostile [COUNT] [SEED]` exits with 1 if a guarantee of `docs/security.md` is violated.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.environment import publish_champion, running_service
from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.project import Project
from tests import tables
from tests.tables import RECORD

SECRET = "q7Zx9Secret"
"""Part of values that are sent; must not occur in error responses."""
MAX_GROWTH_BYTES, MAX_HEALTH_SECONDS = 300_000_000, 0.1
ODD_VALUES: list[Any] = [
    None, True, [], {}, [[]], {"a": {"b": []}}, "", SECRET, SECRET * 10_000, "\ud800", "\0", "=cmd()", "1e999", 10**400, 1e308,
    -0.0, 2**63, "NaN", "2022-13-45", "9999-12-31", "-5", "1_000", "٣", [SECRET], 0.1 + 0.2, -(10**18),
]  # fmt: skip
FRAGMENTS = [
    b"\0",
    b"\r\n",
    b"\r",
    b"\n",
    b"\xff\xfe",
    b'"',
    b"{",
    b"]",
    b",",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"[" * 200,
    b"%00",
]
QUERIES = [
    "",
    "?on_error=row",
    "?extra=keep",
    "?models=all",
    "?inputs=true",
    "?on_error=row&extra=keep&models=all",
    "?model=all",
]
ACCEPTS = ["*/*", "text/csv", "text/html", "application/vnd.apache.parquet", "image/png", "x"]
JSON, CSV = {"content-type": "application/json"}, {"content-type": "text/csv"}
PARQUET, GZIP = {"content-type": "application/vnd.apache.parquet"}, {"content-type": "application/gzip"}
Request = tuple[str, bytes, dict[str, str]]
"""Path, body and headers."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Insert, delete, replace or repeat bytes at random positions."""
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data = data[:position] + rng.choice(FRAGMENTS) + data[position:]
        elif kind == 1:
            data = data[:position] + data[position + rng.randint(1, 20) :]
        elif kind == 2:
            data = data[:position] + bytes([rng.randrange(256)]) + data[position + 1 :]
        else:
            data = data[:position] + data[: rng.randint(0, 200)] + data[position:]
    return data


def odd_record(rng: random.Random) -> Any:
    record: Any = dict(RECORD)
    for _ in range(rng.randint(1, 3)):
        record[rng.choice([*RECORD, f"x{rng.random()}", "__proto__", "\ud800", "prediction"])] = rng.choice(ODD_VALUES)
    shape = rng.randrange(5)
    records = [record] * rng.choice([1, 12])
    return [record, records, {"records": records}, list(record.values()), [list(record.values())] * 3][shape]


def from_json(rng: random.Random) -> Request:
    body = json.dumps(odd_record(rng)).encode()
    path = rng.choice(["/projects/mixed/predict", "/projects/mixed/batch", "/projects/mixed/predict.csv"])
    return (
        path + rng.choice(QUERIES),
        mutate(body, rng) if rng.random() < 0.5 else body,
        JSON,
    )


def from_tensors(rng: random.Random) -> Request:
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(v, str) else "FP64", "data": [v]}
        for name, v in RECORD.items()
    ]
    body: dict[str, Any] = {"id": "1", "inputs": inputs, "outputs": [{"name": "prediction"}], "parameters": {}}
    for _ in range(rng.randint(1, 3)):
        part = rng.choice([body, *inputs, body["outputs"][0]])
        key, value = rng.choice(["id", "parameters", "name", "shape", "datatype", "data"]), rng.choice(ODD_VALUES)
        part[key] = "a name" if key == "name" and SECRET in str(value) else value  # problems show names, never values
    data = json.dumps(body).encode()
    headers = dict(JSON)
    if rng.random() < 0.3:
        headers["inference-header-content-length"] = str(rng.choice([0, -1, len(data), 10**9, "x"]))
        data += rng.randbytes(20)
    return "/v2/models/mixed/infer", mutate(data, rng) if rng.random() < 0.3 else data, headers


def from_invocations(rng: random.Random) -> Request:
    form = rng.choice(["dataframe_split", "dataframe_records", "instances", "inputs", "x"])
    return "/invocations?project=mixed", json.dumps({form: odd_record(rng)}).encode(), JSON


def csv_text(rng: random.Random) -> bytes:
    header, row = ",".join(RECORD), ",".join(map(str, RECORD.values()))
    rows = [row.replace(str(rng.choice(list(RECORD.values()))), SECRET) for _ in range(rng.choice([1, 12, 200]))]
    return "\n".join([header, *rows]).encode()


def from_csv(rng: random.Random) -> Request:
    data, media = mutate(csv_text(rng), rng), "text/csv"
    if rng.random() < 0.3:
        data, media = gzip.compress(data), "application/gzip"
        data = mutate(data, rng) if rng.random() < 0.5 else data
    return "/projects/mixed/predict" + rng.choice(QUERIES), data, {"content-type": media}


def from_parquet(rng: random.Random) -> Request:
    columns: dict[str, Any] = {name: [value] * 20 for name, value in RECORD.items()}
    columns[rng.choice([*RECORD, "extra"])] = rng.choice(
        [[SECRET] * 20, [[1]] * 20, [b"\xff"] * 20, [None] * 20, [{"a": 1}] * 20]
    )
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    data = file.getvalue()
    return (
        "/projects/mixed/predict" + rng.choice(QUERIES),
        mutate(data, rng) if rng.random() < 0.6 else data,
        PARQUET,
    )


def from_form(rng: random.Random) -> Request:
    if rng.random() < 0.5:
        body = "&".join(f"{name}={rng.choice([value, SECRET, '%00', '%ff', ''])}" for name, value in RECORD.items()).encode()
        return "/projects/mixed/predict", mutate(body, rng), {"content-type": "application/x-www-form-urlencoded"}
    text = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x.csv"\r\n\r\n' + csv_text(rng) + b"\r\n--b--\r\n"
    )
    return "/projects/mixed/batch", mutate(text, rng), {"content-type": "multipart/form-data; boundary=b"}


def large(rng: random.Random) -> Request:
    """Return a small body that decompresses, multiplies or nests."""
    kind = rng.randrange(6)
    if kind == 0:
        return (
            "/projects/mixed/predict",
            gzip.compress(csv_text(rng) + b"\n" * 400_000_000, 1),
            GZIP,
        )
    if kind == 1:
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), pa.array(["x" * 1_000_000]))
        file = io.BytesIO()
        name = rng.choice(["city", "extra"])
        pq.write_table(pa.table({**{n: [v] * 1500 for n, v in RECORD.items()}, name: column}), file)
        query = rng.choice(["?extra=keep", ""])
        return "/projects/mixed/predict" + query, file.getvalue(), PARQUET
    if kind == 2:
        return "/projects/mixed/predict", b"[" + b"[]," * 6_000_000 + b"[]]", JSON
    if kind == 3:
        return (
            "/projects/mixed/predict?extra=keep",
            json.dumps({f"f{n}": n for n in range(20_000)}).encode(),
            JSON,
        )
    if kind == 4:
        extra = ",".join(f"e{n}" for n in range(8000))
        text = f"{','.join(RECORD)},{extra}\n{','.join(map(str, RECORD.values()))}{',1' * 8000}\n"
        return "/projects/mixed/predict.csv?extra=keep", text.encode(), CSV
    return "/projects/mixed/predict", b'{"a":' * 100_000, JSON


GENERATORS: list[Callable[[random.Random], Request]] = [
    from_json,
    from_json,
    from_tensors,
    from_invocations,
    from_csv,
    from_parquet,
    from_form,
]


def send_raw(port: int, rng: random.Random) -> tuple[int, bytes]:
    """Send a mutated request line and headers; return the status (0: closed) and the response."""
    path, body, headers = from_json(rng)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {headers['content-type']}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    data = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(mutate(head.encode(), rng) + body)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            data += chunk
    return int(data.split(b" ", 2)[1]) if data.startswith(b"HTTP/") else 0, data


class HealthMonitor:
    """Measures the slowest response of /livez and the peak memory of a process."""

    def __init__(self, client: Client, pid: int) -> None:
        self._client, self._process, self._stopped = client, psutil.Process(pid), threading.Event()
        self.slowest, self.idle, self.peak = 0.0, self.memory(), 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def memory(self) -> int:
        rss: int = self._process.memory_info().rss
        return rss

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            started = time.monotonic()
            with suppress(OSError):
                self._client.get("/livez")
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.peak = max(self.peak, self.memory())

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def attack(port: int, pid: int, count: int, seed: int) -> bool:
    """Send `count` requests and print a summary; return True if every guarantee holds."""
    rng, client = random.Random(seed), Client(f"http://127.0.0.1:{port}")
    monitor, statuses, violations = HealthMonitor(client, pid), Counter[int](), list[str]()
    slowest = 0.0
    for number in range(count):
        started = time.monotonic()
        if number % 7 == 0:
            name, (status, text) = "raw", send_raw(port, rng)
        else:
            generator = large if number % 40 == 1 else rng.choice(GENERATORS)
            path, body, headers = generator(rng)
            name = f"{generator.__name__} {path}"
            try:
                response = client.post(path, body, {**headers, "accept": rng.choice(ACCEPTS)})
                status, text = response.status, response.body
            except OSError:
                status, text = 0, b""
        slowest = max(slowest, time.monotonic() - started)
        statuses[status] += 1
        shows_form = b"<form" in text  # a page returns a rejected form to its sender
        if status >= 500 or (status >= 400 and SECRET.encode() in text and not shows_form):
            start = max(0, text.find(SECRET.encode()) - 200)
            violations.append(f"request {number}: {name}: {status} …{text[start : start + 300]!r}")
    monitor.stop()
    print(f"{count} requests, responses by status: {dict(sorted(statuses.items()))}")
    print(f"slowest response {slowest:.2f} s; slowest health {monitor.slowest * 1000:.0f} ms")
    print(f"memory {monitor.idle / 1e6:.0f} MB idle, {monitor.peak / 1e6:.0f} MB peak")
    print("\n".join(violations[:20]))
    return not violations and monitor.slowest < MAX_HEALTH_SECONDS and monitor.peak - monitor.idle < MAX_GROWTH_BYTES


def main() -> None:
    count, seed = (int(argument) for argument in [*sys.argv[1:], *["1500", "1"][len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory(prefix="podium-hostile-") as name:
        folder, (events, port) = Path(name), free_ports(2)
        with LocalCloud(folder, events) as cloud:
            project = Project(data="s3://podium/none", name="mixed", target="bought", n_trials=1, columns=tables.MIXED_COLUMNS)
            publish_champion(cloud, tables.mixed(), project)
            with running_service(cloud, folder, port, dask=True) as service:
                passed = attack(port, service.process.pid, count, seed)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
