"""Values as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from podium.formatting import (
    count,
    format_age,
    format_duration,
    format_interval,
    format_number,
    format_score,
    format_size,
    format_time,
    gate_label,
)

NOW = datetime(2026, 11, 27, 3, 41, 27, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "n/a"),
        (True, "true"),
        (20240101, "20240101"),
        (0.123456, "0.1235"),
        (12345.6, "12,346"),
        (1e300, "∞"),
        ("benign", "benign"),
    ],
)
def test_a_number_has_four_significant_digits(number: object, text: str) -> None:
    assert format_number(number) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1_336_894, "1.3 MB"), (500_000_000, "500 MB"), (2e12, "2,000.0 GB")]
)
def test_a_size_has_a_decimal_unit(size: float, text: str) -> None:
    assert format_size(size) == text


def test_times_are_in_utc() -> None:
    assert format_time("2026-11-07T05:07:59+02:00") == "7 Nov 2026, 03:07 UTC"
    assert format_age("2026-11-27T03:41:15+00:00", NOW) == "03:41:15 UTC (12 s ago)"
    assert format_age("2026-11-20T03:41:15+00:00", NOW) == "20 Nov 2026, 03:41 UTC"
    assert format_age(None, NOW) == "never"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (90, "90 s"), (1755, "29 min"), (7200, "2 h"), (1e6, "12 days")])
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_error_metrics_are_positive() -> None:
    assert (format_score(-0.25, "log_loss"), format_interval(-0.3, -0.2, "log_loss")) == ("0.2500", "0.2000 – 0.3000")
    assert (format_score(0.995, "roc_auc"), format_interval(0.99, 1.0, "roc_auc")) == ("0.9950", "0.9900 – 1.000")
    assert (format_score(-8056.0, "rmse"), format_score(-22545.0, "rmse")) == ("8056", "22,545")
    assert (format_score(None, "rmse"), format_interval(None, None, "rmse")) == ("n/a", "n/a")


def test_nouns_and_labels() -> None:
    assert (count(1, "version"), count(2000, "entry", "entries")) == ("1 version", "2,000 entries")
    assert (gate_label("min-score"), gate_label("golden-rows")) == ("Minimum score", "Golden rows")
