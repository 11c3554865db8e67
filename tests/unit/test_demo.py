"""The demo says why its service is not ready."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from podium.local import demo
from podium.local.http_client import Client
from podium.local.processes import DidNotStart

RESPONSES = {
    "/readyz": (503, {"detail": "not loaded: breast-cancer (see /status)"}),
    "/status.json": (200, {"failures": {"breast-cancer": "a model file may not construct x.Removed"}}),
}


class NotReady(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, document = RESPONSES[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *arguments: object) -> None:
        pass


def test_the_demo_says_why_the_service_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "READY_SECONDS", 0.1)
    with ThreadingHTTPServer(("127.0.0.1", 0), NotReady) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(DidNotStart) as raised:
            demo._wait_until_ready(Client(f"http://127.0.0.1:{server.server_port}"), Path("service.log"))
        server.shutdown()
    for text in ("service.log", "--folder", "not loaded: breast-cancer", "breast-cancer: a model file may not construct"):
        assert text in str(raised.value)
