"""Shared fixtures: S3 servers, promotion contexts and a running service. Each fixture stops what it starts."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pandas as pd
import pytest
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from podium.local import LocalCloud
from podium.local.http_client import Client
from podium.local.processes import Process, free_ports
from podium.local.services import promotion_context, start_service
from podium.project import Project
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.registry.signing import Signer, TrustPolicy, VerifyingKeys
from podium.registry.validation import Validator
from podium.registry.versions import Manifest, fetch_from, publish
from podium.storage.object_store import Store
from podium.training.local_run import train_locally
from podium.training.version_files import VersionReservation
from tests import tables

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

PROMOTERS = {"ann": "token-of-ann-0123456789", "bob": "token-of-bob-0123456789"}


os.environ["PODIUM_LOG_KEY"] = ""  # services log predictions only in the tests that set it


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """SeaweedFS, S3 events and the Lambda runtime, which notifies `cloud.service_port`."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), free_ports(1)[0]) as started:
        yield started


@pytest.fixture(scope="module")
def own_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """Another one, without the projects of other modules."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), free_ports(1)[0]) as started:
        yield started


@pytest.fixture(scope="session")
def seaweed(cloud: LocalCloud) -> Any:
    return cloud.client()


@pytest.fixture(scope="session")
def moto() -> Iterator[Any]:
    """A moto server, which makes no two conditional writes at once: it checks the condition before it writes."""
    lock, put_object = threading.Lock(), S3Response.put_object

    def put_alone(self: S3Response) -> Any:
        with lock:
            return put_object(self)

    S3Response.put_object = put_alone  # type: ignore[method-assign]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    yield boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    server.stop()
    S3Response.put_object = put_object  # type: ignore[method-assign]


@pytest.fixture(params=["moto", "seaweed"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty bucket on each of the two servers. It is deleted afterwards, because SeaweedFS has few volumes."""
    client = request.getfixturevalue(request.param)
    store = Store(client, f"test-{uuid4().hex[:12]}")
    client.create_bucket(Bucket=store.bucket)
    yield store
    for info in store.list_objects(""):
        store.delete(info.key)
    client.delete_bucket(Bucket=store.bucket)


@pytest.fixture(scope="session")
def cloud_store(cloud: LocalCloud) -> Store:
    return Store(cloud.client(), cloud.environment["PODIUM_BUCKET"])


@pytest.fixture(scope="session")
def validator() -> Iterator[Validator]:
    validator = Validator()
    yield validator
    validator.close()


@pytest.fixture(scope="session")
def cloud_context(cloud: LocalCloud, validator: Validator) -> PromotionContext:
    return replace(promotion_context(cloud), validator=validator)


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer.new()


@pytest.fixture
def context(store: Store, signer: Signer, validator: Validator) -> PromotionContext:
    """A promotion context for an empty bucket on each of the two servers."""
    keys = VerifyingKeys([signer.public])
    return PromotionContext(store, TrustPolicy(keys, keys), signer, "ann", fetch_from(store), validator)


Put = Callable[..., Manifest]


@pytest.fixture(scope="session")
def put_champion(cloud_context: PromotionContext) -> Put:
    """A function that trains a table and makes the result the champion of a project."""

    def put(frame: pd.DataFrame | bytes, **entries: Any) -> Manifest:
        return publish_champion(cloud_context, frame, Project(data="s3://podium/none", **entries))

    return put


def publish_version(context: PromotionContext, frame: pd.DataFrame | bytes, project: Project) -> Manifest:
    current = read_champion(context.store, project.name, context.trust.promoters)
    reservation = VersionReservation.now(datetime.now(UTC), uuid4().hex, "0" * 64, current.champion if current else None)
    manifest, files = train_locally(
        frame if isinstance(frame, bytes) else frame.to_csv(index=False).encode(), project, reservation, "trainer"
    )
    publish(context.store, manifest, files, context.signer)
    return manifest


def publish_champion(context: PromotionContext, frame: pd.DataFrame | bytes, project: Project) -> Manifest:
    manifest = publish_version(context, frame, project)
    promote(context, project.name, manifest.version, "a test", utc_now, force=True)
    return manifest


def projects_of(client: Client) -> set[str]:
    """Return the projects that the service has loaded."""
    return {item["project"] for item in client.get("/status").json()["serving"]}


@pytest.fixture(scope="session")
def service(cloud: LocalCloud, put_champion: Put, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A running service with the projects `mixed` (all kinds of columns), `prices` (regression) and `odd` (unusual names)."""
    selection: dict[str, Any] = {"features": {"max_features": 20}, "ensemble": False}
    short: dict[str, Any] = {"n_trials": 1, "budget": "6s"}
    put_champion(tables.mixed(), name="mixed", target="bought", columns=tables.MIXED_COLUMNS, **short, **selection)
    put_champion(tables.prices(), name="prices", target="price", **short)
    put_champion(tables.odd(), name="odd", target="y", n_trials=1, families=["linear"])
    folder = tmp_path_factory.mktemp("service")
    variables = {
        "PODIUM_POLL_SECONDS": "1",
        "PODIUM_ASYNC_THRESHOLD_BYTES": "400000",
        "PODIUM_PROMOTERS": json.dumps(PROMOTERS),
        "PODIUM_LOG_KEY": Signer.new().private,
    }
    process: Process = start_service({**cloud.environment, **variables}, cloud.service_port, folder)
    client = Client(f"http://127.0.0.1:{cloud.service_port}")
    try:
        client.wait_until(lambda: {"mixed", "prices", "odd"} <= projects_of(client), 60)
        client.wait_until(lambda: client.get("/status").json()["dask"]["mode"] == "cluster", 60)
        yield client
    finally:
        process.stop()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.exists():
        pytest.skip("needs the shared data folder next to the checkout")
    return SHARED


@pytest.fixture
def environment(cloud: LocalCloud, tmp_path: Path) -> dict[str, str]:
    """Environment variables for subprocesses: the cloud, and an empty folder for projects."""
    (tmp_path / "projects").mkdir()
    return {**cloud.environment, "PODIUM_PROJECTS": str(tmp_path / "projects"), "PATH": os.environ["PATH"]}
