"""SeaweedFS as the embedded S3 server."""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import Path

from podium.local.processes import Process

WATCHED_PREFIXES = ("aliases", "inbox", "drop")


def start_s3(folder: Path, ports: list[int], keys: tuple[str, str], bucket: str, webhook: str) -> Process:
    """Start `weed mini` with its data in `folder` and S3 on the first of ten ports, and wait until it responds.

    Changes under the watched prefixes are posted to `webhook`, at most once and in no particular order.
    """
    settings = folder / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "mini.options").unlink(missing_ok=True)  # it holds the ports of the last start
    identity = {"name": "podium", "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}], "actions": ["Admin"]}
    access = settings / "s3.json"
    access.touch(mode=0o600)
    access.write_text(json.dumps({"identities": [identity]}))
    prefixes = json.dumps([f"/buckets/{bucket}/{name}/" for name in WATCHED_PREFIXES])
    (settings / "notification.toml").write_text(
        f'[notification.webhook]\nenabled = true\nendpoint = "{webhook}"\npath_prefixes = {prefixes}\n'
        'event_types = ["create", "update", "rename"]\nworkers = 2\nmax_retries = 1\nbackoff_seconds = 1\n'
    )
    names = (
        "s3",
        "s3.port.grpc",
        "master",
        "master.port.grpc",
        "volume",
        "volume.port.grpc",
        "filer",
        "filer.port.grpc",
        "admin",
        "admin.port.grpc",
    )
    flags = [f"-{name if '.' in name else name + '.port'}={port}" for name, port in zip(names, ports, strict=True)]
    command = [
        *(str(Path(sysconfig.get_path("scripts")) / "weed"), f"-config_dir={settings}", f"-logdir={folder / 'logs'}", "mini"),
        *(f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={access}"),
        *("-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.electionTimeout=1s", "-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=256"),
        *flags,
    ]
    (folder / "logs").mkdir(exist_ok=True)
    process = Process(command, folder / "logs" / "s3.log", os.environ)
    try:
        process.wait_for(f"http://127.0.0.1:{ports[0]}/")
    except BaseException:
        process.stop()
        raise
    return process
