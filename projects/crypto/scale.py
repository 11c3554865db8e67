"""How seconds and memory grow with the number of symbols: a week's retraining and a day's forecasts, each in a process."""

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
SHORT = 'families = ["persistence", "linear", "lightgbm"]\nn_trials = 1\n'


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    megabytes: float


def measure(scene: AcceptanceEnvironment, symbols: int) -> tuple[Cost, Cost]:
    """A week's retraining, three weeks being there, and a day's forecasts for each of the symbols."""
    project = f"market-{symbols}"
    environment = {**scene.cloud.environment, "PODIUM_PROJECTS": str(_described(scene.folder, project))}
    files = list(daily(market(names(symbols), DAYS, FIRST)))
    for day, data in files[:-7]:
        scene.put(f"raw/{project}/{day}.csv", data)
    _luigi(environment, "Ingest", "--project", project)
    for day, data in files[-7:]:
        scene.put(f"raw/{project}/{day}.csv", data)
    week = _luigi(environment, "Retrain", "--project", project, "--date", str(FIRST + timedelta(DAYS - 1)))
    last = b"".join(data if not place else data.partition(b"\n")[2] for place, (_, data) in enumerate(files[-6:]))
    scene.put(f"raw/{project}-last.csv", last)
    source = f"s3://{scene.context.store.bucket}/raw/{project}-last.csv"
    return week, _luigi(environment, "PredictBatch", "--project", project, "--source", source)


def _described(folder: Path, project: str) -> Path:
    """A project file of its own, with the panel of the coins and the short search."""
    text = (ROOT / "projects" / "crypto" / "project.toml").read_text()
    text = text.replace("raw/crypto/", f"raw/{project}/").replace("n_trials = 2\n", SHORT).partition("[inbox]")[0]
    path = folder / "projects" / project / "project.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("lags = 5", "lags = 5\nmax_rows = 1000000"))
    return path.parents[1]


def _luigi(environment: Mapping[str, str], task: str, *arguments: str) -> Cost:
    """The luigi command; its seconds, and the most memory of its largest process. Raises CalledProcessError."""
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


def report(scene: AcceptanceEnvironment, sizes: tuple[int, ...]) -> dict[int, Any]:
    """Figures of each size; the growth from the first to the last must not be faster than the number of symbols."""
    found = {size: measure(scene, size) for size in sizes}
    for size, (week, day) in found.items():
        scene.figure(f"{size}_symbols_a_week's_retraining", f"{week.seconds:.1f} s, {week.megabytes:.0f} MB")
        scene.figure(f"{size}_symbols_a_day's_forecasts", f"{day.seconds:.1f} s, {day.megabytes:.0f} MB")
    return found
