"""Many records over Dask: pieces to workers that load and verify the same version by its digest."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster, Worker, WorkerPlugin

from podium.inference.served_model import ServedModel
from podium.models.model import Model
from podium.registry.loading import fetcher, load_manifest, load_model
from podium.registry.signing import VerifyingKeys
from podium.schema.arrays import FloatMatrix
from podium.settings import StoreSettings
from podium.storage.model_cache import ModelCache
from service.settings import ServiceSettings

log = logging.getLogger(__name__)
PIECES_PER_WORKER = 2
NO_LOGS = {"distributed.admin.low-level-log-length": 0, "distributed.admin.log-length": 0}
"""Dask keeps its last thousand messages, rows and all; walking through them held garbage collection up for 0.1 s."""
RETRY_SECONDS = 30
"""A cluster that failed is left alone for so long."""


@functools.lru_cache(maxsize=16)
def _model(project: str, version: str, sha256: str, family: str, bucket: str, cache: str, trainers: tuple[str, ...]) -> Model:
    """On a worker: the model, verified down from the manifest's digest, and kept."""
    fetch = fetcher(StoreSettings(bucket=bucket).store(), ModelCache(Path(cache)))
    return load_model(load_manifest(project, version, sha256, fetch, VerifyingKeys(trainers)), family, fetch)


class LowPriorityWorker(WorkerPlugin):
    """Workers leave the processor to the process that answers requests, whenever it wants it."""

    def setup(self, worker: Worker) -> None:
        os.nice(10)


def _scores(piece: pd.DataFrame, *model: Any) -> FloatMatrix:
    return _model(*model).scores(piece)


def local_cluster(workers: int) -> LocalCluster:
    """Processes of this host behind a scheduler on loopback."""
    dask.config.set(NO_LOGS)
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
        silence_logs=logging.ERROR,
    )
    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(LowPriorityWorker())
    return cluster


class DaskExecutor:
    """A Dask cluster: a local one with processes of its own, or one that runs already."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._cluster: LocalCluster | None = None
        self._starting = ThreadPoolExecutor(1)
        self._started = self._starting.submit(self._start) if settings.dask_workers or settings.dask_address else None
        self.batches = self.fallbacks = self.workers = 0
        self._rest_until = 0.0

    async def run(self) -> None:
        """As long as the service runs. Raises what kept the cluster from starting; called again, starts it again."""
        if self._started is not None:
            if self._started.done() and self._started.exception():
                self._started = self._starting.submit(self._start)
            await asyncio.wrap_future(self._started)
        await asyncio.Event().wait()

    def _start(self) -> None:
        settings = self._settings
        if settings.dask_address:
            self._client = Client(settings.dask_address, set_as_default=False, timeout=settings.dask_timeout)
            return
        self._cluster = self._cluster or local_cluster(settings.dask_workers)
        self._client = Client(self._cluster, set_as_default=False)
        gc.freeze()  # what is here now stays: collections need not look at it

    @property
    def state(self) -> dict[str, Any]:
        """For /status."""
        if self._started is None:
            return {"mode": "off"}
        if not self._started.done():
            return {"mode": "starting"}
        if error := self._started.exception():
            return {"mode": "failed", "error": type(error).__name__}
        return {"mode": "cluster", "workers": self.workers, "batches": self.batches, "fallbacks": self.fallbacks}

    def scores(self, snapshot: ServedModel, family: str, frame: pd.DataFrame) -> FloatMatrix:
        """(n, scores), in the order of the rows; blocks, so it runs in a thread. Without the cluster, in this process."""
        if self._started is None or time.monotonic() < self._rest_until:
            return snapshot.models[family].scores(frame)
        try:
            self._started.result(timeout=self._settings.dask_timeout)
            result = self._spread(snapshot, family, frame)
        except Exception:  # whatever is wrong with the cluster, the rows are answered here
            log.exception("Dask did not answer; the batch is answered in this process")
            self.fallbacks += 1
            self._rest_until = time.monotonic() + RETRY_SECONDS
            return snapshot.models[family].scores(frame)
        self.batches += 1
        return result

    def _spread(self, snapshot: ServedModel, family: str, frame: pd.DataFrame) -> FloatMatrix:
        assert self._client is not None
        end = time.monotonic() + self._settings.dask_timeout
        self.workers = len(self._client.nthreads())
        count = min(len(frame), PIECES_PER_WORKER * max(1, self.workers))
        cuts = np.linspace(0, len(frame), count + 1).astype(int)
        pieces = [frame.iloc[low:high] for low, high in pairwise(cuts)]
        bucket, cache = self._settings.bucket, str(self._settings.cache)
        version = (snapshot.project, snapshot.version, snapshot.manifest_sha256, family)
        model = (*version, bucket, cache, self._settings.trainer_keys)
        futures = [self._client.submit(_scores, piece, *model, pure=False) for piece in pieces]
        return np.vstack([future.result(timeout=max(0.0, end - time.monotonic())) for future in futures])

    def close(self) -> None:
        self._starting.shutdown(wait=True)
        if self._client:
            self._client.close()
        if self._cluster:
            self._cluster.close()
