"""The OpenAPI document is valid and correct, and a client generated from it works."""

from __future__ import annotations

import datetime
import importlib
import io
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import SecretStr

from podium.local.http_client import Client
from service.app import create_app
from service.settings import ServiceSettings
from tests.tables import RECORD

pytestmark = pytest.mark.slow

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module")
def document(service: Client) -> dict[str, Any]:
    openapi: dict[str, Any] = service.get("/openapi.json").json()
    return openapi


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def application(**settings: Any) -> FastAPI:
    return create_app(ServiceSettings(**settings))


KEYS = {"api_keys": {"ann": SecretStr("k" * 20)}}
PROMOTERS = {"promoters": {"bob": SecretStr("p" * 20)}}


def test_the_document_is_valid_with_and_without_models(document: dict[str, Any]) -> None:
    for openapi in (document, application().openapi(), application(**KEYS, **PROMOTERS).openapi()):
        validate(openapi)
        names = [operation["operationId"] for *_, operation in operations(openapi)]
        assert len(set(names)) == len(names)


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in json.dumps(document)
    for path, method, operation in operations(document):
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}, (method, path)
        assert "422" not in operation["responses"]
        success = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        assert all(media["schema"] for media in success.get("content", {}).values()), (method, path)


def test_api_keys_are_documented_if_configured() -> None:
    assert "securitySchemes" not in application().openapi()["components"]
    protected = application(**KEYS, **PROMOTERS).openapi()
    assert protected["security"] == [{"bearer": []}, {"key": []}]
    assert set(protected["components"]["securitySchemes"]) == {"bearer", "key", "promoter"}
    assert protected["paths"]["/projects/{project}/promote"]["post"]["security"] == [{"promoter": [], "key": []}]
    assert protected["paths"]["/livez"]["get"]["security"] == []
    promoters_only = application(**PROMOTERS).openapi()
    assert "security" not in promoters_only
    assert promoters_only["paths"]["/projects/{project}/rollback"]["post"]["security"] == [{"promoter": []}]


def test_the_example_record_is_predicted_without_warnings(service: Client, document: dict[str, Any]) -> None:
    for project in ("mixed", "prices"):
        schema = document["components"]["schemas"][f"record-{project}"]
        (example,) = schema["examples"]
        Draft202012Validator(schema).validate(example)
        assert service.post_json(f"/projects/{project}/predict", example).json()["warnings"] == []


def test_responses_match_the_document(service: Client, document: dict[str, Any]) -> None:
    paths = {"/livez": "", "/readyz": "", "/status": "", "/v2": "", "/v2/models": "", "/v2/health/live": ""}
    paths |= {f"/projects/{{project}}/{name}": "" for name in ("schema", "versions", "card", "history")}
    paths |= {"/v2/models/{model}": "", "/v2/models/{model}/ready": "", "/v2/health/ready": ""}
    for path in paths:
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        response = service.get(re.sub("{.*}", "mixed", path)).json()
        Draft202012Validator({**schema, "components": document["components"]}).validate(response)
    for project, record in (("mixed", RECORD), ("prices", {"area": 100.0, "rooms": 3})):
        path = f"/projects/{project}/predict"
        schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        validator = Draft202012Validator({**schema, "components": document["components"]})
        for query in ("", "?models=all&inputs=true", "?on_error=row"):
            validator.validate(service.post_json(path + query, [record, record]).json())
    problem = service.post_json("/projects/mixed/predict", {}).json()
    Draft202012Validator({"$ref": "#/components/schemas/Problem", "components": document["components"]}).validate(problem)


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Generate a client with openapi-python-client, without warnings; returns the package name."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = [str(Path(sysconfig.get_path("scripts")) / "openapi-python-client"), "generate", "--path", "openapi.json"]
    command += ["--config", "config.yaml", "--meta", "none", "--output-path", "podium_client", "--fail-on-warning"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, "WARNING" in result.stdout) == (0, False), result.stdout + result.stderr
    sys.path.insert(0, str(folder))
    yield "podium_client"
    sys.path.remove(str(folder))


def test_every_operation_is_generated(generated: str, document: dict[str, Any]) -> None:
    folder = Path(importlib.import_module(f"{generated}.api").__path__[0])
    modules = {path.stem for path in folder.glob("*/*.py")} - {"__init__"}
    assert modules == {operation["operationId"].replace("-", "_") for *_, operation in operations(document)}


def test_the_generated_client_predicts(generated: str, service: Client) -> None:
    api, models, types = (importlib.import_module(f"{generated}.{name}") for name in ("api", "models", "types"))

    def call(tag: str, name: str, **arguments: Any) -> Any:
        return importlib.import_module(f"{api.__name__}.{tag}.{name}").sync(client=client, **arguments)

    fields: dict[str, Any] = {**RECORD, "since": datetime.date.fromisoformat(RECORD["since"])}
    record, expected = (
        models.MixedRecord(**fields),
        service.post_json("/projects/mixed/predict", RECORD).json()["predictions"][0],
    )
    with importlib.import_module(generated).Client(base_url=f"http://{service.host}", timeout=60) as client:
        predicted = call("predictions", "predict_mixed", body=[record, list(RECORD.values())])
        assert [row.prediction for row in predicted.predictions] == [expected["prediction"]] * 2
        assert predicted.predictions[0].probabilities.additional_properties == expected["probabilities"]
        assert call("predictions", "predict_mixed", body=record).version == predicted.version
        assert call("predictions", "predict_one_mixed", **fields).predictions[0].prediction == expected["prediction"]
        price = call("predictions", "predict_prices", body=models.PricesRecord(area=100.0, rooms=3)).predictions[0]
        assert price.interval[0] < price.prediction < price.interval[1]
        rows = models.Record.from_dict(RECORD)
        assert call("predictions", "batch", project="mixed", body=rows).predictions[0].prediction == expected["prediction"]
        table = ",".join(RECORD) + "\n" + ",".join("true" if cell is True else str(cell) for cell in RECORD.values()) + "\n"
        file = types.File(io.BytesIO(table.encode()), "rows.csv", "text/csv")
        uploaded = call("predictions", "upload", project="mixed", body=models.UploadBody(file=file))
        assert uploaded.predictions[0].prediction == expected["prediction"]
        tensors = [
            models.InputTensor(name=name, shape=[1], datatype=kind, data=[RECORD[name]])
            for name, kind in zip(RECORD, ["FP64", "INT64", "BYTES", "BOOL", "BYTES", "FP64"], strict=True)
        ]
        inferred = call("open_inference_protocol", "v2_infer", model="mixed", body=models.InferRequest(inputs=tensors))
        assert inferred.outputs[0].data == [expected["prediction"]]
        scoring = models.ScoringRequest.from_dict({"instances": [RECORD]})
        scored = call("mlflow", "invocations", project="mixed", body=scoring)
        assert scored.predictions == [expected["prediction"]]
        assert call("promotion", "history", project="mixed").entries[0].project == "mixed"
        problem = call("predictions", "predict", project="nothing", body=rows)
        assert (type(problem).__name__, problem.code) == ("Problem", "unknown-project")
