"""Models that read texts are scored by scikit-learn in a sandboxed process, and predict like the original."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest, ImportResult
from podium.importers.importing import convert_in_sandbox
from podium.models import runner_scorer
from podium.models.golden_rows import GOLDEN, verify_golden_rows
from podium.models.model import Model
from podium.models.model_checks import check_model
from podium.models.runner_scorer import RunnerScorer
from podium.models.scorers import LinearScorer
from podium.models.serialization import load
from podium.registry.versions import GOLDEN_FILE, model_file
from podium.sandbox.child_process import SandboxError

WORDS = ["good", "bad", "fine", "awful", "film", "book", "plot", "été", "naïve", "x2"]


def table(rows: int = 90) -> pd.DataFrame:
    random = np.random.default_rng(4)
    texts = [" ".join(random.choice(WORDS, random.integers(2, 9))) for _ in range(rows)]
    price, shop = random.normal(size=rows).round(3), random.choice(["a", "b", "c"], rows)
    frame = pd.DataFrame({"price": price, "review": texts, "shop": shop})
    mood = frame["review"].str.count("good|fine") + frame["price"]
    return frame.assign(y=np.where(mood > 2, "high", np.where(mood > 1, "middle", "low")), stars=mood)


def by_column(model: Any, selection: Any = "review") -> Any:
    steps = [("t", TfidfVectorizer(), selection), ("n", StandardScaler(), ["price"]), ("c", OneHotEncoder(), ["shop"])]
    return make_pipeline(ColumnTransformer(steps), model)


def imported(estimator: Any, columns: list[str], target: str = "y") -> tuple[ImportResult, Model]:
    sample = table()[[*columns, target]].to_csv(index=False).encode()
    result = convert(ImportRequest("m.pkl", pickle.dumps(estimator), "m", target, sample=sample))
    return result, load(result.files[model_file("m")])


WORD_AND_LETTERS = FeatureUnion([("w", CountVectorizer()), ("c", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3)))])
MODELS: dict[str, tuple[Callable[[], Any], str | list[str]]] = {
    "terms": (lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()), "review"),
    "counts": (lambda: make_pipeline(CountVectorizer(stop_words="english", ngram_range=(1, 2)), MultinomialNB()), "review"),
    "hashes": (lambda: make_pipeline(HashingVectorizer(n_features=256), SGDClassifier(loss="log_loss")), "review"),
    "counts, then terms": (lambda: make_pipeline(CountVectorizer(), TfidfTransformer(), ComplementNB()), "review"),
    "words and letters": (lambda: make_pipeline(WORD_AND_LETTERS, SelectKBest(chi2), LogisticRegression()), "review"),
    "margins": (lambda: make_pipeline(TfidfVectorizer(), LinearSVC()), "review"),
    "hinge": (lambda: make_pipeline(TfidfVectorizer(), SGDClassifier()), "review"),
    "support vectors": (lambda: make_pipeline(TfidfVectorizer(), SVC()), "review"),
    "neighbours": (lambda: make_pipeline(TfidfVectorizer(), KNeighborsClassifier(3)), "review"),
    "calibrated": (lambda: CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=2), "review"),
    "search": (lambda: GridSearchCV(make_pipeline(TfidfVectorizer(), MultinomialNB()), {}, cv=2), "review"),
    "votes": (
        lambda: VotingClassifier([(name, make_pipeline(TfidfVectorizer(), model)) for name, model in VOTERS.items()]),
        "review",
    ),
    "columns": (lambda: by_column(LogisticRegression()), ["price", "review", "shop"]),
    "columns by position": (lambda: by_column(RandomForestClassifier(5), 1), ["price", "review", "shop"]),
    "column at the end": (lambda: by_column(LogisticRegression()), ["shop", "price", "review"]),
}
VOTERS = {"margins": LinearSVC(), "bayes": MultinomialNB(), "logistic": LogisticRegression()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_texts_predicts_like_the_original(name: str) -> None:
    make, columns = MODELS[name]
    rows = table()
    estimator = make().fit(rows[columns], rows["y"])
    result, model = imported(estimator, [columns] if isinstance(columns, str) else columns)
    assert isinstance(model.scorer, RunnerScorer)
    assert (result.runner, result.allowed_difference) == ("sandboxed", 1e-9)
    assert [c.name for c in result.signature.inputs if c.kind == "text"] == ["review"]
    assert verify_golden_rows(model, GOLDEN.validate_json(result.files[GOLDEN_FILE])) <= 1e-9
    names = [column.name for column in result.signature.inputs]
    scores, target = model.scores(rows[names]), result.signature.target
    assert [target.classes[target.predicted_index(row)] for row in scores.tolist()] == estimator.predict(rows[columns]).tolist()
    if hasattr(estimator, "predict_proba"):
        assert np.allclose(scores, estimator.predict_proba(rows[columns]), rtol=0, atol=1e-9)
    score_row = model.compiled()
    assert [list(score_row(cells)) for cells in rows[names].iloc[:3].itertuples(index=False)] == scores[:3].tolist()


@pytest.mark.slow
def test_a_number_is_predicted_from_a_text() -> None:
    estimator = make_pipeline(TfidfVectorizer(), Ridge()).fit(table()["review"], table()["stars"])
    _, model = imported(estimator, ["review"], "stars")
    assert np.allclose(model.scores(table()[["review"]])[:, 0], estimator.predict(table()["review"]), rtol=0, atol=1e-9)


def test_a_missing_text_is_invalid_and_an_empty_result_has_no_rows() -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(table()["review"], table()["y"])
    result, model = imported(estimator, ["review"])
    assert not result.signature.inputs[0].nullable
    assert model.scores(table()[["review"]][:0]).shape == (0, 3)


def test_a_model_of_texts_needs_a_sample() -> None:
    estimator = by_column(LogisticRegression()).fit(table(), table()["y"])
    with pytest.raises(ImportRefused, match="reads texts: pass --sample"):
        convert(ImportRequest("m.pkl", pickle.dumps(estimator), "m", "y"))


def own_tokens(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize("option", ["analyzer", "preprocessor", "tokenizer"])
@pytest.mark.parametrize("function", [own_tokens, str.split, np.abs])
def test_a_function_in_a_vectorizer_is_refused_with_a_remedy(option: str, function: Any) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(table()["review"], table()["y"])
    estimator.steps[0][1].set_params(**{option: function})
    with pytest.raises(ImportRefused, match=r'function of your own before the model.*token_pattern=r"'):
        imported(estimator, ["review"])


def test_the_remedy_for_a_tokenizer_works() -> None:
    tokens = table()["review"].map(own_tokens).map(" ".join)
    estimator = make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression()).fit(tokens, table()["y"])
    assert imported(estimator, ["review"])[0].runner == "sandboxed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": "filename"}, "reads files"),
        ({"vocabulary_": {"good": 1 << 40, "bad": 0}}, "does not number its terms"),
        ({"vocabulary_": {"good": -1, "bad": 0}}, "does not number its terms"),
        ({"vocabulary_": ["good", "bad"]}, "does not number its terms"),
        ({"vocabulary_": {"good": 0.0}}, "does not number its terms"),
    ],
)
def test_a_vectorizer_that_could_read_beyond_its_data_is_refused(change: dict[str, Any], reason: str) -> None:
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(table()["review"], table()["y"])
    vars(estimator.steps[0][1]).update(change)
    with pytest.raises(ImportRefused, match=reason):
        imported(estimator, ["review"])


@pytest.mark.parametrize("index", [-1, 1 << 20])
def test_a_sparse_matrix_with_an_index_outside_its_shape_is_refused(index: int) -> None:
    estimator = make_pipeline(TfidfVectorizer(), KNeighborsClassifier(3)).fit(table()["review"], table()["y"])
    estimator.steps[1][1]._fit_X.indices[0] = index
    with pytest.raises(ImportRefused, match="cannot be constructed"):
        imported(estimator, ["review"])


EXPONENTIAL = r"(?:b+)+c"
"""A pattern that takes exponential time on a row of b."""


def exponential_model() -> Any:
    rows = table()
    texts = rows["review"] + " bc"
    return make_pipeline(TfidfVectorizer(token_pattern=EXPONENTIAL), LogisticRegression()).fit(texts, rows["y"])


@pytest.mark.slow
def test_a_pattern_that_hangs_ends_in_an_error_and_the_next_text_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_scorer, "SECONDS_PER_TEXT_CALL", 2.0)
    _, model = imported(exponential_model(), ["review"])
    score_row = model.compiled()
    expected = list(score_row(["bc"]))
    with pytest.raises(SandboxError, match="did not finish within 2 s"):
        score_row(["b" * 60])
    assert list(score_row(["bc"])) == expected


@pytest.mark.slow
def test_a_pattern_that_hangs_on_the_sample_is_refused() -> None:
    rows = table()[["review", "y"]]
    rows.loc[3, "review"] = "b" * 60
    request = ImportRequest("m.pkl", pickle.dumps(exponential_model()), "m", "y", sample=rows.to_csv(index=False).encode())
    with pytest.raises(ImportRefused, match="did not finish within 3 s"):
        convert_in_sandbox(request, 3.0)


@pytest.mark.slow
def test_texts_are_scored_in_the_sandbox_as_outside() -> None:
    estimator = make_pipeline(TfidfVectorizer(strip_accents="unicode"), LinearSVC()).fit(table()["review"], table()["y"])
    sample = table()[["review", "y"]].to_csv(index=False).encode()
    request = ImportRequest("m.pkl", pickle.dumps(estimator), "m", "y", sample=sample)
    assert convert_in_sandbox(request, 60.0).predictions == convert(request).predictions


def test_only_a_runner_may_score_texts() -> None:
    estimator = make_pipeline(TfidfVectorizer(), Ridge()).fit(table()["review"], table()["stars"])
    _, model = imported(estimator, ["review"], "stars")
    linear = Model("m", model.signature, model.encoder, LinearScorer(((1.0,),), (0.0,), "identity"))
    with pytest.raises(ValueError, match="only a runner scores texts"):
        check_model(linear)
