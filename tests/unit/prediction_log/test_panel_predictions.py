"""Forecasts of a panel are logged with their windows and keys, and computed again to the bit."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from podium.inference.panel import forecasts
from podium.inference.parsed_rows import ParseOptions
from podium.inference.table_rows import rows_from_table
from podium.prediction_log.journal import Journal, finished_segments, read_segment
from podium.prediction_log.prediction_table import Privacy, entries_table
from podium.prediction_log.shipping import parquet_bytes
from podium.prediction_log.verification import Verifier
from podium.registry.versions import IntegrityError
from podium.training.local_run import train_candidates
from podium.training.project_kinds import prepare
from service.active_models import ActiveModels
from service.metrics import Metrics
from service.prediction_log import PredictionLog
from tests.unit.training.test_panel import project, shops, table

COLUMNS = {"shop": {"handle_unknown": "reject"}}


@pytest.mark.parametrize("base", ["first", "last"])
def test_a_forecast_is_computed_again_to_the_bit(tmp_path: Path, base: str) -> None:
    options = project(
        families=["persistence", "linear"], n_trials=1, ensemble=False, panel={"forecast_base": base}, columns=COLUMNS
    )
    training = prepare(table(shops()), options)
    models = {candidate.model.family: candidate.model for candidate in train_candidates(training, options)}
    signature, families = training.signature, sorted(models)
    manifest = SimpleNamespace(signature=signature, families=families)
    served: Any = SimpleNamespace(
        project="shop", version="v", manifest_sha256="0" * 64, sequence=1, prepared={}, signature=signature, manifest=manifest
    )
    frame = shops(days=9, seed=3).assign(shop=lambda rows: rows["shop"].replace("s4", "unknown"))
    request = frame.to_csv(index=False).encode()
    rows = rows_from_table(request, signature, 1000, ParseOptions(by_row=True))
    assert rows.invalid_rows and rows.count
    scores = {family: models[family].scores(rows.as_frame()) for family in ("linear", "persistence")}

    log = PredictionLog(Journal(tmp_path, 1 << 30), Metrics(ActiveModels("")), refuses_when_full=True)
    prediction_id = log.record_rows(served, "ann", request, scores, rows)
    log.seal()
    (path,) = finished_segments(tmp_path)
    logged = entries_table(read_segment(path), path.stem, signature, families, Privacy())
    stored = pq.read_table(io.BytesIO(parquet_bytes(logged)))
    assert stored["prediction_id"].unique().to_pylist() == [prediction_id]

    assert signature.panel
    answered = forecasts(signature.panel, rows, scores)["linear"].value
    valid = [index for index in range(rows.total) if index not in rows.invalid_rows]
    assert stored["row"].to_pylist() == [index + 1 for index in valid]
    assert np.array_equal(stored["prediction"].to_numpy(), answered[valid])

    unused: Any = None
    verifier = Verifier(unused, unused, unused, lambda *_: (manifest, models))  # type: ignore[arg-type, return-value]
    assert verifier._recompute(stored).startswith(f"{len(valid)} rows, linear")
    changed = stored.set_column(
        stored.schema.get_field_index("prediction"), "prediction", [stored["prediction"].to_numpy() * (1 + 1e-15)]
    )
    with pytest.raises(IntegrityError, match="does not follow"):
        verifier._recompute(changed)
