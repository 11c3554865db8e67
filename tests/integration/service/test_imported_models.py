"""A model that somebody else made, in service: form, JSON, CSV, Dask, pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.importers.conversion import convert
from podium.importers.import_request import ImportRequest
from podium.importers.importing import import_model
from podium.local.http_client import Client
from podium.models.serialization import load
from podium.project import Project
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.registry.versions import publish
from tests.unit.importers import model_files as files
from tests.unit.importers.test_keras import FOLDER

SHOES = files.people()[[*files.NUMBERS, "sex"]].to_csv(index=False).encode()


@dataclass(frozen=True)
class Case:
    """A file, what comes with it, and a row to ask about."""

    data: Callable[[], bytes]
    row: dict[str, Any]
    sample: bytes | None = None


NUMBERED = {"x1": 180.0, "x2": 80.5, "x3": 44.0}
CASES = {
    "sklearn": Case(files.MODELS["xz.joblib"], {"height": 180.0, "weight": 80.5, "shoe": 44.0}, SHOES),
    "sklearn-text": Case(files.MODELS["text.joblib"], {"height": 180.0, "weight": 80.5, "shoe": 44.0, "town": "Bonn"}),
    "logit": Case(files.MODELS["logit-formula.pkl"], {"town": "Bonn", "height": 170.5, "weight": 71.0}),
    "glm": Case(files.MODELS["glm-poisson.pkl"], {"height": 170.5, "weight": 71.0}),
    "onnx": Case(files.MODELS["zipmap.onnx"], NUMBERED),
    "lightgbm": Case(files.MODELS["lightgbm.txt"], {"height": 180.0, "weight": 80.5, "shoe": 44.0, "town": "Bonn"}),
    "keras": Case((FOLDER / "gru.keras").read_bytes, {f"step{s}_x{x}": 0.25 * s - x for s in range(1, 5) for x in range(1, 4)}),
}


@pytest.fixture(scope="module")
def imported(service: Client, cloud_context: PromotionContext) -> dict[str, str]:
    """Every case turned in the child, published, promoted and in service; their versions."""
    found = {}
    for name, case in CASES.items():
        project = Project(name=f"imported-{name}", target="sex")
        wish = ImportRequest(f"{name}.bin", case.data(), "theirs", "sex", case.sample)
        manifest, made = import_model(wish, project, datetime.now(UTC), "ann", None, 60)
        publish(cloud_context.store, manifest, made, cloud_context.signer)
        promote(cloud_context, project.name, manifest.version, "a test", utc_now)
        found[name] = manifest.version

    def serves() -> bool:
        serving = {each["project"]: each["version"] for each in service.get("/status").json()["serving"]}
        return all(serving.get(f"imported-{name}") == version for name, version in found.items())

    service.wait_until(serves, 60)
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_it_answers_a_form_json_and_csv_alike(name: str, service: Client, imported: dict[str, str]) -> None:
    case, path = CASES[name], f"/projects/imported-{name}/predict"
    turned = convert(ImportRequest("x", case.data(), "theirs", "sex", case.sample))
    model = load(turned.files["models/theirs.pkl"])
    frame = pd.DataFrame([case.row])
    scores = model.scores(frame.astype({c.name: object for c in turned.signature.inputs if c.is_text}))[0].tolist()
    answer = service.post_json(path, case.row)
    assert answer.status == 200, answer.text
    assert answer.headers["x-model-version"] == imported[name]
    first = answer.json()["predictions"][0]
    given = list(first["probabilities"].values()) if "probabilities" in first else [first["prediction"]]
    assert np.allclose(given, scores, rtol=1e-12)
    rows = pd.concat([frame] * 11).to_csv(index=False).encode()  # over Dask
    table = list(csv.DictReader(io.StringIO(service.post(f"{path}.csv", rows, {"content-type": "text/csv"}).text)))
    assert len(table) == 11
    assert {line["prediction"] for line in table} == {str(first["prediction"])}
    page = service.request(
        "POST",
        path,
        "&".join(f"{column}={value}" for column, value in case.row.items()).encode(),
        {"content-type": "application/x-www-form-urlencoded", "accept": "text/html"},
    )
    assert (page.status, imported[name] in page.text) == (200, True)


def test_the_page_says_where_it_came_from(service: Client, imported: dict[str, str]) -> None:
    page = service.get("/projects/imported-keras").text
    assert "Imported from keras.bin (Keras)" in page
    assert "exploratory report" not in page
    assert service.get("/projects/imported-keras/report").json()["code"] == "no-report"
    assert "imported-keras" in service.get("/").text


def test_the_compiled_path_serves_it(service: Client, imported: dict[str, str]) -> None:
    serving = service.get("/status").json()["serving"]
    assert all(each["fast_path"] for each in serving if each["project"].startswith("imported-"))


def test_a_file_with_training_rows_is_not_kept(imported: dict[str, str], cloud_context: PromotionContext) -> None:
    def kept(name: str) -> list[str]:
        files = cloud_context.store.list_objects(f"versions/imported-{name}/{imported[name]}/")
        return [info.key for info in files if "/foreign/" in info.key]

    assert len(kept("keras")) == 1
    assert kept("logit") == []


def test_the_given_network_is_served(service: Client, cloud_context: PromotionContext, shared_data: Path) -> None:
    data = (shared_data / "crypto" / "model.h5").read_bytes()
    project = Project(name="imported-given", target="v_open")
    manifest, made = import_model(ImportRequest("model.h5", data, "gru", "v_open"), project, datetime.now(UTC), "ann", None, 60)
    publish(cloud_context.store, manifest, made, cloud_context.signer)
    promote(cloud_context, project.name, manifest.version, "a test", utc_now)
    service.wait_until(lambda: service.get("/projects/imported-given/schema").status == 200, 30)
    row = np.random.default_rng(2).normal(size=65).round(4).tolist()
    answer = service.post_json("/projects/imported-given/predict", row).json()["predictions"][0]["prediction"]
    model = load(made["models/gru.pkl"])
    assert answer == model.scores(pd.DataFrame([row], columns=list(manifest.signature.names)))[0, 0]
