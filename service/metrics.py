"""Counters and histograms of the service, and their exposition for Prometheus."""

from __future__ import annotations

import bisect
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.active_models import ActiveModels

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram buckets in seconds."""
MAX_RECENT = 5_000
MAX_VERSIONS = 20
"""Maximum versions per project with prediction counters; older ones are dropped."""
COUNTERS = (
    "predictions",
    "swaps",
    "rows",
    "rejected",
    "inbox",
    "jobs",
    "background_failures",
    "log_lines",
    "predictions_logged",
)
SUMS = ("aliases_rejected",)
HISTOGRAMS = ("request_durations", "load_durations")


class Histogram:
    """A histogram with fixed buckets and a cheap `add`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def quantile(self, fraction: float) -> float | None:
        """Return the bound in milliseconds of the bucket that has a quantile; None without values or above all bounds."""
        position = bisect.bisect_left(list(accumulate(self.counts)), fraction * sum(self.counts))
        return BOUNDS[position] * 1000 if sum(self.counts) and position < len(BOUNDS) else None

    def buckets(self) -> list[tuple[str, float]]:
        return list(zip([*map(str, BOUNDS), "+Inf"], map(float, accumulate(self.counts)), strict=True))


class Metrics(Collector):
    """Plain counters of one worker process; they are rendered only when Prometheus scrapes them."""

    def __init__(self, live: ActiveModels) -> None:
        self._live = live
        self.predictions: Counter[tuple[str, str, str]] = Counter()
        self.request_durations: dict[str, Histogram] = defaultdict(Histogram)
        self.load_durations: dict[str, Histogram] = defaultdict(Histogram)
        self.swaps: Counter[tuple[str, str]] = Counter()
        self.rows: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        # results that alerts watch are there from the start, because `increase` misses the first event of a new series
        self.inbox: Counter[str] = Counter(done=0, error=0, failed=0)
        self.jobs: Counter[str] = Counter(done=0, failed=0)
        self.background_failures: Counter[str] = Counter()
        self.log_lines: Counter[str] = Counter()
        self.predictions_logged: Counter[str] = Counter({"logged": 0, "refused": 0, "not logged": 0})
        self.aliases_rejected = self.aliases_missing = 0
        self.store_last_success, self.store_up = 0.0, False
        self.in_progress: Callable[[], int] = int
        self.queue_depth: Callable[[], int] = int
        self.log_waiting_bytes: Callable[[], int] = int
        self.reports: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
        self._versions: dict[str, dict[str, None]] = defaultdict(dict)
        self._recent: dict[str, deque[tuple[float, float, bool]]] = defaultdict(lambda: deque(maxlen=MAX_RECENT))
        self._registry = CollectorRegistry()
        self._registry.register(self)

    # --- recording -------------------------------------------------------------------------------------------------------

    def record_prediction(self, model: str, version: str, status: int, seconds: float) -> None:
        self.predictions[model, version, str(status)] += 1
        self.request_durations[model].add(seconds)
        self._recent[model].append((time.monotonic(), seconds, status >= 500))

    def record_swap(self, model: str, version: str) -> None:
        """Count a swap, and drop the prediction counters of the oldest versions over MAX_VERSIONS."""
        self.swaps[model, "done"] += 1
        self.swaps[model, "failed"] += 0
        versions = self._versions[model]
        versions.pop(version, None)
        versions[version] = None
        while len(versions) > MAX_VERSIONS:
            oldest = next(iter(versions))
            del versions[oldest]
            for key in [key for key in self.predictions if key[:2] == (model, oldest)]:
                del self.predictions[key]

    # --- reading ---------------------------------------------------------------------------------------------------------

    def recent(self, model: str, since: float, until: float) -> dict[str, float | int | None]:
        """Return the latency and failures of recent requests that ended from `since` to `until` (`time.monotonic`)."""
        requests = []
        for ended, seconds, failed in reversed(list(self._recent[model])):
            if ended < since:
                break
            if ended < until:
                requests.append((seconds, failed))
        durations = sorted(seconds for seconds, _ in requests)
        p99 = round(durations[int(len(durations) * 0.99)] * 1000, 3) if durations else None
        return {"requests": len(requests), "p99_milliseconds": p99, "failed": sum(failed for _, failed in requests)}

    def successful(self, model: str, version: str) -> int:
        """Return how many prediction requests a version answered with a 2xx status."""
        return sum(
            count for (name, v, status), count in self.predictions.items() if (name, v, status[0]) == (model, version, "2")
        )

    def summary(self, model: str) -> dict[str, Any]:
        """Return how many requests each version of a project answered, and bounds of their duration."""
        versions: dict[str, dict[str, int]] = {}
        for (name, version, status), count in self.predictions.items():
            if name == model:
                counts = versions.setdefault(version, {"answered": 0, "failed": 0})
                counts["answered" if status.startswith("2") else "failed"] += count
        durations = self.request_durations.get(model, Histogram())
        quantiles = {"median_milliseconds": durations.quantile(0.5), "p99_milliseconds": durations.quantile(0.99)}
        return {"versions": [{"version": version, **counts} for version, counts in versions.items()], **quantiles}

    def dump(self) -> dict[str, Any]:
        """Return all metrics as JSON values, for the other workers of the host."""
        counters = {name: [[*_labels(key), count] for key, count in getattr(self, name).items()] for name in COUNTERS}
        histograms = {name: {key: [h.counts, h.total] for key, h in getattr(self, name).items()} for name in HISTOGRAMS}
        sums = {name: getattr(self, name) for name in SUMS}
        gauges = {
            "in_progress": self.in_progress(),
            "queue_depth": self.queue_depth(),
            "log_waiting_bytes": self.log_waiting_bytes(),
            "aliases_missing": self.aliases_missing,
            "store_last_success": self.store_last_success,
            "store_up": self.store_up,
        }
        return {**counters, **histograms, **sums, **gauges}

    def add(self, dump: Mapping[str, Any]) -> None:
        """Add the counters, sums and histograms of another process."""
        for name in COUNTERS:
            counter = getattr(self, name)
            for *labels, count in dump[name]:
                counter[tuple(labels) if len(labels) > 1 else labels[0]] += count
        for name in SUMS:
            setattr(self, name, getattr(self, name) + dump[name])
        for name in HISTOGRAMS:
            for key, (counts, total) in dump[name].items():
                histogram = getattr(self, name)[key]
                histogram.counts = [a + b for a, b in zip(histogram.counts, counts, strict=True)]
                histogram.total += total

    def merged_with(self, dumps: Sequence[tuple[bool, Mapping[str, Any]]]) -> Metrics:
        """Return the metrics of all workers, given (alive, dump) pairs of the others; gauges of dead workers are ignored."""
        merged = Metrics(self._live)
        workers = [(True, self.dump()), *dumps]
        for _, dump in workers:
            merged.add(dump)
        alive = [dump for is_alive, dump in workers if is_alive]
        merged.in_progress = lambda: sum(dump["in_progress"] for dump in alive)
        merged.queue_depth = lambda: sum(dump["queue_depth"] for dump in alive)
        merged.log_waiting_bytes = lambda: max(dump["log_waiting_bytes"] for dump in alive)
        merged.reports = self.reports
        merged.aliases_missing = max(dump["aliases_missing"] for dump in alive)
        merged.store_last_success = min(dump["store_last_success"] for dump in alive)
        merged.store_up = all(dump["store_up"] for dump in alive)
        return merged

    # --- exposition ------------------------------------------------------------------------------------------------------

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families; called by prometheus_client."""
        model_labels = ["model_name", "model_version", "status"]
        yield _counter("predictions", "Prediction requests by status", model_labels, self.predictions)
        yield _histogram("prediction_request_duration_seconds", "Duration of prediction requests", self.request_durations)
        yield _histogram("model_load_duration_seconds", "Time to fetch, validate and load a version", self.load_durations)
        yield GaugeMetricFamily("requests_in_progress", "Requests in progress", value=self.in_progress())
        yield GaugeMetricFamily("queue_depth", "Queued requests", value=self.queue_depth())
        yield GaugeMetricFamily("draining", "1 while the service is shutting down", value=float(self._live.draining))
        yield _counter("model_swap", "Model swaps by result", ["model_name", "result"], self.swaps)
        yield _counter("batch_rows", "Predicted rows", ["model_name"], self.rows)
        yield _counter("requests_rejected", "Requests rejected by admission control", ["reason"], self.rejected)
        yield _counter("inbox_files", "Processed inbox files by result", ["result"], self.inbox)
        yield _counter("jobs", "Finished jobs by result", ["result"], self.jobs)
        yield _counter("background_task_failures", "Restarts of background tasks", ["task"], self.background_failures)
        yield _counter("access_log_lines", "Access log lines that were not written, by result", ["result"], self.log_lines)
        yield _counter("prediction_log_requests", "Requests by what the log did", ["result"], self.predictions_logged)
        waiting = "Bytes of predictions that wait on this host to be written to the object store"
        yield GaugeMetricFamily("prediction_log_waiting_bytes", waiting, value=self.log_waiting_bytes())
        rejected = "Times an alias without a trusted signature was read"
        yield CounterMetricFamily("aliases_rejected", rejected, value=self.aliases_rejected)
        yield GaugeMetricFamily("aliases_missing", "Served projects without an alias", value=self.aliases_missing)
        last = "Time of the last successful check of the object store"
        yield GaugeMetricFamily("store_last_success_timestamp_seconds", last, value=self.store_last_success)
        up = "1 if the last check of the object store succeeded"
        yield GaugeMetricFamily("store_up", up, value=float(self.store_up))
        yield from self._served_models()
        yield from self._monitoring()

    def _monitoring(self) -> Iterator[Metric]:
        """Yield what the last report of each project says."""
        error = GaugeMetricFamily("model_error", "Error of the last reported day", labels=["model_name", "kind"])
        drift = GaugeMetricFamily(
            "model_drift_auc", "ROC AUC of a classifier of the day's rows and training rows", labels=["model_name"]
        )
        alarms = GaugeMetricFamily("model_alarms", "Alarms of the last reported day", labels=["model_name"])
        last = GaugeMetricFamily("model_report_timestamp_seconds", "The last reported day", labels=["model_name"])
        for project, report in self.reports().items():
            for kind in ("expected", "allowed", "estimated"):
                if (value := report.get("error", {}).get(kind)) is not None:
                    error.add_metric([project, kind], value)
            if "drift" in report:
                drift.add_metric([project], report["drift"]["joint"])
            alarms.add_metric([project], len(report["alarms"]))
            last.add_metric([project], datetime.fromisoformat(f"{report['day']}T00:00:00+00:00").timestamp())
        yield from (error, drift, alarms, last)

    def _served_models(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("model_info", "Deployed versions", labels=["model_name", "model_version", "digest"])
        created = "Creation time of the deployed version"
        retrained = GaugeMetricFamily("last_retrain_timestamp_seconds", created, labels=["model_name"])
        for served in self._live.all():
            info.add_metric([served.project, served.version, served.manifest_sha256], 1)
            retrained.add_metric([served.project], served.created.timestamp())
        yield info
        yield retrained


def _labels(key: Any) -> Sequence[str]:
    return key if isinstance(key, tuple) else (key,)


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric(_labels(key), count)
    return family


def _histogram(name: str, text: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["model_name"])
    for model, histogram in histograms.items():
        family.add_metric([model], histogram.buckets(), histogram.total)
    return family
