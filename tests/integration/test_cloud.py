"""The local cloud starts although another program takes one of its ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from podium.local import LocalCloud
from podium.local.processes import free_ports


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 10], ids=["S3", "events"])
def test_a_taken_port_is_replaced(index: int, tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path, free_ports(1)[0])
    with socket.socket() as other:
        other.bind(("127.0.0.1", cloud._ports[index]))
        other.listen()
        taken = cloud._ports[index]
        with cloud:
            assert cloud._ports[index] != taken
            assert cloud.client().list_buckets()["Buckets"]
