"""What is counted, and how Prometheus reads it."""

from __future__ import annotations

import bisect
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.active_models import ActiveModels

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets of durations, in seconds."""
MAX_RECENT = 5_000


COUNTERS = ("predictions", "swaps", "rows", "rejected", "inbox", "jobs", "background_failures", "log_lines")
SUMS = ("aliases_rejected",)
MAX_VERSIONS = 20
"""Of so many versions of a project answers are counted apart; older ones are dropped from the metrics."""
HISTOGRAMS = ("durations", "loads")


class Histogram:
    """A histogram that is cheap to add to."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        return list(zip([*map(str, BOUNDS), "+Inf"], map(float, accumulate(self.counts)), strict=True))


class Metrics(Collector):
    """Plain counters of one worker process, read when somebody asks."""

    def __init__(self, live: ActiveModels) -> None:
        self._live = live
        self.predictions: Counter[tuple[str, str, str]] = Counter()
        self.durations: dict[str, Histogram] = defaultdict(Histogram)
        self.loads: dict[str, Histogram] = defaultdict(Histogram)
        self.swaps: Counter[tuple[str, str]] = Counter()
        self.rows: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.inbox: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()
        self.background_failures: Counter[str] = Counter()
        self.log_lines: Counter[str] = Counter()
        self.aliases_rejected = self.aliases_missing = 0
        self.store_last_success, self.store_up = 0.0, False
        self.in_progress: Callable[[], int] = int
        self.waiting: Callable[[], int] = int
        self._versions: dict[str, dict[str, None]] = defaultdict(dict)
        self._recent: dict[str, deque[tuple[float, float, bool]]] = defaultdict(lambda: deque(maxlen=MAX_RECENT))
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, model: str, version: str, status: int, seconds: float) -> None:
        self.predictions[model, version, str(status)] += 1
        self.durations[model].add(seconds)
        self._recent[model].append((time.monotonic(), seconds, status >= 500))

    def swapped(self, model: str, version: str) -> None:
        """Count a swap, and drop the answers of versions that went long ago."""
        self.swaps[model, "done"] += 1
        versions = self._versions[model]
        versions.pop(version, None)
        versions[version] = None
        while len(versions) > MAX_VERSIONS:
            gone = next(iter(versions))
            del versions[gone]
            for key in [key for key in self.predictions if key[:2] == (model, gone)]:
                del self.predictions[key]

    def recent(self, model: str, since: float, until: float) -> dict[str, float | int | None]:
        """How the last requests fared that ended in a span of `time.monotonic`."""
        found = []
        for at, seconds, failed in reversed(list(self._recent[model])):
            if at < since:
                break
            if at < until:
                found.append((seconds, failed))
        ordered = sorted(seconds for seconds, _ in found)
        p99 = round(ordered[int(len(ordered) * 0.99)] * 1000, 3) if ordered else None
        return {"requests": len(found), "p99_milliseconds": p99, "failed": sum(failed for _, failed in found)}

    def dump(self) -> dict[str, Any]:
        """Everything that was counted, for another process to add."""
        counters = {name: [[*_labels(key), count] for key, count in getattr(self, name).items()] for name in COUNTERS}
        histograms = {name: {key: [d.counts, d.total] for key, d in getattr(self, name).items()} for name in HISTOGRAMS}
        sums = {name: getattr(self, name) for name in SUMS}
        now = {"in_progress": self.in_progress(), "waiting": self.waiting(), "aliases_missing": self.aliases_missing}
        store = {"store_last_success": self.store_last_success, "store_up": self.store_up}
        return {**counters, **histograms, **sums, **now, **store}

    def add(self, dump: Mapping[str, Any]) -> None:
        """What another process counted."""
        for name in COUNTERS:
            counter = getattr(self, name)
            for *labels, count in dump[name]:
                counter[tuple(labels) if len(labels) > 1 else labels[0]] += count
        for name in SUMS:
            setattr(self, name, getattr(self, name) + dump[name])
        for name in HISTOGRAMS:
            for key, (counts, total) in dump[name].items():
                durations = getattr(self, name)[key]
                durations.counts = [one + other for one, other in zip(durations.counts, counts, strict=True)]
                durations.total += total

    def with_others(self, dumps: Sequence[tuple[bool, Mapping[str, Any]]]) -> Metrics:
        """The sum over processes; only of living ones (the flag) are there requests in progress."""
        whole = Metrics(self._live)
        every = [(True, self.dump()), *dumps]
        for _, dump in every:
            whole.add(dump)
        living = [dump for alive, dump in every if alive]
        whole.in_progress = lambda: sum(dump["in_progress"] for dump in living)
        whole.waiting = lambda: sum(dump["waiting"] for dump in living)
        whole.aliases_missing = max(dump["aliases_missing"] for dump in living)
        whole.store_last_success = min(dump["store_last_success"] for dump in living)
        whole.store_up = all(dump["store_up"] for dump in living)
        return whole

    def served(self, model: str, version: str) -> int:
        """How often a version answered."""
        return sum(
            count
            for (name, made, status), count in self.predictions.items()
            if (name, made, status[0]) == (model, version, "2")
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        names = ["model_name", "model_version", "status"]
        answers = CounterMetricFamily("predictions", "Answers to prediction requests", labels=names)
        for labels, count in self.predictions.items():
            answers.add_metric(list(labels), count)
        yield answers
        yield from _histograms("prediction_request_duration_seconds", "From the request to its answer", self.durations)
        yield from _histograms("model_load_duration_seconds", "Fetch, proof and load of a version", self.loads)
        yield GaugeMetricFamily("requests_in_progress", "Requests that are worked on", value=self.in_progress())
        yield GaugeMetricFamily("queue_depth", "Requests that wait for their turn", value=self.waiting())
        yield GaugeMetricFamily("draining", "Whether the service is about to stop", value=float(self._live.draining))
        swaps = CounterMetricFamily("model_swap", "Swaps by result", labels=["model_name", "result"])
        for (model, result), count in self.swaps.items():
            swaps.add_metric([model, result], count)
        yield swaps
        rows = CounterMetricFamily("batch_rows", "Rows that were predicted", labels=["model_name"])
        for model, count in self.rows.items():
            rows.add_metric([model], count)
        yield rows
        shed = CounterMetricFamily("requests_rejected", "Requests that were turned away unread", labels=["reason"])
        for reason, count in self.rejected.items():
            shed.add_metric([reason], count)
        yield shed
        for name, text, label, counted in (
            ("dropbox_files", "Tables of the drop-box by result", "result", self.inbox),
            ("jobs", "Jobs that ended, by result", "result", self.jobs),
            ("background_task_failures", "Ends of tasks that run as long as the service", "task", self.background_failures),
            ("access_log_lines", "Lines of the access log that were not written", "result", self.log_lines),
        ):
            family = CounterMetricFamily(name, text, labels=[label])
            for key, count in counted.items():
                family.add_metric([key], count)
            yield family
        aliases = "Aliases that no accepted promoter signed, each time one is read"
        yield CounterMetricFamily("aliases_rejected", aliases, value=self.aliases_rejected)
        yield GaugeMetricFamily("aliases_missing", "Projects that serve without an alias", value=self.aliases_missing)
        last = "When the store was last looked at with success"
        yield GaugeMetricFamily("store_last_success_timestamp_seconds", last, value=self.store_last_success)
        yield GaugeMetricFamily("store_up", "Whether the last look at the store succeeded", value=float(self.store_up))
        info = GaugeMetricFamily("model_info", "What serves", labels=["model_name", "model_version", "digest"])
        made = GaugeMetricFamily("last_retrain_timestamp_seconds", "When what serves was made", labels=["model_name"])
        for snapshot in self._live.all():
            info.add_metric([snapshot.project, snapshot.version, snapshot.manifest_sha256], 1)
            made.add_metric([snapshot.project], snapshot.created.timestamp())
        yield info
        yield made


def _labels(key: object) -> tuple[object, ...]:
    return key if isinstance(key, tuple) else (key,)


def _histograms(name: str, text: str, found: dict[str, Histogram]) -> Iterator[Metric]:
    family = HistogramMetricFamily(name, text, labels=["model_name"])
    for model, durations in found.items():
        family.add_metric([model], durations.buckets(), durations.total)
    yield family
