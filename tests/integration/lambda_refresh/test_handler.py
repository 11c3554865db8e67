"""The Lambda handler, and the path from a write on S3 to the handler under the real runtime client."""

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
    """Receives notifications on loopback and records them."""

    def __init__(self, port: int = 0, address: str = "127.0.0.1", key: str = "") -> None:
        self.notifications: list[tuple[dict[str, str], bytes]] = []
        self.key, self.statuses = key, list[int]()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.notifications.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = receiver.status_for(*receiver.notifications[-1])
                receiver.statuses.append(status)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__((address, port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def status_for(self, headers: dict[str, str], body: bytes) -> int:
        """Return the status of a replica: 401 for an unknown key."""
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


def test_only_created_objects_under_watched_prefixes_count() -> None:
    changes = watched_changes(event("aliases/a+b/%C3%BC.json", "runs/x", "inbox/p/y.csv", "outbox/p/y.csv", "drop/t"))
    assert [change["key"] for change in changes] == ["aliases/a b/ü.json", "inbox/p/y.csv", "drop/t"]
    assert watched_changes(event("aliases/p/champion.json", name="ObjectRemoved:Delete")) == []
    assert watched_changes(event("aliases/p/champion.json", name="ObjectCreated:CompleteMultipartUpload"))
    assert watched_changes({"Service": "Amazon S3", "Event": "s3:TestEvent"}) == []


def test_every_target_gets_one_signed_notification(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    second = receiver.url.replace("/refresh", "/second/refresh")
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"{receiver.url}, {second}, {receiver.url}")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    assert handler(event("aliases/p/champion.json"), None)["delivered"] == [receiver.url, second]
    (headers, body), _ = receiver.notifications
    assert Webhooks([SECRET]).accept(headers, body, time.time())
    assert json.loads(body)["changes"][0]["key"] == "aliases/p/champion.json"


def test_an_unreachable_target_fails_the_call_after_the_others_are_notified(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = f"http://127.0.0.1:{free_ports(1)[0]}/refresh"
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"{unreachable},{receiver.url}")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    with pytest.raises(NotDelivered, match=unreachable):
        handler(event("aliases/p/champion.json"), None)
    assert len(receiver.notifications) == 1


def test_each_address_of_a_host_name_is_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers share a port on two loopback addresses, and a host name resolves to both."""
    (port,) = free_ports(1)
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    ipv6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
    monkeypatch.setattr("socket.getaddrinfo", resolving({"replicas.example": [*addresses, ipv6, *addresses]}))
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"http://replicas.example:{port}/refresh")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    with Receiver(port) as first, Receiver(port, address="127.0.0.2") as second:
        assert len(handler(event("aliases/p/champion.json"), None)["delivered"]) == 2
        assert len(first.notifications) == len(second.notifications) == 1
        assert first.notifications[0][0]["host"] == f"replicas.example:{port}"
        second.shutdown()
        second.server_close()
        with pytest.raises(NotDelivered, match=r"at 127\.0\.0\.2"):
            handler(event("aliases/p/champion.json"), None)
        first.shutdown()
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", "http://nowhere.example/refresh")
    with pytest.raises(NotDelivered, match="nowhere"):
        handler(event("aliases/p/champion.json"), None)


def resolving(names: dict[str, list[Any]]) -> Callable[..., Any]:
    """Return the system's resolver with additional names."""
    system = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".example"):
            if host not in names:
                raise OSError(f"no such host: {host}")
            return names[host]
        return system(host, *arguments, **options)

    return resolve


def test_a_secret_in_secrets_manager_is_rotated_without_a_lost_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica accepts only the new key while the handler still caches the old one."""
    new = "whsec_" + base64.b64encode(b"another key of the length of 32!").decode()
    for name, value in {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PODIUM_REFRESH_SECRET", raising=False)
    monkeypatch.setenv("PODIUM_REFRESH_SECRET_ID", "refresh-key")
    with mock_aws(), Receiver(key=SECRET) as receiver:
        monkeypatch.setenv("PODIUM_REFRESH_TARGETS", receiver.url)
        client = boto3.client("secretsmanager")
        client.create_secret(Name="refresh-key", SecretString=SECRET)
        secret(refresh=True)
        handler(event("aliases/p/champion.json"), None)
        client.put_secret_value(SecretId="refresh-key", SecretString=new)
        handler(event("aliases/p/champion.json"), None)  # the old key is cached, and the replica still accepts it
        receiver.key = new
        handler(event("aliases/p/champion.json"), None)
        assert receiver.statuses == [202, 202, 401, 202]
        receiver.shutdown()


def test_an_event_without_changes_sends_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", receiver.url)
    handler({"Event": "s3:TestEvent"}, None)
    assert receiver.notifications == []


def test_a_signature_is_valid_only_for_its_body_time_and_key() -> None:
    now = 1_800_000_000
    headers = signed_headers(b"{}", SECRET, now)
    assert Webhooks([SECRET]).accept(headers, b"{}", now + 299)
    assert Webhooks(["whsec_YW5vdGhlciBrZXkgb2Ygc29tZSBsZW5ndGg=", SECRET]).accept(headers, b"{}", now)
    for invalid, body, time_received in (
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
            Webhooks([SECRET]).accept(invalid, body, time_received)
    with pytest.raises(InvalidSignature):
        Webhooks([]).accept(headers, b"{}", now)
    for short in ("", "whsec_", "whsec_b3RoZXI="):
        with pytest.raises(ValueError, match="at least 16 bytes"):
            Webhooks([short])


def test_a_repeated_notification_is_detected() -> None:
    webhooks, headers = Webhooks([SECRET]), signed_headers(b"{}", SECRET, 100)
    assert webhooks.accept(headers, b"{}", 100)
    assert not webhooks.accept(headers, b"{}", 101)


def test_folders_and_partial_uploads_are_not_events() -> None:
    def notification(key: str, **entry: Any) -> dict[str, Any]:
        return {"event_type": "create", "key": key, "message": {"new_entry": {"name": "x", **entry}}}

    assert s3_event(notification("/buckets/podium/aliases", is_directory=True)) is None
    assert s3_event(notification("/buckets/podium/.uploads/1/part")) is None
    assert s3_event({"event_type": "delete", "key": "/buckets/podium/aliases/p/champion.json", "message": {}}) is None
    event = s3_event(notification("/buckets/podium/aliases/a b/ü.json"))
    assert event is not None
    assert event["Records"][0]["s3"]["object"]["key"] == "aliases/a+b/%C3%BC.json"


def outcomes_of(cloud: LocalCloud) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{cloud.events_url}/status", timeout=5) as response:
        outcomes: list[dict[str, Any]] = json.load(response)["outcomes"]
        return outcomes


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_write_on_s3_reaches_the_replica_through_the_real_runtime(tmp_path: Path) -> None:
    """SeaweedFS → bridge → awslambdaric → handler → replica, with a retry for a replica that starts late."""
    port = free_ports(1)[0]
    with LocalCloud(tmp_path, port) as cloud:
        client = cloud.client()
        client.put_object(Bucket="podium", Key="aliases/late/champion.json", Body=b"{}")
        wait_until(lambda: outcomes_of(cloud))
        assert outcomes_of(cloud)[0]["answer"]["errorType"] == "NotDelivered"
        with Receiver(port) as receiver:
            client.put_object(Bucket="podium", Key="aliases/a b/champion.json", Body=b"{}")
            wait_until(lambda: len({notification[1] for notification in receiver.notifications}) == 2)
            receiver.shutdown()
        keys = {json.loads(body)["changes"][0]["key"] for _, body in receiver.notifications}
        assert keys == {"aliases/a b/champion.json", "aliases/late/champion.json"}
