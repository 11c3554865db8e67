"""The Lambda's handler, and the chain from a put on S3 to its call under the real runtime client."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lambda_refresh.handler import NotDelivered, handler, signed_headers, watched_changes
from local_cloud import LocalCloud
from local_cloud.events import s3_event
from local_cloud.process import free_ports
from service.problems import BadSignature
from service.webhooks import Webhooks

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Receiver(http.server.ThreadingHTTPServer):
    """Takes hints on loopback and remembers them."""

    def __init__(self, port: int = 0, status: int = 202) -> None:
        self.hints: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.hints.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

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
    changes = watched_changes(event("aliases/a+b/%C3%BC.json", "runs/x", "inbox/y"))
    assert [change["key"] for change in changes] == ["aliases/a b/ü.json"]
    assert watched_changes(event("aliases/p/champion.json", name="ObjectRemoved:Delete")) == []
    assert watched_changes(event("aliases/p/champion.json", name="ObjectCreated:CompleteMultipartUpload"))
    assert watched_changes({"Service": "Amazon S3", "Event": "s3:TestEvent"}) == []


def test_every_target_gets_one_signed_hint(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_REFRESH_TARGETS", f"{receiver.url}, {receiver.url}")
    monkeypatch.setenv("PODIUM_REFRESH_SECRET", SECRET)
    assert len(handler(event("aliases/p/champion.json"), None)["delivered"]) == 2
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
        with pytest.raises(BadSignature):
            Webhooks([SECRET]).accept(bad, body, when)
    with pytest.raises(BadSignature):
        Webhooks([]).accept(headers, b"{}", now)
    for short in ("", "whsec_", "whsec_b3RoZXI="):
        with pytest.raises(ValueError, match="shorter"):
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
