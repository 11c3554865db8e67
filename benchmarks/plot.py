"""Draw the figure of docs/explanation/benchmarks.md from the files that the other benchmarks write with --json.

`python -m benchmarks.plot serving.json large_table.json docs/images/benchmarks.svg`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

PEERS = ("naive FastAPI", "MLServer", "BentoML", "bare ASGI and a call of C")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("serving", "large_table", "output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "podium", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), width_ratios=(3, 2), layout="constrained")
    draw_requests(left, json.loads(options.serving.read_text())["streams"])
    draw_growth(right, json.loads(options.large_table.read_text()))
    figure.savefig(options.output, metadata={"Date": None})


def draw_requests(axes: Any, streams: dict[str, dict[str, float]]) -> None:
    """Draw the requests per second of every form of a record and of the peers."""
    names = list(reversed(streams))
    rates = [streams[name]["per_second"] for name in names]
    bars = axes.barh(names, rates, color=["#9aa5b1" if name in PEERS else "#2f6f9f" for name in names])
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
    axes.set(title="Requests per second, one record, 16 connections", xscale="log", xlim=(50, 100_000))
    axes.spines[["top", "right"]].set_visible(False)


def draw_growth(axes: Any, jobs: list[dict[str, float]]) -> None:
    """Draw the seconds and the memory of CSV files by their number of rows."""
    rows = [job["rows"] for job in jobs]
    axes.plot(rows, [job["seconds"] for job in jobs], "o-", color="#2f6f9f")
    axes.set(title="CSV file over HTTP, as a job", xlabel="rows", ylabel="seconds", xscale="log", yscale="log")
    for job in jobs:
        axes.annotate(
            f"+{job['megabytes']:.0f} MB", (job["rows"], job["seconds"]), (-12, 8), textcoords="offset points", fontsize=8
        )
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
