"""A typical hand-written service: pydantic model, DataFrame, pipeline.predict_proba."""

import os
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI
from pydantic import create_model


def create_app() -> FastAPI:
    """Serve the pickled pipeline in the folder NAIVE_FOLDER."""
    folder = Path(os.environ["NAIVE_FOLDER"])
    pipeline = pickle.loads((folder / "pipeline.pkl").read_bytes())
    columns: dict[str, str] = pickle.loads((folder / "columns.pkl").read_bytes())
    fields: Any = {name: (float if kind == "number" else str, ...) for name, kind in columns.items()}
    record = create_model("Record", **fields)
    app = FastAPI()

    @app.post("/predict")
    def predict(values: record) -> dict[str, Any]:  # type: ignore[valid-type]
        frame = pd.DataFrame([values.model_dump()])  # type: ignore[attr-defined]
        probabilities = pipeline.predict_proba(frame)[0]
        return {"prediction": str(pipeline.classes_[probabilities.argmax()]), "probabilities": probabilities.tolist()}

    @app.post("/predict-list")
    def predict_list(records: list[record]) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        frame = pd.DataFrame([values.model_dump() for values in records])  # type: ignore[attr-defined]
        probabilities = pipeline.predict_proba(frame)
        labels = pipeline.classes_[probabilities.argmax(axis=1)].tolist()
        return [{"prediction": label, "probabilities": row} for label, row in zip(labels, probabilities.tolist(), strict=True)]

    return app
