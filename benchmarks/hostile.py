"""Malformed requests of every format against one service: what it answers, its memory, and whether health answers meanwhile.

`python -m benchmarks.hostile [COUNT] [SEED]`; exits with 1 when a promise of `docs/security.md` does not hold.
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

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import free_ports
from podium.local.services import promotion_context, start_service
from podium.project import Project
from tests import tables
from tests.conftest import publish_champion
from tests.tables import RECORD

SECRET = "q7Zx9Secret"
"""In values that were sent; never in an answer that refuses them."""
MAX_GROWTH, MAX_HEALTH_SECONDS = 300_000_000, 0.1
ODD: list[Any] = [
    None, True, [], {}, [[]], {"a": {"b": []}}, "", SECRET, SECRET * 10_000, "\ud800", "\0", "=cmd()", "1e999", 10**400, 1e308,
    -0.0, 2**63, "NaN", "2022-13-45", "9999-12-31", "-5", "1_000", "٣", [SECRET], 0.1 + 0.2, -(10**18),
]  # fmt: skip
PIECES = [b"\0", b"\r\n", b"\r", b"\n", b"\xff\xfe", b'"', b"{", b"]", b",", b"\\ud800", b"NaN", b"1e999", b"[" * 200, b"%00"]
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
Made = tuple[str, bytes, dict[str, str]]
"""Path, body and headers of a request."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            data = data[:place] + chance.choice(PIECES) + data[place:]
        elif kind == 1:
            data = data[:place] + data[place + chance.randint(1, 20) :]
        elif kind == 2:
            data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        else:
            data = data[:place] + data[: chance.randint(0, 200)] + data[place:]
    return data


def odd_record(chance: random.Random) -> Any:
    record: Any = dict(RECORD)
    for _ in range(chance.randint(1, 3)):
        record[chance.choice([*RECORD, f"x{chance.random()}", "__proto__", "\ud800", "prediction"])] = chance.choice(ODD)
    shape = chance.randrange(5)
    many = [record] * chance.choice([1, 12])
    return [record, many, {"records": many}, list(record.values()), [list(record.values())] * 3][shape]


def from_json(chance: random.Random) -> Made:
    body = json.dumps(odd_record(chance)).encode()
    path = chance.choice(["/projects/mixed/predict", "/projects/mixed/batch", "/projects/mixed/predict.csv"])
    return (
        path + chance.choice(QUERIES),
        mutated(body, chance) if chance.random() < 0.5 else body,
        JSON,
    )


def from_tensors(chance: random.Random) -> Made:
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(v, str) else "FP64", "data": [v]}
        for name, v in RECORD.items()
    ]
    body: dict[str, Any] = {"id": "1", "inputs": inputs, "outputs": [{"name": "prediction"}], "parameters": {}}
    for _ in range(chance.randint(1, 3)):
        place = chance.choice([body, *inputs, body["outputs"][0]])
        place[chance.choice(["id", "parameters", "name", "shape", "datatype", "data"])] = chance.choice(ODD)
    data = json.dumps(body).encode()
    headers = dict(JSON)
    if chance.random() < 0.3:
        headers["inference-header-content-length"] = str(chance.choice([0, -1, len(data), 10**9, "x"]))
        data += chance.randbytes(20)
    return "/v2/models/mixed/infer", mutated(data, chance) if chance.random() < 0.3 else data, headers


def from_invocations(chance: random.Random) -> Made:
    form = chance.choice(["dataframe_split", "dataframe_records", "instances", "inputs", "x"])
    return "/invocations?project=mixed", json.dumps({form: odd_record(chance)}).encode(), JSON


def csv_text(chance: random.Random) -> bytes:
    header, row = ",".join(RECORD), ",".join(map(str, RECORD.values()))
    rows = [row.replace(str(chance.choice(list(RECORD.values()))), SECRET) for _ in range(chance.choice([1, 12, 200]))]
    return "\n".join([header, *rows]).encode()


def from_csv(chance: random.Random) -> Made:
    data, media = mutated(csv_text(chance), chance), "text/csv"
    if chance.random() < 0.3:
        data, media = gzip.compress(data), "application/gzip"
        data = mutated(data, chance) if chance.random() < 0.5 else data
    return "/projects/mixed/predict" + chance.choice(QUERIES), data, {"content-type": media}


def from_parquet(chance: random.Random) -> Made:
    columns: dict[str, Any] = {name: [value] * 20 for name, value in RECORD.items()}
    columns[chance.choice([*RECORD, "extra"])] = chance.choice(
        [[SECRET] * 20, [[1]] * 20, [b"\xff"] * 20, [None] * 20, [{"a": 1}] * 20]
    )
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    data = file.getvalue()
    return (
        "/projects/mixed/predict" + chance.choice(QUERIES),
        mutated(data, chance) if chance.random() < 0.6 else data,
        PARQUET,
    )


def from_form(chance: random.Random) -> Made:
    if chance.random() < 0.5:
        body = "&".join(f"{name}={chance.choice([value, SECRET, '%00', '%ff', ''])}" for name, value in RECORD.items()).encode()
        return "/projects/mixed/predict", mutated(body, chance), {"content-type": "application/x-www-form-urlencoded"}
    text = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x.csv"\r\n\r\n'
        + csv_text(chance)
        + b"\r\n--b--\r\n"
    )
    return "/projects/mixed/batch", mutated(text, chance), {"content-type": "multipart/form-data; boundary=b"}


def large(chance: random.Random) -> Made:
    """Small bodies that unpack, multiply or nest."""
    kind = chance.randrange(6)
    if kind == 0:
        return (
            "/projects/mixed/predict",
            gzip.compress(csv_text(chance) + b"\n" * 400_000_000, 1),
            GZIP,
        )
    if kind == 1:
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), pa.array(["x" * 1_000_000]))
        file = io.BytesIO()
        name = chance.choice(["city", "extra"])
        pq.write_table(pa.table({**{n: [v] * 1500 for n, v in RECORD.items()}, name: column}), file)
        query = chance.choice(["?extra=keep", ""])
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


MAKERS: list[Callable[[random.Random], Made]] = [
    from_json,
    from_json,
    from_tensors,
    from_invocations,
    from_csv,
    from_parquet,
    from_form,
]


def raw(port: int, chance: random.Random) -> tuple[int, bytes]:
    """A mutated request line and headers; the status (0: closed) and the answer."""
    path, body, headers = from_json(chance)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {headers['content-type']}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    data = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(mutated(head.encode(), chance) + body)
        link.shutdown(socket.SHUT_WR)
        while piece := link.recv(65536):
            data += piece
    return int(data.split(b" ", 2)[1]) if data.startswith(b"HTTP/") else 0, data


class Watch:
    """The slowest answer of /livez and the most memory of a process and its children."""

    def __init__(self, client: Client, pid: int) -> None:
        self._client, self._process, self._ended = client, psutil.Process(pid), threading.Event()
        self.slowest, self.idle, self.peak = 0.0, self.memory(), 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def memory(self) -> int:
        rss: int = self._process.memory_info().rss
        return rss

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            started = time.monotonic()
            with suppress(OSError):
                self._client.get("/livez")
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.peak = max(self.peak, self.memory())

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def attack(port: int, pid: int, count: int, seed: int) -> bool:
    """Whether every promise held."""
    chance, client = random.Random(seed), Client(f"http://127.0.0.1:{port}")
    watch, statuses, wrong = Watch(client, pid), Counter[int](), list[str]()
    slowest = 0.0
    for number in range(count):
        started = time.monotonic()
        if number % 7 == 0:
            name, (status, text) = "raw", raw(port, chance)
        else:
            maker = large if number % 40 == 1 else chance.choice(MAKERS)
            path, body, headers = maker(chance)
            name = f"{maker.__name__} {path}"
            try:
                answer = client.post(path, body, {**headers, "accept": chance.choice(ACCEPTS)})
                status, text = answer.status, answer.body
            except OSError:
                status, text = 0, b""
        slowest = max(slowest, time.monotonic() - started)
        statuses[status] += 1
        shows_form = b"<form" in text  # a page gives a form back to the browser that filled it in
        if status >= 500 or (status >= 400 and SECRET.encode() in text and not shows_form):
            at = max(0, text.find(SECRET.encode()) - 200)
            wrong.append(f"request {number}: {name}: {status} …{text[at : at + 300]!r}")
    watch.close()
    print(f"{count} requests, answers by status: {dict(sorted(statuses.items()))}")
    print(f"slowest answer {slowest:.2f} s; slowest health {watch.slowest * 1000:.0f} ms")
    print(f"memory {watch.idle / 1e6:.0f} MB idle, {watch.peak / 1e6:.0f} MB at most")
    print("\n".join(wrong[:20]))
    return not wrong and watch.slowest < MAX_HEALTH_SECONDS and watch.peak - watch.idle < MAX_GROWTH


def main() -> None:
    count, seed = (int(word) for word in [*sys.argv[1:], *["1500", "1"][len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory(prefix="podium-hostile-") as name:
        folder, (events, port) = Path(name), free_ports(2)
        with LocalCloud(folder, events) as cloud:
            context = promotion_context(cloud)
            project = Project(data="s3://podium/none", name="mixed", target="bought", n_trials=1, columns=tables.MIXED_COLUMNS)
            publish_champion(context, tables.mixed(), project)
            context.validator.close()
            service = start_service(cloud.environment, port, folder)
            try:
                client = Client(f"http://127.0.0.1:{port}")
                client.wait_until(lambda: client.get("/readyz").status == 200, 60)
                client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
                held = attack(port, service.pid, count, seed)
            finally:
                service.stop()
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
