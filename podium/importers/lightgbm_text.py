"""LightGBM's text format: checks, the first iterations, and the trees as arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from podium.importers.errors import ImportRefused
from podium.importers.tree_model import TreeModel
from podium.models.lightgbm_export import TreeNodes
from podium.models.tree_checks import check_trees

LINK_OF_OBJECTIVE = {
    "binary": "logistic",
    "cross_entropy": "logistic",
    "multiclass": "softmax",
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exp"),
    **dict.fromkeys(
        ("regression", "regression_l2", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", ""),
        "identity",
    ),
}


@dataclass(frozen=True, slots=True)
class LightGBMText:
    """A text that passed `check_trees`, with its header."""

    text: str
    header: dict[str, str]

    @property
    def features(self) -> int:
        return int(self.header["max_feature_idx"]) + 1

    @property
    def outputs(self) -> int:
        return int(self.header["num_class"])

    def tree_model(self) -> TreeModel:
        """Return the trees as arrays. Raises ValueError for options without such a form."""
        objective, *options = self.header.get("objective", "").split(" ")
        parameters = dict(option.partition(":")[::2] for option in options)
        if objective not in LINK_OF_OBJECTIVE or "sqrt" in parameters:
            raise ValueError(f"the objective {objective} {' '.join(options)}")
        trees = _trees(self.text)
        factor = float(parameters.get("sigmoid", "1")) if objective == "binary" else 1.0
        factor /= len(trees) // self.outputs if "average_output" in self.header else 1
        nodes = tuple(_nodes(tree, factor) for tree in trees)
        targets = tuple(index % self.outputs for index in range(len(nodes)))
        return TreeModel(nodes, targets, (0.0,) * self.outputs, LINK_OF_OBJECTIVE[objective], self.features)


def read_header(text: str) -> dict[str, str]:
    """Return the fields of the header. Raises ImportRefused."""
    header = dict(line.split("=", 1) for line in text.partition("\n\n")[0].split("\n") if "=" in line)
    if "average_output" in text.partition("\n\n")[0].split("\n"):
        header["average_output"] = ""
    if not {"feature_names", "feature_infos", "num_class", "max_feature_idx"} <= header.keys():
        raise ImportRefused("the LightGBM model is incomplete: save it again with Booster.save_model")
    return header


def check_text(text: str) -> LightGBMText:
    """Return the text if LightGBM can load it safely. Raises ImportRefused."""
    header = read_header(text)
    try:
        check_trees(text, int(header["max_feature_idx"]) + 1, int(header["num_class"]))
    except ValueError as error:
        raise ImportRefused(f"the LightGBM model is invalid: {error}; save it again with Booster.save_model") from error
    return LightGBMText(text, header)


def first_iterations(text: str, count: int) -> str:
    """Return the text with only the first iterations; 0 means all, as LightGBM's early stopping writes it."""
    if count <= 0:
        return text
    head, _, rest = text.partition("\n\n")
    body, end, tail = rest.partition("end of trees\n")
    trees = re.split(r"^(?=Tree=)", body, flags=re.MULTILINE)
    per_iteration = re.search(r"^num_tree_per_iteration=([0-9]{1,6})$", head, re.MULTILINE)
    kept = 1 + count * int(per_iteration[1] if per_iteration else 1)
    if kept >= len(trees):
        return text
    head = re.sub(r"^tree_sizes=.*\n?", "", head, flags=re.MULTILINE).rstrip("\n")
    return f"{head}\n\n{''.join(trees[:kept])}{end}{tail}"


def _trees(text: str) -> list[dict[str, str]]:
    body = text.partition("\n\n")[2].partition("end of trees\n")[0]
    blocks = filter(None, re.split(r"^(?=Tree=)", body, flags=re.MULTILINE))
    return [dict(line.partition("=")[::2] for line in block.split("\n") if line) for block in blocks]


def _nodes(tree: dict[str, str], factor: float) -> TreeNodes:
    """Convert a tree to nodes with splits first and leaves after them. Raises ValueError."""
    leaves = int(tree["num_leaves"])
    splits = leaves - 1

    def numbers(name: str, kind: Any) -> np.ndarray:
        return np.array(tree[name].split(" ") if splits else [], dtype=float).astype(kind)

    kind = numbers("decision_type", int)
    is_category, missing_type = (kind & 1).astype(bool), kind >> 2 & 3
    if (missing_type[~is_category] == 1).any():
        raise ValueError("zero marks missing cells")
    threshold = numbers("threshold", float)
    children = [numbers(f"{side}_child", int) for side in ("left", "right")]
    left, right = (np.concatenate([np.where(side < 0, splits + ~side, side), np.full(leaves, -1)]) for side in children)
    missing_left = np.where(missing_type == 0, threshold >= 0.0, kind & 2 != 0) & ~is_category
    padding = np.zeros(leaves)
    values = factor * np.array(tree["leaf_value"].split(" "), dtype=float)
    return TreeNodes(
        np.concatenate([numbers("split_feature", int), padding.astype(int)]),
        np.concatenate([threshold, padding]),
        left,
        right,
        np.concatenate([missing_left, padding.astype(bool)]),
        np.concatenate([np.zeros(splits), values])[:, None],
        np.ones(splits + leaves),
        {int(node): _members(tree, int(threshold[node])) for node in np.flatnonzero(is_category)},
    )


def _members(tree: dict[str, str], number: int) -> list[int]:
    """Return the categories of a bit set."""
    borders = [int(border) for border in tree["cat_boundaries"].split(" ")]
    words = np.array(tree["cat_threshold"].split(" "), dtype="<u4")[borders[number] : borders[number + 1]]
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).tolist()
