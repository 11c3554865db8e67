"""Format values for display: numbers, sizes, times, durations, metrics and gates."""

from __future__ import annotations

from datetime import UTC, datetime

from podium.models.metrics import CLASSIFICATION, INFINITY_IN_CSV, REGRESSION
from podium.registry.audit_entry import GATE_TITLES

MISSING = "n/a"
METRIC_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "mape": "MAPE",
}
ACTION_LABELS = {
    "promote": "Promoted",
    "rollback": "Rolled back",
    "refuse": "Rejected",
    "retire": "Retired",
    "countersign": "Countersigned",
}


def format_number(number: object) -> str:
    """Format a float with four significant digits, or a large one as a whole number; other values become strings."""
    if number is None:
        return MISSING
    if isinstance(number, bool):
        return str(number).lower()
    if not isinstance(number, float):
        return str(number)
    if abs(number) >= INFINITY_IN_CSV:
        return "∞" if number > 0 else "-∞"
    return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"


def format_size(size: float) -> str:
    """Format a number of bytes in decimal units, such as 1.3 MB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def format_time(timestamp: str) -> str:
    """Format an ISO 8601 timestamp like 27 Nov 2026, 03:07 UTC."""
    moment = datetime.fromisoformat(timestamp).astimezone(UTC)
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def format_age(timestamp: str | None, now: datetime) -> str:
    """Format a recent ISO 8601 timestamp like 03:41:15 UTC (12 s ago)."""
    if not timestamp:
        return "never"
    moment = datetime.fromisoformat(timestamp).astimezone(UTC)
    seconds = max(0.0, (now - moment).total_seconds())
    return format_time(timestamp) if seconds >= 86_400 else f"{moment:%H:%M:%S} UTC ({format_duration(seconds)} ago)"


def format_duration(seconds: float) -> str:
    """Format a duration in seconds like 12 s, 29 min, 3 h or 2 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as 1 version or 2,000 versions."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def metric_label(name: str) -> str:
    return METRIC_LABELS.get(name, name)


def is_error_metric(name: str) -> bool:
    """Return whether lower values of a metric are better."""
    metric = (CLASSIFICATION | REGRESSION).get(name)
    return metric is not None and metric.sign < 0


def format_score(score: float | None, metric: str) -> str:
    """Format a leaderboard score, where higher is always better, with the metric's usual sign."""
    return MISSING if score is None else _four_digits(0 - score if is_error_metric(metric) else score)


def format_interval(low: float | None, high: float | None, metric: str) -> str:
    """Format the confidence interval of a leaderboard score with the metric's usual sign."""
    if low is None or high is None:
        return MISSING
    low, high = (-high, -low) if is_error_metric(metric) else (low, high)
    return f"{_four_digits(low)} – {_four_digits(high)}"


def _four_digits(number: float) -> str:
    """Format a float with four significant digits, including trailing zeros, so that columns align."""
    return f"{float(number):#.4g}".rstrip(".") if 1e-3 <= abs(number) < 1e4 else format_number(float(number))


def gate_label(name: str) -> str:
    return GATE_TITLES.get(name, name)


def action_label(action: str) -> str:
    return ACTION_LABELS.get(action, action)
