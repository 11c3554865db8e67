"""The pieces that a demo is made of: demo tables on S3, the pipeline, the service."""

from __future__ import annotations

import json
import os
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
    """scikit-learn's own table, with the diagnosis in words."""
    bunch = datasets.load_breast_cancer(as_frame=True)
    return bunch.data.assign(diagnosis=[bunch.target_names[code] for code in bunch.target])


def put_table(cloud: LocalCloud, key: str, frame: pd.DataFrame) -> bool:
    """Put a CSV on S3 unless these very bytes lie there; says whether it did."""
    data = frame.to_csv(index=False).encode()
    client = cloud.client()
    bucket = cloud.environment["PODIUM_BUCKET"]
    listed = client.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
    if key in [entry["Key"] for entry in listed] and client.get_object(Bucket=bucket, Key=key)["Body"].read() == data:
        return False
    client.put_object(Bucket=bucket, Key=key, Body=data)
    return True


def run_pipeline(
    environment: Mapping[str, str], project: str, task: str = "Pipeline", *more: str, quiet: bool = False
) -> float:
    """The luigi command as a user types it; returns the seconds, raises CalledProcessError."""
    luigi = str(Path(sysconfig.get_path("scripts")) / "luigi")
    named = ["--project", project] if project else []
    command = [luigi, "--module", "luigi_tasks", task, *named, "--local-scheduler", "--workers", "2", *more]
    started = time.perf_counter()
    own = {**environment, "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}
    child = subprocess.Popen(command, env=own, cwd=ROOT, stdout=sys.stderr if quiet else None, start_new_session=True)
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
    """Where a person with the cloud's own keys promotes."""
    environment = cloud.environment
    store, keys = (
        Store(cloud.client(), environment["PODIUM_BUCKET"]),
        VerifyingKeys(json.loads(environment["PODIUM_TRAINER_KEYS"])),
    )
    return PromotionContext(
        store, TrustPolicy(keys, keys), Signer.parse(environment["PODIUM_SIGNING_KEY"]), "demo", fetch_from(store)
    )


def start_service(environment: Mapping[str, str], port: int, folder: Path, workers: int = 1) -> Process:
    """The service with its cache under `folder`, answering when this returns."""
    own = {**environment, "PODIUM_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "podium.cli.main", "serve", "--port", str(port), "--workers", str(workers)]
    process = Process(command, folder / "logs" / "service.log", own)
    process.wait_for(f"http://127.0.0.1:{port}/livez", 60)
    return process
