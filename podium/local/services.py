"""Demo tables on S3, the pipeline and the service of a local cloud."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from sklearn import datasets

from podium.local import LocalCloud
from podium.local.processes import Process
from podium.registry.promotion import PromotionContext
from podium.registry.signing import Signer, TrustPolicy, VerifyingKeys
from podium.registry.versions import fetch_from
from podium.settings import ROOT
from podium.storage.object_store import Store


def breast_cancer() -> pd.DataFrame:
    """Return scikit-learn's breast cancer table with the class names as target."""
    bunch = datasets.load_breast_cancer(as_frame=True)
    return bunch.data.assign(diagnosis=[bunch.target_names[code] for code in bunch.target])


def put_table(cloud: LocalCloud, key: str, frame: pd.DataFrame) -> bool:
    """Upload a table as CSV unless S3 already has the same bytes; return whether it was uploaded."""
    data = frame.to_csv(index=False).encode()
    client = cloud.client()
    bucket = cloud.environment["PODIUM_BUCKET"]
    listed = client.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
    if key in [entry["Key"] for entry in listed] and client.get_object(Bucket=bucket, Key=key)["Body"].read() == data:
        return False
    client.put_object(Bucket=bucket, Key=key, Body=data)
    return True


def run_pipeline(
    environment: Mapping[str, str], project: str, task: str = "Pipeline", *options: str, quiet: bool = False
) -> float:
    """Run a Luigi task and return the seconds it took. Raises CalledProcessError.

    If PODIUM_LUIGI_COMMAND is set, it is run instead of this environment's luigi, for example to test a built image.
    """
    luigi = f"{Path(sysconfig.get_path('scripts')) / 'luigi'} --module luigi_tasks"
    project_option = ["--project", project] if project else []
    program = shlex.split(environment.get("PODIUM_LUIGI_COMMAND", luigi))
    command = [*program, task, *project_option, "--local-scheduler", "--workers", "2", *options]
    started = time.perf_counter()
    variables = {**environment, "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}
    child = subprocess.Popen(command, env=variables, cwd=ROOT, stdout=sys.stderr if quiet else None, start_new_session=True)
    try:
        code = child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    if code:
        raise subprocess.CalledProcessError(code, command)
    return time.perf_counter() - started


def promotion_context(cloud: LocalCloud) -> PromotionContext:
    """Return a context for promotions with the keys of the cloud."""
    environment = cloud.environment
    store, keys = (
        Store(cloud.client(), environment["PODIUM_BUCKET"]),
        VerifyingKeys(json.loads(environment["PODIUM_TRAINER_KEYS"])),
    )
    return PromotionContext(
        store, TrustPolicy(keys, keys), Signer.parse(environment["PODIUM_SIGNING_KEY"]), "demo", fetch_from(store)
    )


def start_service(environment: Mapping[str, str], port: int, folder: Path, workers: int = 1) -> Process:
    """Start the service with its cache in `folder`, and wait until it responds.

    If PODIUM_SERVE_COMMAND is set, it is run instead of this environment's service, for example to test a built image.
    """
    variables = {**environment, "PODIUM_CACHE": str(folder / "cache"), "PODIUM_JOURNAL": str(folder / "journal")}
    program = shlex.split(environment.get("PODIUM_SERVE_COMMAND", f"{sys.executable} -P -m podium.cli.main serve"))
    command = [*program, "--port", str(port), "--workers", str(workers)]
    process = Process(command, folder / "logs" / "service.log", variables)
    process.wait_for(f"http://127.0.0.1:{port}/livez", 60)
    return process
