"""A local cloud with a champion, and a service on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process
from podium.local.services import promotion_context, start_service
from podium.project import Project
from podium.registry.promotion import promote, utc_now
from podium.registry.versions import publish
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation


@dataclass(frozen=True, slots=True)
class RunningService:
    """A ready service, its client and its process."""

    port: int
    client: Client
    process: Process


@contextmanager
def running_service(
    cloud: LocalCloud,
    folder: Path,
    port: int,
    variables: Mapping[str, str] | None = None,
    *,
    workers: int = 1,
    dask: bool = False,
) -> Iterator[RunningService]:
    """Start a service and wait until it is ready; with `dask` also until its cluster runs."""
    process = start_service({**cloud.environment, **(variables or {})}, port, folder, workers=workers)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait_until(lambda: client.get("/readyz").status == 200, 60)
        if dask:
            client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
        yield RunningService(port, client, process)
    finally:
        process.stop(30)


def put_champion(cloud: LocalCloud) -> str:
    """Train and promote a linear model of `prices`; return its version."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"area": random.uniform(20, 200, 500).round(1), "rooms": random.integers(1, 7, 500)})
    frame = frame.assign(price=frame["area"] * 3000 + frame["rooms"] * 5000)
    project = Project(name="prices", data="s3://podium/none", target="price", families=("linear",), n_trials=1)
    return publish_champion(cloud, frame, project)


def publish_champion(cloud: LocalCloud, frame: pd.DataFrame, project: Project, champion: str = "") -> str:
    """Train, publish and promote a version; return its name. `champion` names the model that serves, whatever its rank."""
    context = promotion_context(cloud)
    reservation = VersionReservation.now(datetime.now(UTC), "0" * 24, "0" * 64, None)
    manifest, files = train_locally(frame.to_csv(index=False).encode(), project, reservation, "benchmark")
    if champion:
        manifest = manifest.model_copy(update={"champion": champion})
    publish(context.store, manifest, files, context.signer)
    promote(context, project.name, manifest.version, "benchmark", utc_now)
    context.validator.close()
    return manifest.version
