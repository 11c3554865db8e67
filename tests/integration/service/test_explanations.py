"""`?explain=`: contributions of the strongest inputs, which add up to the score."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import urlencode

import pytest

from podium.local.http_client import Client
from tests.tables import RECORD

MIXED = "/projects/mixed/predict"
FAMILIES = ("linear", "random-forest", "extra-trees", "lightgbm", "catboost")


def explanations(response: Any) -> list[dict[str, Any]]:
    assert response.status == 200, response.text
    found: list[dict[str, Any]] = [prediction["explanation"] for prediction in response.json()["predictions"]]
    return found


def total(explanation: dict[str, Any]) -> float:
    return float(explanation["base"] + sum(explanation["contributions"].values()) + explanation["others"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{}, {"city": "Atlantis"}, {"income": 90_000}, {"visits": 3.0}])
def test_contributions_add_up_to_the_score(service: Client, family: str, changes: dict[str, Any]) -> None:
    response = service.post_json(f"{MIXED}?models={family}&explain=2", RECORD | changes)
    (explanation,), (prediction,) = explanations(response), response.json()["predictions"]
    sizes = [abs(number) for number in explanation["contributions"].values()]
    assert len(sizes) == 2
    assert sizes == sorted(sizes, reverse=True)
    probability = prediction["probabilities"][str(explanation["class"])]
    score = math.log(probability / (1 - probability)) if explanation["scale"] == "logit" else probability
    assert explanation["scale"] == ("probability" if family in ("random-forest", "extra-trees") else "logit")
    assert total(explanation) == pytest.approx(score, rel=1e-9, abs=1e-9)


def test_all_ways_give_the_same_explanation(service: Client) -> None:
    (expected,) = explanations(service.post_json(f"{MIXED}?explain=6", RECORD))
    assert set(expected["contributions"]) == set(RECORD)
    assert expected["others"] == 0
    for rows in ([RECORD], [list(RECORD.values())] * 3, {"records": [RECORD] * 12}, [RECORD] * 150):
        for explanation in explanations(service.post_json(f"{MIXED}?explain=6", rows)):
            assert explanation == expected
    query = urlencode({name: json.dumps(value).strip('"') for name, value in RECORD.items()})
    assert explanations(service.get(f"{MIXED}?{query}&explain=6")) == [expected]
    assert explanations(service.post_json(f"{MIXED}?explain=1000&on_error=all", RECORD)) == [expected]


def test_only_valid_rows_are_explained(service: Client) -> None:
    response = service.post_json(f"{MIXED}?explain=1&on_error=row", [RECORD, RECORD | {"income": "much"}, RECORD])
    assert ["explanation" in prediction for prediction in response.json()["predictions"]] == [True, False, True]


def test_the_first_of_several_models_is_explained(service: Client) -> None:
    response = service.post_json(f"{MIXED}?explain=1&models=all&inputs=true", RECORD)
    (prediction,) = response.json()["predictions"]
    assert set(prediction) == {"prediction", "probabilities", "models", "inputs", "explanation"}
    assert [prediction["explanation"]] == explanations(service.post_json(f"{MIXED}?explain=1", RECORD))


@pytest.mark.parametrize("value", ["0", "-1", "1001", "many", "1.5", ""])
def test_the_number_of_inputs_is_checked(service: Client, value: str) -> None:
    response = service.post_json(f"{MIXED}?explain={value}", RECORD)
    assert response.status == (200 if value == "0" else 422)
    if value != "0":
        assert response.json()["errors"][0]["column"] == "explain"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".html"])
def test_other_formats_are_refused_with_a_reason(service: Client, suffix: str) -> None:
    response = service.post_json(f"{MIXED}{suffix}?explain=3", RECORD)
    assert response.status == 422
    assert "not-explainable" in response.text or "explanations are available" in response.text


def test_too_many_rows_are_refused(service: Client) -> None:
    response = service.post_json(f"{MIXED}?explain=1", [RECORD] * 10_001)
    assert (response.status, response.json()["code"]) == (422, "not-explainable")
