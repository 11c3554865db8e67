"""Train tables of unusual shapes within their budget: seconds and memory, with the champion and its out-of-fold or test score.

Each table is read from CSV, trained, ranked and made into the files of a version, in a process of its own. The seconds of
training are compared with the budget; reading, ranking and the files come on top. `python -m benchmarks.budget`
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from podium.project import Project
from podium.registry.versions import LEADERBOARD_FILE
from podium.training.local_run import leaderboard, train_candidates
from podium.training.project_kinds import kind_of
from podium.training.reading import read_training_table
from podium.training.version_files import TrainedRun, VersionReservation


def table(rows: int, numbers: int, categories: int = 2, classes: int = 2) -> pd.DataFrame:
    """Return numbers, categories with 5 to 80 levels, and a target that depends on some of them; 0 classes give a number."""
    random = np.random.default_rng(rows)
    frame = pd.DataFrame(random.normal(size=(rows, numbers)).round(4), columns=[f"x{i}" for i in range(numbers)])
    total = frame["x0"] + np.sin(2 * frame["x1"]) * frame["x2"] + random.normal(size=rows) * 0.5
    for index in range(categories):
        levels = random.integers(0, 5 + 75 * index, rows)
        frame[f"c{index}"] = [f"level {level}" for level in levels]
        total += np.cos(levels)
    target = total.round(3) if not classes else pd.qcut(total, classes, labels=[f"class {i}" for i in range(classes)])
    return frame.assign(target=target)


CASES: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "11 rows × 4": (lambda: table(11, 3, 1), "60s"),
    "500 rows × 12": (lambda: table(500, 10), "60s"),
    "500 rows × 12, 10 s": (lambda: table(500, 10), "10s"),
    "50,000 rows × 22": (lambda: table(50_000, 20), "60s"),
    "50,000 rows × 22, numbers": (lambda: table(50_000, 20, classes=0), "60s"),
    "2,000 rows × 2,000": (lambda: table(2_000, 1_998), "60s"),
    "30,000 rows × 12, 300 classes": (lambda: table(30_000, 10, classes=300), "60s"),
    "1,000,000 rows × 30": (lambda: table(1_000_000, 28), "5m"),
}


def run(name: str) -> dict[str, object]:
    make, budget = CASES[name]
    data = make().to_csv(index=False).encode()
    project = Project(name="budget", data="s3://podium/x", target="target", budget=budget)
    times = [time.monotonic()]
    rows = kind_of(project).prepare(read_training_table(data, project, ""))
    times.append(time.monotonic())
    candidates = train_candidates(rows, project)
    times.append(time.monotonic())
    board = leaderboard(rows, candidates, project)
    reservation = VersionReservation("20260101T000000Z-00000000", "2026-01-01T00:00:00+00:00", "0", "0", None)
    TrainedRun(project, reservation, rows, candidates).version_files(
        {LEADERBOARD_FILE: board.to_csv(index=False).encode()}, "benchmark"
    )
    times.append(time.monotonic())
    best = board.iloc[0]
    return {
        "budget": int(project.budget_seconds),
        "seconds": np.diff(times).tolist(),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "best": f"{best['model']}, {best['eval_metric']} {abs(best['score_test']):.4g}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"one or more of: {'; '.join(CASES)}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one)))
        return
    print("| table | budget | reading | training | ranking and files | peak memory | best |\n|---|---|---|---|---|---|---|")
    for name in options.names or CASES:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.budget", "--one", name]
        done = subprocess.run(command, capture_output=True)
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.decode().strip().splitlines()[-1][:200]} |")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        reading, training, rest = (f"{seconds:.1f} s" for seconds in found["seconds"])
        memory = f"{found['megabytes']:,.0f} MB"
        print(f"| {name} | {found['budget']} s | {reading} | {training} | {rest} | {memory} | {found['best']} |", flush=True)


if __name__ == "__main__":
    main()
