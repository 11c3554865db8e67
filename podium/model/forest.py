"""scikit-learn's forests in LightGBM's text form: the same splits, leaves and order of summation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from podium.model.scorers import Trees


def forest_trees(forest: Any, features: int) -> Trees:
    """A fitted forest whose scores are the mean of its trees' leaves: class probabilities or a value.

    Thresholds and leaves are written with all their digits; rows must be rounded to 32 bits, as scikit-learn does.
    """
    outputs = getattr(forest, "n_classes_", 1)
    blocks = [_tree(tree.tree_, output) for tree in forest.estimators_ for output in range(outputs)]
    head = [
        "tree",
        "version=v4",
        f"num_class={outputs}",
        f"num_tree_per_iteration={outputs}",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        "average_output",
        f"feature_names={' '.join(f'f{place}' for place in range(features))}",
        f"feature_infos={' '.join(['none'] * features)}",
    ]
    numbered = [f"Tree={place}\n{block}" for place, block in enumerate(blocks)]
    return Trees("\n".join([*head, "", *numbered, "end of trees", ""]), features, outputs, narrow=True)


def _tree(tree: Any, output: int) -> str:
    """One tree; LightGBM numbers inner nodes from 0 and leaves from -1 downwards."""
    inner = np.flatnonzero(tree.children_left >= 0)
    leaves = np.flatnonzero(tree.children_left < 0)
    number = np.empty(tree.node_count, dtype=int)
    number[inner] = np.arange(len(inner))
    number[leaves] = ~np.arange(len(leaves))
    lines = [f"num_leaves={len(leaves)}", "num_cat=0"]
    if len(inner):
        lines += [
            _line("split_feature", tree.feature[inner]),
            _line("split_gain", np.zeros(len(inner), dtype=int)),
            _line("threshold", tree.threshold[inner]),
            _line("decision_type", np.full(len(inner), 2)),
            _line("left_child", number[tree.children_left[inner]]),
            _line("right_child", number[tree.children_right[inner]]),
        ]
    lines += [_line("leaf_value", tree.value[leaves, 0, output]), "is_linear=0", "shrinkage=1", "", ""]
    return "\n".join(lines)


def _line(name: str, numbers: Iterable[Any]) -> str:
    return f"{name}={' '.join(repr(number.item()) for number in numbers)}"
