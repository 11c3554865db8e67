"""Fit a model with plain scikit-learn: `python train.py` writes a_model.joblib, the only file that is imported."""

import sys
from pathlib import Path

import joblib
from sklearn.ensemble import RandomForestClassifier

MEASURED = [[181, 80, 44], [177, 70, 43], [160, 60, 38], [154, 54, 37], [166, 65, 40], [190, 90, 47], [175, 64, 39],
            [177, 70, 40], [159, 55, 37], [171, 75, 42], [181, 85, 43]]  # fmt: skip
GENDER = ["male", "male", "female", "female", "male", "male", "female", "female", "female", "male", "male"]

if __name__ == "__main__":
    model = RandomForestClassifier(n_estimators=2, random_state=0).fit(MEASURED, GENDER)
    joblib.dump(model, Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "a_model.joblib")
