"""Models whose preprocessing was saved beside them take rows as they were before it."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.models.serialization import load
from podium.registry.versions import model_file
from podium.tables.frames import coerce_frame
from podium.tables.readers import read_table

ROWS, NUMBERS = 600, ["n1", "n2", "n3", "amount", "share"]
INPUTS = ["amount", "share", "n2", "day_saturday", "day_sunday", "region_east", "region_nan"]


def raw_table() -> pd.DataFrame:
    """Return rows with missing cells, amounts, percentages, and days and regions as text."""
    random = np.random.default_rng(4)
    table = pd.DataFrame({f"n{number}": random.normal(0, 10.0**number, ROWS) for number in (1, 2, 3)})
    table = table.mask(random.random(table.shape) < 0.05)
    table["amount"] = [f"${v:,.2f}" if v > 0 else f"(${-v:,.2f})" for v in random.normal(900, 700, ROWS)]
    table["share"] = [f"{v:.2f}%" for v in random.normal(50, 10, ROWS)]
    days = random.choice(["monday", "friday", "saturday", "sunday"], ROWS)
    table["day"] = [day.capitalize() if random.random() < 0.4 else day for day in days]
    table["region"] = pd.Series(random.choice(["east", "north", "west"], ROWS)).mask(random.random(ROWS) < 0.1)
    return table


RAW = raw_table()
CLEAN = RAW.assign(
    amount=RAW["amount"].str.replace(r"[$,)]", "", regex=True).str.replace("(", "-").astype(float),
    share=RAW["share"].str.rstrip("%").astype(float),
    day=RAW["day"].str.lower(),
)
IMPUTER = SimpleImputer().fit(CLEAN[NUMBERS])
IMPUTED = pd.DataFrame(IMPUTER.transform(CLEAN[NUMBERS]), columns=NUMBERS)
DUMMIES = pd.get_dummies(CLEAN[["day", "region"]], dummy_na=True, dtype=float)
Y = (IMPUTED["amount"] / 700 + 2 * DUMMIES["day_saturday"] + np.random.default_rng(5).normal(size=ROWS) > 1.5).astype(int)
SAMPLE = RAW.assign(y=Y).to_csv(index=False).encode()


def imported(model: Any, *preprocessing: Any) -> tuple[ImportResult, np.ndarray]:
    """Return the result of an import, and the scores of the raw table."""
    files = tuple(part if isinstance(part, bytes) else pickle.dumps(part) for part in preprocessing)
    result = convert(ImportRequest("m.pkl", pickle.dumps(model), "m", "y", sample=SAMPLE, preprocessing=files))
    table = read_table(RAW.to_csv(index=False).encode())
    frame = coerce_frame(table, result.signature.inputs, table.column_names)
    return result, load(result.files[model_file("m")]).scores(frame)


def scaled(scaler: Any) -> pd.DataFrame:
    rows = IMPUTED if hasattr(scaler, "feature_names_in_") else IMPUTED.to_numpy()
    return pd.concat([pd.DataFrame(scaler.transform(rows), columns=NUMBERS), DUMMIES], axis=1)[INPUTS]


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler(), StandardScaler(with_mean=False)])
def test_a_logit_on_scaled_numbers_and_dummies_takes_raw_rows(scaler: Any) -> None:
    inputs = scaled(scaler.fit(IMPUTED))
    model = sm.Logit(Y, inputs).fit(disp=0)
    result, scores = imported(model, IMPUTER, scaler)
    assert np.allclose(scores[:, 1], model.predict(inputs), rtol=0, atol=1e-12)
    assert [column.name for column in result.signature.inputs] == ["amount", "share", "n2", "day", "region"]
    assert all(column.nullable for column in result.signature.inputs)
    assert "day_saturday, day_sunday are computed from the column day" in result.warnings


@pytest.mark.parametrize("as_files", ["a dictionary", "names in a file", "names in a list"])
def test_transformers_may_be_in_one_file_and_their_names_in_a_list(as_files: str) -> None:
    imputer, scaler = SimpleImputer().fit(CLEAN[NUMBERS].to_numpy()), StandardScaler().fit(IMPUTED.to_numpy())
    model = sm.Logit(Y, scaled(scaler)).fit(disp=0)
    files: dict[str, list[Any]] = {
        "a dictionary": [{"imputer": imputer, "scaler": scaler, "columns": NUMBERS, "version": 3}],
        "names in a file": [imputer, scaler, json.dumps(NUMBERS).encode()],
        "names in a list": [[imputer, scaler], NUMBERS],
    }
    _, scores = imported(model, *files[as_files])
    assert np.allclose(scores[:, 1], model.predict(scaled(scaler)), rtol=0, atol=1e-12)


def test_a_linear_model_takes_up_the_scaling_of_dummies() -> None:
    all_inputs = pd.concat([IMPUTED, DUMMIES], axis=1)[INPUTS]
    scaler = StandardScaler().fit(all_inputs)
    inputs = pd.DataFrame(scaler.transform(all_inputs), columns=INPUTS)
    model = sm.GLM(Y, sm.add_constant(inputs), family=sm.families.Binomial()).fit()
    _, scores = imported(model, IMPUTER, scaler)
    assert np.allclose(scores[:, 1], model.predict(sm.add_constant(inputs)), rtol=0, atol=1e-12)
    forest = RandomForestClassifier(3).fit(inputs, Y)
    with pytest.raises(ImportRefused, match="scaled dummy columns need a linear model"):
        imported(forest, IMPUTER, RobustScaler().fit(all_inputs))


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(5)])
def test_estimators_on_dummies_take_raw_rows(model: Any) -> None:
    inputs = scaled(StandardScaler().fit(IMPUTED))
    _, scores = imported(model.fit(inputs, Y), IMPUTER, StandardScaler().fit(IMPUTED))
    assert np.allclose(scores, model.predict_proba(inputs), rtol=0, atol=1e-12)


def test_a_column_transformer_in_a_file_of_its_own_becomes_part_of_a_pipeline() -> None:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    transformer = make_column_transformer((numbers, ["n1", "amount"]), (OneHotEncoder(handle_unknown="ignore"), ["day"]))
    inputs = transformer.fit_transform(CLEAN)
    model = RandomForestClassifier(5).fit(inputs, Y)
    result, scores = imported(model, transformer)
    assert np.array_equal(scores, model.predict_proba(inputs))
    assert [column.name for column in result.signature.inputs] == ["n1", "amount", "day"]


def test_dummies_alone_are_recognized_by_their_names() -> None:
    inputs = pd.concat([IMPUTED[["share"]], DUMMIES[["day_saturday", "region_nan", "region_west"]]], axis=1)
    model = sm.OLS(IMPUTED["amount"], sm.add_constant(inputs)).fit()
    result, scores = imported(model)
    assert np.allclose(scores[:, 0], model.predict(sm.add_constant(inputs)), rtol=1e-12)
    assert [column.name for column in result.signature.inputs] == ["share", "day", "region"]


def test_preprocessing_that_cannot_be_combined_is_refused_with_a_way_out() -> None:
    inputs = scaled(StandardScaler().fit(IMPUTED))
    model = sm.Logit(Y, inputs).fit(disp=0)
    for preprocessing, message in (
        (KNNImputer().fit(CLEAN[NUMBERS]), "KNNImputer cannot be combined .* save both as one Pipeline"),
        (StandardScaler().fit(IMPUTED.to_numpy()[:, :4]), "without names on 4 columns: pass their names as a JSON list"),
        ({"scaler": np.float64}, "not allowed|holds a type|no fitted transformer"),
    ):
        with pytest.raises(ImportRefused, match=message):
            imported(model, preprocessing)
    with pytest.raises(ImportRefused, match="add day_someday"):
        imported(sm.Logit(Y, inputs.rename(columns={"day_saturday": "day_someday", "day_sunday": "day_never"})).fit(disp=0))
    with pytest.raises(ImportRefused, match="pass --sample"):
        convert(ImportRequest("m.pkl", pickle.dumps(model), "m", "y", preprocessing=(pickle.dumps(IMPUTER),)))
