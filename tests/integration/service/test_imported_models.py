"""Imported models in the service: forms, JSON, CSV, Dask and pages."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.svm import LinearSVC

from podium.importers.conversion import convert
from podium.importers.import_request import ImportRequest
from podium.importers.importing import import_model
from podium.local.http_client import Client
from podium.models.serialization import load
from podium.project import Project
from podium.registry.promotion import PromotionContext, promote, utc_now
from podium.registry.versions import publish
from tests.unit.importers import model_files as files
from tests.unit.importers.test_catboost import FILES as CATBOOST
from tests.unit.importers.test_class_scores import table as class_table
from tests.unit.importers.test_class_scores import votes
from tests.unit.importers.test_keras import FOLDER
from tests.unit.importers.test_keras_functional import FILES as KERAS_FILES
from tests.unit.importers.test_keras_functional import sample as keras_sample
from tests.unit.importers.test_old_releases import FILES
from tests.unit.importers.test_runner_models import NOT_CONVERTED, table
from tests.unit.importers.test_text_models import by_column, exponential_model
from tests.unit.importers.test_text_models import table as text_table

pytestmark = pytest.mark.slow

SHOES = files.people()[[*files.NUMBERS, "sex"]].to_csv(index=False).encode()
IMPUTED = table()[["a", "b", "t"]].to_csv(index=False).encode()


@dataclass(frozen=True)
class Case:
    """A model file, optional sample rows, and a row to predict."""

    data: Callable[[], bytes]
    row: dict[str, Any]
    sample: bytes | None = None


VOCABULARIES = "keras-3.15.1/vocabularies.keras"
STEPS = [f"step{step}_x{x}" for step in range(1, 5) for x in range(1, 4)]
CASES = {
    "sklearn": Case(files.MODELS["xz.joblib"], {"height": 180.0, "weight": 80.5, "shoe": 44.0}, SHOES),
    "sklearn-text": Case(files.MODELS["text.joblib"], {"height": 180.0, "weight": 80.5, "shoe": 44.0, "town": "Bonn"}),
    "logit": Case(files.MODELS["logit-formula.pkl"], {"town": "Bonn", "height": 170.5, "weight": 71.0}),
    "glm": Case(files.MODELS["glm-poisson.pkl"], {"height": 170.5, "weight": 71.0}),
    "onnx": Case(files.NAMELESS["zipmap.onnx"], {"height": 180.0, "weight": 80.5, "shoe": 44.0}, SHOES),
    "runner": Case(
        lambda: pickle.dumps(NOT_CONVERTED["nearest neighbours impute"]()[0]), {"a": 0.5, "b": -1.25, "t": "y"}, IMPUTED
    ),
    "texts": Case(
        lambda: pickle.dumps(by_column(LinearSVC()).fit(text_table(), text_table()["y"])),
        {"price": 0.25, "review": "good film, naïve plot", "shop": "b"},
        text_table()[["price", "review", "shop"]].to_csv(index=False).encode(),
    ),
    "pattern": Case(
        lambda: pickle.dumps(exponential_model()),
        {"review": "good bc film"},
        text_table()[["review"]].to_csv(index=False).encode(),
    ),
    "votes": Case(lambda: pickle.dumps(votes().fit(class_table()[["a", "b"]], class_table()["three"])), {"a": 0.5, "b": -1.25}),
    "xgboost": Case(lambda: FILES["xgboost-3.2.0/xgb.json"], {"a": 0.5, "b": -3.0, "c": 2.25}),
    "catboost": Case(
        lambda: CATBOOST["combinations-pool.json"], {"a": 0.5, "b": -3.0, "c": 2.25, "s": "d", "t": "bbb", "u": "3"}
    ),
    "stacking": Case(files.MODELS["stacking.joblib"], {"height": 180.0, "weight": 80.5, "shoe": 44.0}),
    "lightgbm": Case(files.MODELS["lightgbm.txt"], {"height": 180.0, "weight": 80.5, "shoe": 44.0, "town": "Bonn"}),
    "keras": Case(
        (FOLDER / "gru.keras").read_bytes, dict(zip(STEPS, np.arange(12) / 8, strict=True)), files.numbers_csv(STEPS)
    ),
    "keras-functional": Case(
        lambda: KERAS_FILES[VOCABULARIES],
        {"size": 1010.0, "price": 985.5, "town": "Bonn", "zone": 3, "day": 5},
        keras_sample(VOCABULARIES),
    ),
}


@pytest.fixture(scope="module")
def imported(service: Client, cloud_context: PromotionContext) -> dict[str, str]:
    """Import, publish and promote every case; returns the versions."""
    versions = {}
    for name, case in CASES.items():
        project = Project(name=f"imported-{name}", target="sex")
        request = ImportRequest(f"{name}.bin", case.data(), "theirs", "sex", case.sample)
        manifest, model_files = import_model(request, project, datetime.now(UTC), "ann", None, 60)
        publish(cloud_context.store, manifest, model_files, cloud_context.signer)
        promote(cloud_context, project.name, manifest.version, "a test", utc_now)
        versions[name] = manifest.version

    def serves() -> bool:
        serving = {model["project"]: model["version"] for model in service.get("/status").json()["serving"]}
        return all(serving.get(f"imported-{name}") == version for name, version in versions.items())

    service.wait_until(serves, 60)
    return versions


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_forms_json_and_csv_give_the_same_predictions(name: str, service: Client, imported: dict[str, str]) -> None:
    case, path = CASES[name], f"/projects/imported-{name}/predict"
    result = convert(ImportRequest("x", case.data(), "theirs", "sex", case.sample))
    model = load(result.files["models/theirs.pkl"])
    frame = pd.DataFrame([case.row])
    scores = model.scores(frame.astype({c.name: object for c in result.signature.inputs if c.is_text}))[0].tolist()
    response = service.post_json(path, case.row)
    assert response.status == 200, response.text
    assert response.headers["x-model-version"] == imported[name]
    first = response.json()["predictions"][0]
    values = list(first["probabilities"].values()) if "probabilities" in first else [first["prediction"]]
    assert np.allclose(values, scores, rtol=1e-12)
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


def test_a_text_on_which_a_pattern_hangs_is_answered_with_an_error(service: Client, imported: dict[str, str]) -> None:
    path = "/projects/imported-pattern/predict"
    response = service.post_json(path, {"review": "b" * 60})
    assert (response.status, response.json()["code"]) == (503, "runner-failed"), response.text
    assert service.post_json(path, CASES["pattern"].row).status == 200


def test_the_page_names_the_imported_file(service: Client, imported: dict[str, str]) -> None:
    page = service.get("/projects/imported-keras").text
    assert "Imported from keras.bin (Keras)" in page
    assert "exploratory report" not in page
    assert service.get("/projects/imported-keras/report").json()["code"] == "no-report"
    assert "imported-keras" in service.get("/").text


def test_a_code_that_the_network_does_not_have_is_rejected(service: Client, imported: dict[str, str]) -> None:
    path, row = "/projects/imported-keras-functional/predict", dict(CASES["keras-functional"].row)
    assert service.post_json(path, row).status == 200
    for day in (6, -1, 2.5, 1e300, None):
        response = service.post_json(path, {**row, "day": day})
        assert response.status == 422, response.text
        assert "day" in response.text
    table = "\n".join([",".join(row), "1010,985.5,Bonn,3,5", "1010,985.5,Bonn,3,6"]).encode()
    assert service.post(f"{path}.csv", table, {"content-type": "text/csv"}).status == 422


def test_imported_models_use_the_fast_path(service: Client, imported: dict[str, str]) -> None:
    serving = service.get("/status").json()["serving"]
    fast = {model["project"]: model["fast_path"] for model in serving if model["project"].startswith("imported-")}
    in_runners = {"imported-pattern", "imported-runner", "imported-texts"}
    assert {project for project, has_fast_path in fast.items() if not has_fast_path} == in_runners


def test_a_model_in_a_runner_is_named_and_its_process_is_replaced(service: Client, imported: dict[str, str]) -> None:
    path, row = "/projects/imported-runner", CASES["runner"].row
    swaps = service.get("/status").json()["swaps"]
    assert {swap["runner"] for swap in swaps if swap["project"] == "imported-runner"} == {"sandboxed"}
    assert service.get(f"{path}/card").json()["data"]["runner"] == "sandboxed"
    before = service.post_json(f"{path}/predict", row).json()["predictions"]
    port = service.host.rpartition(":")[2]
    (server,) = [process for process in psutil.process_iter() if {"serve", port} <= set(_command(process))]
    for runner in [child for child in server.children() if "podium.sandbox.runner" in _command(child)]:
        runner.kill()
    response = service.post_json(f"{path}/predict", row)
    assert (response.status, response.json()["code"]) == (503, "runner-failed")
    assert service.post_json(f"{path}/predict", row).json()["predictions"] == before


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("name", ["2024", "NA"])
def test_a_model_may_have_a_name_that_looks_like_a_number_or_a_missing_value(name: str) -> None:
    request = ImportRequest("model.txt", files.MODELS["lightgbm.txt"](), name, "sex", None)
    manifest, _ = import_model(request, Project(name="named", target="sex"), datetime.now(UTC), "ann", None, 60)
    assert manifest.champion == name


def test_a_model_file_with_training_rows_is_not_stored(imported: dict[str, str], cloud_context: PromotionContext) -> None:
    def kept(name: str) -> list[str]:
        keys = (info.key for info in cloud_context.store.list_objects(f"versions/imported-{name}/{imported[name]}/"))
        return [key for key in keys if "/imported/" in key]

    assert len(kept("keras")) == 1
    assert kept("logit") == []


def test_the_crypto_network_is_served(service: Client, cloud_context: PromotionContext, shared_data: Path) -> None:
    data = (shared_data / "crypto" / "model.h5").read_bytes()
    project = Project(name="imported-given", target="v_open")
    manifest, model_files = import_model(
        ImportRequest("model.h5", data, "gru", "v_open", files.numbers_csv([f"n{n}" for n in range(65)])),
        project,
        datetime.now(UTC),
        "ann",
        None,
        60,
    )
    publish(cloud_context.store, manifest, model_files, cloud_context.signer)
    promote(cloud_context, project.name, manifest.version, "a test", utc_now)
    service.wait_until(lambda: service.get("/projects/imported-given/schema").status == 200, 30)
    row = np.random.default_rng(2).normal(size=65).round(4).tolist()
    response = service.post_json("/projects/imported-given/predict", row).json()["predictions"][0]["prediction"]
    model = load(model_files["models/gru.pkl"])
    assert response == model.scores(pd.DataFrame([row], columns=list(manifest.signature.names)))[0, 0]
