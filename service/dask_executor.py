"""Predict many rows on a Dask cluster, whose workers load and verify the same version by its digest."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle, islice
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
MIN_BLOCK_ROWS = 1000
NO_MESSAGE_LOGS = {"distributed.admin.low-level-log-length": 0, "distributed.admin.log-length": 0}
"""By default, Dask keeps its last thousand messages with their rows, which makes garbage collections take 0.1 s."""
START_SECONDS = 10
"""How long workers may take to start an actor: a dead one never does, and the scheduler learns of it late."""
RETRY_SECONDS = 30
"""How many seconds to avoid the cluster after a failure."""


@functools.lru_cache(maxsize=16)
def _model(project: str, version: str, sha256: str, family: str, bucket: str, cache: str, trainers: tuple[str, ...]) -> Model:
    """Load a model on a Dask worker and verify it by the digest of its manifest."""
    fetch = fetcher(StoreSettings(bucket=bucket).store(), ModelCache(Path(cache)))
    return load_model(load_manifest(project, version, sha256, fetch, VerifyingKeys(trainers)), family, fetch)


class LowPriorityWorker(WorkerPlugin):
    """Runs Dask workers at nice 10, so that they yield to the web process."""

    def setup(self, worker: Worker) -> None:
        os.nice(10)


class BlockScorer:
    """A Dask actor, one per worker: calls go straight to the worker, which takes a tenth of the time of a task."""

    def scores(self, features: FloatMatrix, *model: Any) -> FloatMatrix:
        """Return the (n, outputs) scores of a block of features."""
        return _model(*model).scorer.scores(features)


def _remaining(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())


def local_cluster(workers: int) -> LocalCluster:
    """Start a scheduler on the loopback interface with worker processes."""
    dask.config.set(NO_MESSAGE_LOGS)
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
    """Scores rows on a Dask cluster: a local one, or an existing one at a configured address."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._cluster: LocalCluster | None = None
        self._starter = ThreadPoolExecutor(1)
        self._started = self._starter.submit(self._start) if settings.dask_workers or settings.dask_address else None
        self.batches = self.fallbacks = self.workers = 0
        self._scorers: dict[str, Any] = {}
        self._turn, self._lock = count(), threading.Lock()
        self._retry_at = 0.0

    async def run(self) -> None:
        """Run for as long as the service does. Raises if the cluster fails to start; the next call tries to start it again."""
        if self._started is not None:
            if self._started.done() and self._started.exception():
                self._started = self._starter.submit(self._start)
            await asyncio.wrap_future(self._started)
        await asyncio.Event().wait()

    def _start(self) -> None:
        settings = self._settings
        if settings.dask_address:
            self._client = Client(settings.dask_address, set_as_default=False, timeout=settings.dask_timeout)
        else:
            self._cluster = self._cluster or local_cluster(settings.dask_workers)
            self._client = Client(self._cluster, set_as_default=False)
        self.workers = len(self._client.nthreads())
        gc.freeze()  # exclude the objects of the cluster from garbage collection

    @property
    def state(self) -> dict[str, Any]:
        """The mode of the cluster and its counters, for /status."""
        if self._started is None:
            return {"mode": "off"}
        if not self._started.done():
            return {"mode": "starting"}
        if error := self._started.exception():
            return {"mode": "failed", "error": type(error).__name__}
        return {"mode": "cluster", "workers": self.workers, "batches": self.batches, "fallbacks": self.fallbacks}

    def scores(self, served: ServedModel, family: str, frame: pd.DataFrame) -> FloatMatrix:
        """Return the (n, scores) array of a typed frame; see `scores_of`."""
        return self.scores_of(served, family, served.models[family].encoder.transform(frame))

    def scores_of(self, served: ServedModel, family: str, features: FloatMatrix) -> FloatMatrix:
        """Return an (n, scores) array in row order; falls back to this process. Blocks, so call it in a thread."""
        scorer = served.models[family].scorer
        if self._started is None or time.monotonic() < self._retry_at:
            return scorer.scores(features)
        try:
            self._started.result(timeout=self._settings.dask_timeout)
            result = self._scores_on_cluster(served, family, features)
        except Exception:  # whatever is wrong with the cluster, fall back to this process
            log.exception("Dask failed; predicting the batch in this process")
            self.fallbacks += 1
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._scorers = {}
            return scorer.scores(features)
        self.batches += 1
        return result

    def _scores_on_cluster(self, served: ServedModel, family: str, features: FloatMatrix) -> FloatMatrix:
        assert self._client is not None
        deadline = time.monotonic() + self._settings.dask_timeout
        scorers = self._scorers_of_workers(self._client, deadline)
        blocks = np.array_split(features, max(1, min(len(features) // MIN_BLOCK_ROWS, len(scorers))))
        bucket, cache = self._settings.bucket, str(self._settings.cache)
        model = served.project, served.version, served.manifest_sha256, family, bucket, cache, self._settings.trainer_keys
        first = next(self._turn) % len(scorers)
        futures = [
            scorer.scores(np.ascontiguousarray(block), *model)
            for scorer, block in zip(islice(cycle(scorers), first, None), blocks, strict=False)
        ]
        return np.vstack([future.result(timeout=_remaining(deadline)) for future in futures])

    def _scorers_of_workers(self, client: Client, deadline: float) -> list[Any]:
        """Return an actor of each worker; start those of new workers. Raises TimeoutError, soon if a worker has died."""
        deadline = min(deadline, time.monotonic() + START_SECONDS)
        if not self._lock.acquire(timeout=_remaining(deadline)):
            raise TimeoutError("another batch waits for the workers")
        try:
            if time.monotonic() < self._retry_at:
                raise TimeoutError("another batch failed")
            workers = list(client.nthreads(callback_timeout=_remaining(deadline)))
            with client.as_current():
                started = {
                    worker: client.submit(BlockScorer, actor=True, workers=[worker], pure=False)
                    for worker in workers
                    if worker not in self._scorers
                }
                actors = {worker: future.result(timeout=_remaining(deadline)) for worker, future in started.items()}
            self._scorers = {worker: actors.get(worker) or self._scorers[worker] for worker in workers}
            self.workers = len(workers)
            return list(self._scorers.values())
        finally:
            self._lock.release()

    def close(self) -> None:
        self._starter.shutdown(wait=True)
        if self._client:
            self._client.close()
        if self._cluster:
            self._cluster.close()
