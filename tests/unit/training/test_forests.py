"""Out-of-bag scores of forests, also of few trees, and forests for many classes."""

from __future__ import annotations

import numpy as np
import pytest

from podium.schema.columns import Target
from podium.training.families import FAMILIES, FitRows

FAMILY = FAMILIES["random-forest"]
RANDOM = np.random.default_rng(0)
ROWS = 3000


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_rows_that_every_tree_was_fitted_on_get_the_mean(classes: tuple[str, ...]) -> None:
    assert FAMILY.out_of_bag
    features = RANDOM.normal(size=(ROWS, 3))
    values = features[:, 0] * 3 + 100 if not classes else RANDOM.integers(0, 3, ROWS).astype(float)
    target = Target("y", "multiclass" if classes else "regression", classes)
    forest = FAMILY.fit(target, 0, {"min_samples_leaf": 1}, FitRows(features, values, deadline=0.0))
    fitted = np.array([np.bincount(rows, minlength=ROWS) > 0 for rows in forest.estimators_samples_]).all(axis=0)
    scores = FAMILY.out_of_bag(forest)
    assert 10 < fitted.sum() < 100  # of ten trees
    assert np.allclose(scores[fitted], scores[~fitted].mean(axis=0))
    assert np.allclose(scores.sum(axis=1), 1.0) if classes else scores.min() > 80


def test_trees_for_many_classes_have_fewer_leaves() -> None:
    features, values = RANDOM.normal(size=(20_000, 2)), RANDOM.integers(0, 200, 20_000).astype(float)
    leaves = []
    for count in (2, 200):
        target = Target("y", "multiclass", tuple(map(str, range(count))))
        forest = FAMILY.fit(target, 0, {"min_samples_leaf": 1}, FitRows(features, values % count, deadline=0.0))
        leaves.append(max(tree.get_n_leaves() for tree in forest.estimators_))
    assert leaves[0] > 1000 and leaves[1] <= 250
