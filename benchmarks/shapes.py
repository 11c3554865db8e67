"""Compare Podium with a naive FastAPI app on unusual models, one record and a list of 1,000 at a time.

Models of 2,000 columns, 50 classes, 1,000 trees with 255 leaves, and one without trees, with the same parameters and columns
on both sides. `python -m benchmarks.shapes`
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import podium.training.candidates
from benchmarks.environment import publish_champion, running_service
from benchmarks.serving import post_all, serve
from podium.local import LocalCloud
from podium.local.processes import free_ports
from podium.project import Project
from podium.training.families import FAMILIES
from podium.training.feature_selection import FeatureDecision

LIST_ROWS, RECORDS = 1000, 300


@dataclass(frozen=True, slots=True)
class Shape:
    """A table and the model to train on it."""

    rows: int
    columns: int
    classes: int
    trees: dict[str, Any] = field(default_factory=dict)
    """LightGBM's parameters; empty for a logistic regression."""


SHAPES = {
    "2,000 columns": Shape(1500, 2000, 2, {"n_estimators": 100, "num_leaves": 31}),
    "50 classes": Shape(5000, 20, 50, {"n_estimators": 50, "num_leaves": 15}),
    "1,000 trees of 255 leaves": Shape(60_000, 20, 2, {"n_estimators": 1000, "num_leaves": 255, "learning_rate": 0.02}),
    "no trees": Shape(5000, 20, 2),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    podium.training.candidates.select_features = _keep_all
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory(prefix="podium-shapes-") as folder:
            for unit, (ours, naive) in measure(Path(folder), shape).items():
                ratio = naive / ours if "ms" in unit else ours / naive
                print(f"{name:>26} {unit:>24}: Podium {ours:>10,.2f}, naive {naive:>10,.2f}, {ratio:>6.1f} ×", flush=True)


def _keep_all(features: Any, target: Any, names: list[str], *_: Any) -> list[FeatureDecision]:
    return [FeatureDecision(name, True, 1.0, 0.0, "") for name in names]


def table(shape: Shape) -> pd.DataFrame:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(shape.rows, shape.columns)).round(4)
    signal = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + random.normal(scale=0.3, size=shape.rows)
    classes = pd.qcut(signal, shape.classes, labels=[f"class {code:02d}" for code in range(shape.classes)])
    return pd.DataFrame(numbers, columns=[f"number_{i}" for i in range(shape.columns)]).assign(target=classes.astype(str))


def measure(folder: Path, shape: Shape) -> dict[str, tuple[float, float]]:
    """Return the median milliseconds of one record and the rows per second of a list, for Podium and the naive app."""
    frame, (port, naive_port) = table(shape), free_ports(2)
    features = frame.drop(columns="target")
    estimator: Any = lightgbm.LGBMClassifier(n_jobs=1, verbosity=-1, **shape.trees) if shape.trees else LogisticRegression()
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), estimator).fit(features, frame["target"])
    (folder / "pipeline.pkl").write_bytes(pickle.dumps(pipeline))
    (folder / "columns.pkl").write_bytes(pickle.dumps(dict.fromkeys(features, "number")))
    family = "lightgbm" if shape.trees else "linear"
    if shape.trees:
        FAMILIES[family] = replace(FAMILIES[family], settings=(shape.trees,), combine=None, at_rounds=None)
    project = Project(name="bench", data="s3://podium/none", target="target", families=(family,), n_trials=1)
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(folder / "cloud", port))
        publish_champion(cloud, frame, project)
        stack.enter_context(running_service(cloud, folder, port, {"PODIUM_MAX_JSON_BYTES": "100000000"}, dask=True))
        process = serve("benchmarks.naive:create_app", naive_port, folder)
        stack.callback(process.stop)
        process.wait_for(f"http://127.0.0.1:{naive_port}/", 60)
        records = features.sample(LIST_ROWS, random_state=1).to_dict("records")
        single = tuple(1000 * _median(each, "/predict", records, RECORDS) for each in (port, naive_port))
        lists = [(port, "/predict"), (naive_port, "/predict-list")]
        rates = tuple(LIST_ROWS / _median(each, path, [records], 7) for each, path in lists)
    return {"ms for one record": single, "rows/s, list of 1,000": rates}  # type: ignore[dict-item]


def _median(port: int, path: str, bodies: list[Any], repeats: int) -> float:
    encoded: Iterator[bytes] = islice(cycle([json.dumps(body).encode() for body in bodies]), repeats)
    return statistics.median(post_all(port, path, encoded))


if __name__ == "__main__":
    main()
