"""The embedded S3 server, event bridge and Lambda runtime as one context manager."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3

from podium.local.processes import DidNotStart, Process, free_ports
from podium.local.seaweedfs import start_s3
from podium.registry.signing import Signer

BUCKET = "podium"


class LocalCloud:
    """The embedded cloud with its data in `folder`; `environment` configures its clients.

    The first start creates the credentials and keys in `folder`, readable only by the owner.
    """

    def __init__(self, folder: Path, service_port: int, s3_port: int | None = None) -> None:
        self.folder, self.service_port = folder, service_port
        self._s3_port = s3_port
        self._choose_ports()
        self._secrets = _secrets(folder)
        self._s3: Process | None = None
        self._bridge: Process | None = None
        self._lambda: Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this process, extended with the variables of this cloud."""
        return {**os.environ, **self.variables}

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that point clients to this cloud."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self._ports[0]}",
            "AWS_ACCESS_KEY_ID": self._secrets["access"],
            "AWS_SECRET_ACCESS_KEY": self._secrets["secret"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "PODIUM_BUCKET": BUCKET,
            "PODIUM_URL": f"http://127.0.0.1:{self.service_port}",
            "PODIUM_REFRESH_SECRETS": json.dumps([self._secrets["hint"]]),
            "PODIUM_SIGNING_KEY": self._secrets["signing"],
            "PODIUM_LOG_KEY": os.environ.get("PODIUM_LOG_KEY", self._secrets["log"]),
            "PODIUM_TRAINER_KEYS": json.dumps([self._secrets["public"]]),
        }

    @property
    def events_url(self) -> str:
        return f"http://127.0.0.1:{self._ports[10]}"

    def _choose_ports(self) -> None:
        self._ports = free_ports(11)
        if self._s3_port:
            self._ports[0] = self._s3_port

    def start(self) -> Self:
        """Start all servers, up to three times, because another program may take a port that was free."""
        for _ in range(2):
            try:
                return self._start()
            except DidNotStart as error:
                print(f"starting the local cloud again on other ports: {error}", file=sys.stderr)
                self.stop()
                self._choose_ports()
        return self._start()

    def _start(self) -> Self:
        self.start_events()
        self._s3 = start_s3(
            self.folder,
            self._ports[:10],
            (self._secrets["access"], self._secrets["secret"]),
            BUCKET,
            f"{self.events_url}/notifications",
        )
        client = self.client()
        if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
        return self

    def start_events(self) -> None:
        """Start the event bridge and the Lambda runtime."""
        logs, python = self.folder / "logs", sys.executable
        self._bridge = Process(
            [python, "-P", "-m", "podium.local.s3_events", str(self._ports[10])], logs / "events.log", os.environ
        )
        self._bridge.wait_for(f"{self.events_url}/status")
        environment = {
            **os.environ,
            "AWS_LAMBDA_RUNTIME_API": self.events_url.removeprefix("http://"),
            "PODIUM_REFRESH_TARGETS": f"http://127.0.0.1:{self.service_port}/refresh",
            "PODIUM_REFRESH_SECRET": self._secrets["hint"],
        }
        command = [python, "-P", "-m", "awslambdaric", "lambda_refresh.handler.handler"]
        self._lambda = Process(command, logs / "lambda.log", environment)

    def write_variables(self) -> Path:
        """Write the variables as a shell script, readable only by the owner, and return its path."""
        path = self.folder / "env"
        path.touch(mode=0o600)
        path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.variables.items()))
        return path

    def stop_events(self) -> None:
        for process in (self._lambda, self._bridge):
            if process:
                process.stop(2)
        self._lambda = self._bridge = None

    def stop(self) -> None:
        self.stop_events()
        if self._s3:
            self._s3.stop()
            self._s3 = None

    def client(self) -> Any:
        """Return a boto3 client for this S3 server."""
        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=self._secrets["access"],
            aws_secret_access_key=self._secrets["secret"],
            region_name="us-east-1",
        )

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _secrets(folder: Path) -> dict[str, str]:
    path = folder / "secrets.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        hint = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        signer = Signer.new()
        keys = {"signing": signer.private, "public": signer.public, "log": Signer.new().private}
        path.write_text(
            json.dumps({"access": secrets.token_hex(10), "secret": secrets.token_urlsafe(30), "hint": hint, **keys})
        )
    stored: dict[str, str] = json.loads(path.read_text())
    return stored
