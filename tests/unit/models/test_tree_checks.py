"""Model texts that would make LightGBM read or write out of bounds are rejected before LightGBM parses them."""

from __future__ import annotations

import faulthandler
import functools
import os
import pickle
import random
import re
import signal
from dataclasses import replace

import lightgbm
import numpy as np
import pandas as pd
import pytest

from podium.engine.lightgbm_library import Booster
from podium.importers.errors import ImportRefused
from podium.importers.lightgbm import read_lightgbm
from podium.models.scorers import LightGBMScorer
from podium.models.serialization import UnsafePickle, load
from podium.models.tree_checks import check_trees
from podium.registry.warm_up import small_model
from podium.sandbox.child_process import run_in_child
from podium.sandbox.process_limits import ProcessLimits

FEATURES = 5


@functools.cache
def text(objective: str = "regression", outputs: int = 1) -> str:
    """Trees with numbers, missing values and categories."""
    dice = np.random.default_rng(0)
    frame = pd.DataFrame(dice.normal(size=(400, 4)), columns=["a", "b", "c", "d"])
    frame["t"] = pd.Categorical(dice.choice(list("pqrstuvw"), 400))
    frame.loc[::7, "b"] = np.nan
    target = frame["a"] * frame["c"] + 3 * frame["t"].isin(["p", "r", "w"])
    if outputs > 1:
        target = pd.Series(np.digitize(target, [0, 2]))
    options = {"objective": objective, "num_class": outputs, "num_leaves": 9, "min_data_in_leaf": 5, "verbose": -1}
    options |= {"cat_smooth": 1, "max_cat_to_onehot": 1, "num_threads": 1}
    model: str = lightgbm.train(options, lightgbm.Dataset(frame, target, categorical_feature=["t"]), 3).model_to_string()
    return model


def without_sizes(model: str) -> str:
    return re.sub(r"^tree_sizes=.*\n", "", model, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("objective", "outputs"),
    [
        ("regression", 1),
        ("binary", 1),
        ("multiclass", 3),
        ("multiclassova", 3),
        ("quantile", 1),
        ("tweedie", 1),
        ("poisson", 1),
    ],
)
def test_models_written_by_lightgbm_are_accepted(objective: str, outputs: int) -> None:
    if objective in ("regression", "multiclass", "multiclassova", "quantile"):
        check_trees(text(objective, outputs), FEATURES, outputs)
    dice = np.random.default_rng(0)
    rows, target = dice.normal(size=(200, FEATURES)), dice.integers(0, outputs + 1 if outputs == 1 else outputs, 200)
    for boosting in ("gbdt", "dart", "rf"):
        options = {"objective": objective, "num_class": outputs, "boosting": boosting, "verbose": -1}
        options |= {"bagging_fraction": 0.5, "bagging_freq": 1}
        check_trees(lightgbm.train(options, lightgbm.Dataset(rows, target), 2).model_to_string(), FEATURES, outputs)


FORGED = {
    "a category far away": (r"^threshold=0 ", "threshold=400000000 ", "without a bit set"),
    "a child far away": (r"^left_child=\S+", "left_child=400000000", "reach"),
    "a leaf far away": (r"^right_child=\S+", "right_child=-400000000", "reach"),
    "a cycle": (r"^left_child=\S+", "left_child=0", "reach"),
    "a feature far away": (r"^split_feature=\S+", "split_feature=400000000", "feature that does not exist"),
    "a negative feature": (r"^split_feature=\S+", "split_feature=-1", "feature that does not exist"),
    "an unknown decision": (r"^decision_type=\S+", "decision_type=12", "decision_type"),
    "a decision of eight bits": (r"^decision_type=\S+", "decision_type=257", "decision_type"),
    "fewer leaves": (r"^num_leaves=\d+", "num_leaves=2", "needs 2 numbers"),
    "more leaves": (r"^num_leaves=\d+", "num_leaves=1000000", "numbers in"),
    "no leaves": (r"^num_leaves=\d+", "num_leaves=0", "number"),
    "negative leaves": (r"^num_leaves=\d+", "num_leaves=-5", "num_leaves"),
    "more categories": (r"^num_cat=\d+", "num_cat=400", "cat_boundaries"),
    "no categories": (r"^num_cat=\d+", "num_cat=0", "wrong number"),
    "borders that fall": (r"^cat_boundaries=0 \d+", "cat_boundaries=0 0", "increase"),
    "borders far away": (r"^cat_boundaries=(.*) \d+$", r"cat_boundaries=\1 400000000", "cat_boundaries"),
    "bits that are none": (r"^cat_threshold=\d+", "cat_threshold=-1", "cat_threshold"),
    "a leaf that is not a number": (r"^leaf_value=\S+", "leaf_value=nan", "not finite"),
    "a threshold that is not a number": (r"^threshold=\S+", "threshold=nan", "not finite|categories"),
    "an endless shrinkage": (r"^shrinkage=\S+", "shrinkage=inf", "not finite"),
    "models in leaves": (r"^is_linear=0", "is_linear=1", "linear_tree=false"),
    "coefficients in leaves": (r"^is_linear=0", "leaf_coeff=1 2\nis_linear=0", "linear_tree=false"),
    "a field twice": (r"^num_cat=(\d+)", r"num_cat=\1\nnum_cat=\1", "repeated"),
    "a blank line in a tree": (r"^num_cat=(\d+)", r"num_cat=\1\n", "unknown"),
    "a line without a value": (r"^num_cat=(\d+)", r"num_cat=\1\nnonsense", "unknown"),
    "another line end": (r"^num_cat=(\d+)", "num_cat=\\1\rnum_leaves=7", "control characters"),
    "an end of text": (r"^num_cat=(\d+)", "num_cat=\\1\0", "control characters"),
    "two spaces": (r"^left_child=(\S+) ", r"left_child=\1  ", "numbers"),
    "figures of another length": (r"^leaf_count=\S+ ", "leaf_count=", "leaf_count"),
    "another number": (r"^Tree=1$", "Tree=7", "wrong number"),
    "more features": (r"^max_feature_idx=\d+", "max_feature_idx=400", "max_feature_idx"),
    "more classes": (r"^num_class=\d+", "num_class=400", "num_class"),
    "more trees a turn": (r"^num_tree_per_iteration=\d+", "num_tree_per_iteration=400", "num_tree_per_iteration"),
    "an objective of more classes": (r"^objective=.*", "objective=multiclass num_class:400", "classes"),
    "an unknown objective": (r"^objective=.*", "objective=nonsense", "objective"),
    "sizes that lie": (r"^tree_sizes=\d+", "tree_sizes=1", "tree_sizes"),
    "sizes far away": (r"^tree_sizes=\d+", "tree_sizes=400000000", "tree_sizes"),
    "a model twice": (r"^end of trees\n", "", "complete"),
    "no version": (r"^version=v4\n", "", "version"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_field_is_rejected_at_import_and_at_load(what: str) -> None:
    pattern, forged, reason = FORGED[what]
    model, count = re.subn(pattern, forged, text(), count=1, flags=re.MULTILINE)
    assert count == 1
    for each in {model, model if "tree_sizes" in forged else without_sizes(model)}:
        with pytest.raises(ValueError, match=reason if each != model or "sizes" in what else f"{reason}|tree_sizes"):
            check_trees(each, FEATURES, 1)
        with pytest.raises(ImportRefused):
            read_lightgbm(each.encode(), "y", ())
        forged_model = small_model(LightGBMScorer(text(), FEATURES, 1))
        data = pickle.dumps(replace(forged_model, scorer=LightGBMScorer(each, FEATURES, 1)))
        with pytest.raises(UnsafePickle):
            load(data)


def test_trees_with_wrong_features_or_outputs_are_rejected() -> None:
    for features, outputs in ((4, 1), (6, 1), (5, 2)):
        with pytest.raises(ValueError, match="header"):
            check_trees(text(), features, outputs)


@pytest.mark.timeout(60)
def test_no_mutation_of_a_model_crashes_the_scoring_process() -> None:
    """Each of 300 mutations is rejected, or scored without a crash in a child process."""
    dice = random.Random(0)
    models = [without_sizes(text()), without_sizes(text("multiclass", 3))]
    accepted = []
    for turn in range(300):
        outputs = (1, 3)[turn % 2]
        model = mutated(models[turn % 2], dice)
        try:
            check_trees(model, FEATURES, outputs)
        except ValueError:
            continue
        accepted.append((model, outputs))
    assert 10 < len(accepted) < 200
    score_all(accepted[:1])  # loads the libraries, which the child may not
    assert run_in_child(functools.partial(score_all, accepted), ProcessLimits(30, 1 << 30)) == str(len(accepted))


def mutated(model: str, dice: random.Random) -> str:
    """Replace, remove or duplicate one value of one field."""
    lines = model.partition("\nfeature_importances")[0].split("\n")
    place = dice.choice([place for place, line in enumerate(lines) if "=" in line])
    name, _, values = lines[place].partition("=")
    parts = values.split(" ")
    which = dice.randrange(len(parts))
    way = dice.randrange(6)
    if way == 0:
        del parts[which]
    elif way == 1:
        parts.insert(which, parts[which])
    elif way == 2:
        parts[which] = parts[dice.randrange(len(parts))]
    else:
        parts[which] = dice.choice(
            ["0", "1", "-1", "2", "8", "31", "400000000", "-400000000", "1e308", "nan", "4294967296", "x"]
        )
    lines[place] = f"{name}={' '.join(parts)}"
    return "\n".join(lines)


def score_all(models: list[tuple[str, int]]) -> str:
    dice = np.random.default_rng(0)
    rows = np.vstack([dice.normal(size=(50, FEATURES)), dice.choice([np.nan, 1e300, -1e300, 1e9, 7, 31, 32], (50, FEATURES))])
    for model, outputs in models:
        trees = LightGBMScorer(model, FEATURES, outputs)
        whole = trees.scores(rows)
        vector, score = trees.compiled()
        for row, expected in zip(rows.tolist(), whole, strict=True):
            vector[:] = row
            assert np.array_equal(list(score()), expected, equal_nan=True)
    return str(len(models))


def test_an_unchecked_category_would_crash_the_process() -> None:
    """Otherwise the tests above would show nothing: LightGBM reads where the text points to."""
    model = re.sub(r"^threshold=0 ", "threshold=400000000 ", without_sizes(text()), flags=re.MULTILINE)
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        Booster(model).scores(np.zeros((1, FEATURES)) + np.arange(FEATURES))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV
