"""How often monitoring raises false alarms, how soon it finds harm, and how good its estimates without labels are.

    python -m benchmarks.monitoring                 # about ten minutes
    python -m benchmarks.monitoring --days 3650     # more days of estimates: 0.5 s each

Streams of 1,000 rows a day: of losses (labels), and of rows with inputs and scores (estimates), drawn from known distributions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from podium.monitoring.daily_report import CLASS_TOLERANCE
from podium.monitoring.drift import joint_drift
from podium.monitoring.harm import HarmTest
from podium.monitoring.losses import Reference, cautious_losses, errors, expected_errors
from podium.schema.columns import Target

ROWS, REFERENCE_ROWS, YEAR = 1_000, 5_000, 365
DROP = 0.05
TARGET = Target("y", "binary", ("no", "yes"))
Table = tuple[pd.DataFrame, np.ndarray]


def days_until_alarm(test: HarmTest, days: Iterator[np.ndarray]) -> int | None:
    """Return the number of days until the first alarm; None if there is none."""
    for number, losses in enumerate(days, 1):
        test = test.after(losses)
        if test.is_alarm:
            return number
    return None


def from_labels(error: float, streams: int, random: np.random.Generator) -> dict[str, float]:
    """False alarms of stationary years, and the delay after the accuracy falls by DROP."""

    def losses(rate: float, days: int) -> Iterator[np.ndarray]:
        return ((random.random(ROWS) < rate).astype(float) for _ in range(days))

    def test() -> HarmTest:
        return HarmTest.of_reference((random.random(REFERENCE_ROWS) < error).astype(float), CLASS_TOLERANCE)

    false = sum(days_until_alarm(test(), losses(error, YEAR)) is not None for _ in range(streams))
    delays = [days_until_alarm(test(), losses(error + DROP, 60)) or 61 for _ in range(streams)]
    return {"error": error, "stream_years": streams, "false_alarms": false, "median_days": float(np.median(delays))}


def table(rows: int, random: np.random.Generator, shift: float = 0.0, spread: float = 1.0, irrelevant: float = 0.0) -> Table:
    """Return inputs and classes. `shift` and `spread` change columns that the class depends on, `irrelevant` another one."""
    cells = random.normal(size=(rows, 6)) * spread
    cells[:, 0] += shift
    cells[:, 5] += irrelevant
    signal = cells[:, 0] + 0.8 * cells[:, 1] * cells[:, 2] + 0.5 * cells[:, 3]
    frame = pd.DataFrame(cells, columns=list("abcdef")).assign(group=np.where(cells[:, 4] > 0.5, "u", "v"))
    return frame, (random.random(rows) < 1 / (1 + np.exp(-2 * signal))).astype(float)


class Stream:
    """A fitted model with its reference rows, and its days."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random, (inputs, labels) = random, table(REFERENCE_ROWS, random)
        features = inputs.drop(columns="group")
        scores = cross_val_predict(LogisticRegression(), features, labels, method="predict_proba")
        self.model, self.reference = LogisticRegression().fit(features, labels), Reference(TARGET, inputs, scores, labels)
        self.test = HarmTest.of_reference(self.reference.errors, CLASS_TOLERANCE)

    def day(self, **shift: float) -> tuple[float, float, float]:
        """Return the drift (AUC) of a day, its error, and the estimate of it, and add the estimates to the test."""
        inputs, labels = table(ROWS, self.random, **shift)
        scores = self.model.predict_proba(inputs.drop(columns="group"))
        joint = joint_drift(self.reference.inputs, inputs)
        expected = expected_errors(self.reference, joint.weights, inputs, scores)
        self.test = self.test.after(cautious_losses(self.reference, expected, joint.comparable_rows))
        return joint.auc, float(errors(TARGET, scores, labels).mean()), float(expected.mean())


def estimates(days: int, random: np.random.Generator) -> Iterator[dict[str, float | str | bool]]:
    """Alarms and errors of the estimates: without a change, after harmless shifts, and after harmful ones."""
    shifts = {
        "none": {},
        "irrelevant column": {"irrelevant": 1.0},
        "easier rows": {"shift": 1.0},
        "harder rows": {"spread": 0.6},
    }
    for name, shift in shifts.items():
        alarms, found = 0, list[tuple[float, float, float]]()
        while len(found) < days:
            stream = Stream(random)
            for _ in range(min(YEAR, days - len(found))):
                found.append(stream.day(**shift))
                if stream.test.is_alarm:
                    alarms, stream.test = alarms + 1, stream.test.restarted()
        auc, error, estimate = np.array(found).T
        differences = np.abs(error - estimate)
        yield {
            "shift": name,
            "days": days,
            "auc": round(float(auc.mean()), 3),
            "error": round(float(error.mean()), 4),
            "estimate": round(float(estimate.mean()), 4),
            "median_difference_of_days": round(float(np.median(differences)), 4),
            "alarms": alarms,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100, help="streams of labels for each error rate")
    parser.add_argument("--days", type=int, default=200, help="days of estimates for each shift")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    for error in (0.05, 0.1, 0.15, 0.2, 0.3):
        print(json.dumps({"labels": from_labels(error, arguments.streams, random)}), flush=True)
    for result in estimates(arguments.days, random):
        print(json.dumps({"estimates": result}), flush=True)


if __name__ == "__main__":
    main()
