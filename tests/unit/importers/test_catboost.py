"""CatBoost's files predict what CatBoost predicted; catboost/generate.py made them. Damaged ones are refused."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.importers.catboost import read_catboost
from podium.importers.catboost_binary import read_binary
from podium.importers.city_hash import category_hash
from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.importers.importing import convert_in_sandbox
from podium.models.golden_rows import GOLDEN, verified_fast_path
from podium.models.model import Model
from podium.models.onnx_scorer import OnnxScorer
from podium.models.scorers import LightGBMScorer
from podium.models.serialization import load
from podium.registry.versions import GOLDEN_FILE


def members() -> dict[str, bytes]:
    with tarfile.open(Path(__file__).parent / "catboost" / "files.tar.xz") as archive:
        return {file.name: content.read() for file in archive if (content := archive.extractfile(file))}


def model_name(file: str) -> str:
    return PurePath(file).stem.removesuffix("-pool")


FILES = members()
EXPECTED: dict[str, Any] = json.loads(FILES["predictions.json"])
ROWS = pd.DataFrame(json.loads(FILES["rows.json"]))
SAMPLE = pd.read_csv(io.BytesIO(FILES["sample.csv"]))
NUMBERS, CATEGORIES = ["a", "b", "c"], ["s", "t", "u"]
MODELS = [name for name in FILES if model_name(name) in EXPECTED]
WITH_CATEGORIES = (
    "one-hot",
    "statistics",
    "statistics-3",
    "grown",
    "combinations",
    "combinations-r",
    "nameless-c",
    "pipeline-c",
)
IN_SKLEARN = ("pipeline", "pipeline-c", "voting")
GRAPHS = ("combinations", "combinations-r", "nameless-c", "voting")


def expected(name: str) -> np.ndarray:
    scores = np.array(EXPECTED[name])
    return scores if scores.ndim == 2 else scores[:, None]


def imported(data: bytes, sample: pd.DataFrame | None = None) -> ImportResult:
    return convert(ImportRequest("m", data, "m", "y", sample=None if sample is None else sample.to_csv(index=False).encode()))


def model_of(result: ImportResult) -> Model:
    return load(result.files["models/m.pkl"])


@pytest.mark.parametrize("file", MODELS)
def test_a_file_predicts_what_catboost_predicted(file: str) -> None:
    name = model_name(file)
    columns = NUMBERS + CATEGORIES if name in WITH_CATEGORIES else NUMBERS
    result = imported(FILES[file], SAMPLE[columns])
    model, rows = model_of(result), ROWS[columns]
    if name in IN_SKLEARN:  # scikit-learn accepts no infinite numbers
        rows = rows.assign(**rows[NUMBERS].clip(-1e9, 1e9).fillna(0))
    assert result.kind == ("scikit-learn" if name in IN_SKLEARN else "CatBoost")
    assert result.allowed_difference == 1e-9
    assert [column.name for column in model.signature.inputs] == columns
    assert isinstance(model.scorer, OnnxScorer if name in GRAPHS else LightGBMScorer)
    with np.errstate(over="ignore"):
        assert np.allclose(model.scores(rows), expected(name), rtol=1e-12, atol=1e-12)
    assert verified_fast_path(model, GOLDEN.validate_json(result.files[GOLDEN_FILE])) is not None


def test_a_file_is_converted_in_the_sandbox() -> None:
    sample = SAMPLE.to_csv(index=False).encode()
    result = convert_in_sandbox(ImportRequest("m.pkl", FILES["combinations.pkl"], "m", "y", sample=sample), 60)
    assert np.allclose(model_of(result).scores(ROWS), expected("combinations"), rtol=1e-12, atol=1e-12)


def test_the_binary_format_has_the_content_of_json() -> None:
    binary, text = read_binary(FILES["combinations-r.cbm"]), json.loads(FILES["combinations-r.json"])
    assert binary["features_info"]["float_features"] == text["features_info"]["float_features"]
    for tree, other in zip(binary["oblivious_trees"], text["oblivious_trees"], strict=True):
        assert [split["split_index"] for split in tree["splits"]] == [split["split_index"] for split in other["splits"]]
        assert tree["leaf_values"].tolist() == other["leaf_values"]
    assert binary["model_info"]["params"] == text["model_info"]["params"]
    assert len(binary["ctr_data"]) == len(text["ctr_data"])


def test_categories_have_catboosts_hashes() -> None:
    texts = json.loads(FILES["one-hot-pool.json"])["features_info"]["cat_features_hash"]
    assert max(len(entry["value"]) for entry in texts) == 200
    assert {entry["hash"] for entry in texts} == {category_hash(entry["value"]) for entry in texts}
    assert category_hash("") == 0x2F90404F


# --- names, categories and classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["nameless.cbm", "nameless.json", "nameless.pkl"])
def test_a_file_without_names_takes_those_of_the_sample(file: str) -> None:
    with pytest.raises(ImportRefused, match="does not name its 3 inputs: pass --sample"):
        imported(FILES[file])
    renamed = SAMPLE[NUMBERS].rename(columns={"a": "width"})
    assert [column.name for column in imported(FILES[file], renamed).signature.inputs] == ["width", "b", "c"]


@pytest.mark.parametrize("name", ["statistics", "combinations"])
def test_json_with_a_pool_needs_no_sample_for_its_categories(name: str) -> None:
    model = model_of(imported(FILES[f"{name}-pool.json"]))
    assert np.allclose(model.scores(ROWS), expected(name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("file", ["statistics.json", "combinations.cbm", "grown.pkl"])
def test_hashes_of_categories_need_a_sample(file: str) -> None:
    with pytest.raises(ImportRefused, match=r"no texts of the categories of s, t, u: pass --sample .* `pool"):
        imported(FILES[file])


def test_categories_that_training_may_have_had_are_rejected() -> None:
    """Only a complete list of categories tells that another one is unknown to the model."""
    sample = SAMPLE[SAMPLE.t != "bbb"]
    result = imported(FILES["statistics.cbm"], sample)
    assert [column.handle_unknown for column in result.signature.inputs if column.is_text] == ["warn", "reject", "warn"]
    assert result.warnings[0].startswith("the file has categories of t whose texts are unknown, so others are rejected")
    assert not imported(FILES["statistics.cbm"], SAMPLE).warnings


@pytest.mark.parametrize(
    ("file", "classes"),
    [
        ("texts.cbm", ("high", "low", "middle")),
        ("absent.json", (2, 0)),
        ("booleans.pkl", ("False", "True")),
        ("share.cbm", (0, 1)),
    ],
)
def test_classes_come_from_the_file(file: str, classes: tuple[object, ...]) -> None:
    assert imported(FILES[file]).signature.target.classes == classes


CONTRIBUTIONS = json.loads(FILES["contributions.json"])


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_the_contributions_are_catboosts_shap_values(name: str) -> None:
    model = model_of(imported(FILES[f"{name}.cbm"]))
    assert isinstance(model.scorer, LightGBMScorer)
    explainer = model.scorer.explainer(range(3), 3)
    contributions = explainer.of(model.encoder.transform(ROWS[NUMBERS]))
    expected = np.array(CONTRIBUTIONS[name]).reshape(len(ROWS), -1, 4)
    assert np.allclose(contributions, expected[:, :, :3], rtol=1e-12, atol=1e-12)
    assert np.allclose(explainer.base, expected[0, :, 3], rtol=1e-12, atol=1e-12)


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("refused-text.cbm", "text features are not supported: train without s"),
        ("refused-embedding.cbm", "embedding features are not supported"),
        ("refused-uncertain.cbm", "loss RMSEWithUncertainty is not supported: train with one of Logloss"),
        ("refused-targets.cbm", "loss MultiRMSE is not supported"),
        ("refused-unfitted.pkl", "not fitted: fit it before saving"),
    ],
)
def test_an_unsupported_model_is_refused_by_name(file: str, reason: str) -> None:
    with pytest.raises(ImportRefused, match=reason):
        imported(FILES[file], SAMPLE)


@pytest.mark.parametrize("file", ["combinations-r.cbm", "grown.cbm", "each.json"])
def test_a_truncated_file_is_refused(file: str) -> None:
    data = FILES[file]
    for end in [*range(0, 300, 7), *range(300, len(data) - 1, len(data) // 60)]:
        with pytest.raises(ImportRefused):
            imported(data[:end], SAMPLE)


def test_numbers_that_lead_elsewhere_are_refused_or_harmless() -> None:
    """Offsets to other places, cycles, and huge counts."""
    data = FILES["combinations-r.cbm"]
    for position in range(8, len(data) - 4, len(data) // 150):
        for number in (0, 4, position, len(data) - position, 2**31 - 1, 2**32 - 4, 2**32 - position):
            damaged = data[:position] + struct.pack("<I", number) + data[position + 4 :]
            with contextlib.suppress(ImportRefused):
                read_catboost(damaged)


def changed(change: Callable[[dict[str, Any]], Any], file: str = "combinations.json") -> bytes:
    content = json.loads(FILES[file])
    change(content)
    return json.dumps(content).encode()


def first_tree(content: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = content.get("trees", content.get("oblivious_trees"))[0]
    return tree


DAMAGED: dict[str, Callable[[], bytes]] = {
    "another split": lambda: changed(lambda content: first_tree(content)["splits"][0].update(split_index=10**6)),
    "a negative split": lambda: changed(lambda content: first_tree(content)["splits"][0].update(split_index=-1)),
    "a large split": lambda: changed(lambda content: first_tree(content)["splits"][0].update(split_index=1 << 70)),
    "an infinite split": lambda: changed(lambda content: first_tree(content)["splits"][0].update(split_index=1e999)),
    "too few leaves": lambda: changed(lambda content: first_tree(content)["leaf_values"].pop()),
    "a deep symmetric tree": lambda: changed(
        lambda content: first_tree(content)["splits"].extend([{"split_index": 0}] * 10**5)
    ),
    "a tree of texts": lambda: changed(lambda content: first_tree(content).update(leaf_values="x")),
    "no leaf": lambda: changed(lambda content: first_tree(content).pop("right"), "Lossguide.json"),
    "leaves of different sizes": lambda: changed(
        lambda content: first_tree(content).update(right={"value": [1, 2]}), "Lossguide.json"
    ),
    "a nested tree": lambda: b'{"features_info": {}, "model_info": {}, "trees": ' + b'[{"left": ' * 10**5,
    "two columns at one place": lambda: changed(
        lambda content: content["features_info"]["float_features"][1].update(flat_feature_index=0)
    ),
    "a column far away": lambda: changed(
        lambda content: content["features_info"]["float_features"][1].update(flat_feature_index=10**9)
    ),
    "another statistic": lambda: changed(lambda content: content["features_info"]["ctrs"][0].update(identifier="x")),
    "an unknown kind of statistic": lambda: changed(lambda content: content["features_info"]["ctrs"][0].update(ctr_type="x")),
    "a long combination": lambda: changed(
        lambda content: content["features_info"]["ctrs"][0].update(
            elements=content["features_info"]["ctrs"][0]["elements"] * 2000
        )
    ),
    "a column that does not exist": lambda: changed(
        lambda content: content["features_info"]["ctrs"][0]["elements"][0].update(cat_feature_index=99)
    ),
    "no width": lambda: changed(lambda content: next(iter(content["ctr_data"].values())).update(hash_stride=0)),
    "two biases": lambda: changed(lambda content: content.update(scale_and_bias=[1, [0, 0]])),
    "no loss": lambda: changed(lambda content: content["model_info"].pop("params")),
    "a text": lambda: b'{"features_info": "model_info", "model_info": 1}',
    "no core": lambda: b"CBM1" + struct.pack("<I", 4) + b"\0" * 4,
    "an endless core": lambda: b"CBM1" + b"\xff" * 40,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(name: str) -> None:
    with pytest.raises(ImportRefused, match=r"CatBoost model cannot be read .* format='json'"):
        imported(DAMAGED[name](), SAMPLE)


def test_many_statistics_of_one_large_table_are_refused() -> None:
    def repeat(content: dict[str, Any]) -> None:
        statistic = content["features_info"]["ctrs"][0]
        table = content["ctr_data"][statistic["identifier"]]
        table["hash_map"] *= 100
        content["features_info"]["ctrs"] += [statistic] * 20_000

    with pytest.raises(ImportRefused, match="too large: train with max_ctr_complexity=1"):
        imported(changed(repeat), SAMPLE)


def test_a_pickle_without_bytes_of_a_model_is_refused() -> None:
    data = b"\x80\x02ccatboost.core\nCatBoostRegressor\n)R}X\x07\0\0\0__modelX\x01\0\0\0xsb."
    with pytest.raises(ImportRefused, match="without a model"):
        imported(data, SAMPLE)


def test_other_hidden_attributes_are_refused() -> None:
    data = b"\x80\x02ccatboost.core\nCatBoostRegressor\n)R}X\x09\0\0\0__class__X\x01\0\0\0xsb."
    with pytest.raises(ImportRefused, match="overrides a method"):
        imported(data, SAMPLE)
