"""The Lambda's handler, and the chain from a put on S3 to its call under the real runtime client."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from lambda_refresh.handler import NotDelivered, handler, secret, signed_headers, watched_changes
from podium.local import LocalCloud
from podium.local.processes import free_ports
from podium.local.s3_events import s3_event
from service.errors import InvalidSignature
from service.webhooks import Webhooks

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Receiver(http.server.ThreadingHTTPServer):
    """Takes hints on loopback and remembers them."""

    def __init__(self, port: int = 0, address: str = "127.0.0.1", key: str = "") -> None:
        self.hints: list[tuple[dict[str, str], bytes]] = []
        self.key, self.statuses = key, list[int]()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.hints.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = receiver.judge(*receiver.hints[-1])
                receiver.statuses.append(status)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__((address, port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def judge(self, headers: dict[str, str], body: bytes) -> int:
        """As a replica would: 401 for a key that it does not know."""
        try:
            return 202 if not self.key or Webhooks([self.key]).accept(headers, body, time.time()) else 200
        except InvalidSignature:
            return 401

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/refresh"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server
        server.shutdown()


def event(*keys: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    bucket = {"name": "podium"}
    return {
        "Records": [{"eventName": name, "s3": {"bucket": bucket, "object": {"key": key, "sequencer": "1"}}} for key in keys]
    }


def test_keys_are_form_decoded_and_only_watched_ones_count() -> None:
    changes = watched_changes(event("aliases/a+b/%C3%BC.json", "runs/x", "inbox/p/y.csv", "outbox/p/y.csv", "drop/t"))
    assert [change["key"] for change in changes] == ["aliases/a b/ü.json", "inbox/p/y.csv", "drop/t"]
    assert watched_changes(event("aliases/p/champion.json", name="ObjectRemoved:Delete")) == []
    assert watched_changes(event("aliases/p/champion.json", name="ObjectCreated:CompleteMultipartUpload"))
    assert watched_changes({"Service": "Amazon S3", "Event": "s3:TestEvent"}) == []


def test_every_target_gets_one_signed_hint(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    other = receiver.url.replace("/refresh", "/second/refresh")
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"{receiver.url}, {other}, {receiver.url}")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    assert handler(event("aliases/p/champion.json"), None)["delivered"] == [receiver.url, other]
    (headers, body), _ = receiver.hints
    assert Webhooks([SECRET]).accept(headers, body, time.time())
    assert json.loads(body)["changes"][0]["key"] == "aliases/p/champion.json"


def test_a_target_that_cannot_be_reached_fails_the_call_after_the_others_were_told(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"http://127.0.0.1:{free_ports(1)[0]}/refresh"
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"{gone},{receiver.url}")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    with pytest.raises(NotDelivered, match=gone):
        handler(event("aliases/p/champion.json"), None)
    assert len(receiver.hints) == 1


def test_a_name_with_several_addresses_is_several_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on two loopback addresses and one port, behind a name that the resolver gives both for."""
    (port,) = free_ports(1)
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
    monkeypatch.setattr("socket.getaddrinfo", resolving({"replicas.example": [*addresses, six, *addresses]}))
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"http://replicas.example:{port}/refresh")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    with Receiver(port) as one, Receiver(port, address="127.0.0.2") as other:
        assert len(handler(event("aliases/p/champion.json"), None)["delivered"]) == 2
        assert len(one.hints) == len(other.hints) == 1
        assert one.hints[0][0]["host"] == f"replicas.example:{port}"
        other.shutdown()
        other.server_close()
        with pytest.raises(NotDelivered, match=r"at 127\.0\.0\.2"):
            handler(event("aliases/p/champion.json"), None)
        one.shutdown()
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", "http://nowhere.example/refresh")
    with pytest.raises(NotDelivered, match="nowhere"):
        handler(event("aliases/p/champion.json"), None)


def resolving(names: dict[str, list[Any]]) -> Callable[..., Any]:
    """The system's resolver with a few names of our own."""
    system = socket.getaddrinfo

    def found(host: Any, *more: Any, **named: Any) -> Any:
        if str(host).endswith(".example"):
            if host not in names:
                raise OSError(f"no such host: {host}")
            return names[host]
        return system(host, *more, **named)

    return found


def test_a_secret_by_reference_is_replaced_without_a_lost_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets Manager is moto's; the replica knows only the new key when the old one is still remembered."""
    new = "whsec_" + base64.b64encode(b"another key of the length of 32!").decode()
    for name, value in {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PODIUM_REFRESH_SECRET", raising=False)
    monkeypatch.setenv("PODIUM_REFRESH_SECRET_ID", "hints")
    with mock_aws(), Receiver(key=SECRET) as receiver:
        monkeypatch.setenv("PODIUM_REFRESH_TARGETS", receiver.url)
        client = boto3.client("secretsmanager")
        client.create_secret(Name="hints", SecretString=SECRET)
        secret(fresh=True)
        handler(event("aliases/p/champion.json"), None)
        client.put_secret_value(SecretId="hints", SecretString=new)
        handler(event("aliases/p/champion.json"), None)  # the old key is remembered, and still believed
        receiver.key = new
        handler(event("aliases/p/champion.json"), None)
        assert receiver.statuses == [202, 202, 401, 202]
        receiver.shutdown()


def test_nothing_to_say_sends_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", receiver.url)
    handler({"Event": "s3:TestEvent"}, None)
    assert receiver.hints == []


def test_a_signature_holds_for_its_body_its_time_and_its_key_only() -> None:
    now = 1_800_000_000
    headers = signed_headers(b"{}", SECRET, now)
    assert Webhooks([SECRET]).accept(headers, b"{}", now + 299)
    assert Webhooks(["whsec_YW5vdGhlciBrZXkgb2Ygc29tZSBsZW5ndGg=", SECRET]).accept(headers, b"{}", now)
    for bad, body, when in (
        (headers, b"{ }", now),
        (headers, b"{}", now + 301),
        (headers, b"{}", now - 301),
        ({**headers, "webhook-id": "msg_other"}, b"{}", now),
        ({**headers, "webhook-signature": "v1,AAAA"}, b"{}", now),
        ({**headers, "webhook-signature": "v1,\xff"}, b"{}", now),
        ({**headers, "webhook-timestamp": "soon"}, b"{}", now),
        ({}, b"{}", now),
    ):
        with pytest.raises(InvalidSignature):
            Webhooks([SECRET]).accept(bad, body, when)
    with pytest.raises(InvalidSignature):
        Webhooks([]).accept(headers, b"{}", now)
    for short in ("", "whsec_", "whsec_b3RoZXI="):
        with pytest.raises(ValueError, match="at least 16 bytes"):
            Webhooks([short])


def test_a_hint_that_comes_twice_is_known() -> None:
    webhooks, headers = Webhooks([SECRET]), signed_headers(b"{}", SECRET, 100)
    assert webhooks.accept(headers, b"{}", 100)
    assert not webhooks.accept(headers, b"{}", 101)


def test_folders_and_parts_of_uploads_are_no_events() -> None:
    def notice(key: str, **entry: Any) -> dict[str, Any]:
        return {"event_type": "create", "key": key, "message": {"new_entry": {"name": "x", **entry}}}

    assert s3_event(notice("/buckets/podium/aliases", is_directory=True)) is None
    assert s3_event(notice("/buckets/podium/.uploads/1/part")) is None
    assert s3_event({"event_type": "delete", "key": "/buckets/podium/aliases/p/champion.json", "message": {}}) is None
    found = s3_event(notice("/buckets/podium/aliases/a b/ü.json"))
    assert found is not None
    assert found["Records"][0]["s3"]["object"]["key"] == "aliases/a+b/%C3%BC.json"


def outcomes_of(cloud: LocalCloud) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{cloud.events_url}/status", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["outcomes"]
        return found


def wait_until(happened: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_put_on_s3_reaches_the_replica_through_the_real_runtime(tmp_path: Path) -> None:
    """SeaweedFS → bridge → awslambdaric → handler → replica, and a replica that is late is tried again."""
    port = free_ports(1)[0]
    with LocalCloud(tmp_path, port) as cloud:
        client = cloud.client()
        client.put_object(Bucket="podium", Key="aliases/late/champion.json", Body=b"{}")
        wait_until(lambda: outcomes_of(cloud))
        assert outcomes_of(cloud)[0]["answer"]["errorType"] == "NotDelivered"
        with Receiver(port) as receiver:
            client.put_object(Bucket="podium", Key="aliases/a b/champion.json", Body=b"{}")
            wait_until(lambda: len({hint[1] for hint in receiver.hints}) == 2)
            receiver.shutdown()
        keys = {json.loads(body)["changes"][0]["key"] for _, body in receiver.hints}
        assert keys == {"aliases/a b/champion.json", "aliases/late/champion.json"}
