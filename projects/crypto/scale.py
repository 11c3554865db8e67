"""Measure how time and memory grow with the number of symbols, for weekly retraining and daily forecasts."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from podium.local.acceptance import AcceptanceEnvironment
from podium.settings import ROOT
from projects.crypto.market import daily, market, names

DAYS = 28
FIRST = date(2026, 1, 5)
SHORT_SEARCH = 'families = ["persistence", "linear", "lightgbm"]\nn_trials = 1\n'


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    megabytes: float


def measure(env: AcceptanceEnvironment, symbols: int) -> tuple[Cost, Cost]:
    """Return the costs of retraining on a fourth week and of one day of forecasts."""
    project = f"market-{symbols}"
    environment = {**env.cloud.environment, "PODIUM_PROJECTS": str(_write_project(env.folder, project))}
    files = list(daily(market(names(symbols), DAYS, FIRST)))
    for day, data in files[:-7]:
        env.put(f"raw/{project}/{day}.csv", data)
    _run_luigi(environment, "Ingest", "--project", project)
    for day, data in files[-7:]:
        env.put(f"raw/{project}/{day}.csv", data)
    week = _run_luigi(environment, "Retrain", "--project", project, "--date", str(FIRST + timedelta(DAYS - 1)))
    last = b"".join(data if not index else data.partition(b"\n")[2] for index, (_, data) in enumerate(files[-6:]))
    env.put(f"raw/{project}-last.csv", last)
    source = f"s3://{env.context.store.bucket}/raw/{project}-last.csv"
    return week, _run_luigi(environment, "PredictBatch", "--project", project, "--source", source)


def _write_project(folder: Path, project: str) -> Path:
    """Write a project file with the panel of the coins and a short search; return the folder of projects."""
    text = (ROOT / "projects" / "crypto" / "project.toml").read_text()
    text = text.replace("raw/crypto/", f"raw/{project}/").replace("n_trials = 2\n", SHORT_SEARCH).partition("[inbox]")[0]
    path = folder / "projects" / project / "project.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("lags = 5", "lags = 5\nmax_rows = 1000000"))
    return path.parents[1]


def _run_luigi(environment: Mapping[str, str], task: str, *arguments: str) -> Cost:
    """Run luigi; return its seconds and the peak memory of its largest process. Raises CalledProcessError."""
    command = [
        str(Path(sysconfig.get_path("scripts")) / "luigi"),
        "--module",
        "luigi_tasks",
        task,
        "--local-scheduler",
        *arguments,
    ]
    started = time.perf_counter()
    child = subprocess.Popen(
        command, env={**environment, "LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}, cwd=ROOT, stdout=sys.stderr
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(time.perf_counter() - started, used.ru_maxrss / 1024)


def report(env: AcceptanceEnvironment, sizes: tuple[int, ...]) -> dict[int, Any]:
    """Report and return the costs of each size."""
    costs = {size: measure(env, size) for size in sizes}
    for size, (week, day) in costs.items():
        env.figure(f"{size}_symbols_weekly_retraining", f"{week.seconds:.1f} s, {week.megabytes:.0f} MB")
        env.figure(f"{size}_symbols_daily_forecasts", f"{day.seconds:.1f} s, {day.megabytes:.0f} MB")
    return costs
