"""`.ci/deploy`: what it tells CloudFormation when the new image answers, and when it does not."""

from __future__ import annotations

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from podium.settings import ROOT

AWS = """#!/bin/sh
case "$*" in
  *describe-stacks*) echo old ;;
  *ServeImage=*)
    for word; do case $word in ServeImage=*) echo "${word#ServeImage=}" >> "$CALLS" ;; esac; done
    exit "$STATUS" ;;
esac
"""
CURL = """#!/bin/sh
for word; do address=$word; done
exec /usr/bin/env python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$address"
"""


class Health(BaseHTTPRequestHandler):
    """Ready, unless the image in use is the broken one."""

    calls: Path

    def do_GET(self) -> None:
        deployed = self.calls.read_text().split() if self.calls.exists() else ["old"]
        self.send_response(503 if deployed[-1] == "broken" else 200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(
    ("image", "status", "calls", "code", "message"),
    [
        ("new", 0, ["new"], 0, "runs new"),
        ("broken", 0, ["broken", "old"], 1, "restored"),
        ("refused", 1, ["refused"], 1, "CloudFormation has restored old"),
    ],
)
def test_an_image_that_does_not_answer_is_replaced_by_the_previous_one(
    tmp_path: Path, image: str, status: int, calls: list[str], code: int, message: str
) -> None:
    for name, text in {"aws": AWS, "curl": CURL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "calls"
    handler = type("Handler", (Health,), {"calls": log})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(log), "STATUS": str(status), "STACK": "podium"}
        variables |= {"URL": f"http://127.0.0.1:{server.server_address[1]}"}
        result = subprocess.run([ROOT / ".ci" / "deploy", image], env=variables, capture_output=True, text=True, timeout=60)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (result.returncode, log.read_text().split()) == (code, calls), result.stderr
    assert message in result.stdout + result.stderr
