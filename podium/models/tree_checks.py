"""Structural checks of LightGBM's text format.

LightGBM trusts its model files and does not check indices. So every field that it uses as an index, length or offset is
checked here, and text that LightGBM could split differently into lines or fields is rejected.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

import numpy as np

MAX_LEAVES, MAX_TOTAL_LEAVES, MAX_DEPTH = 1 << 20, 1 << 26, 10_000
"""Limits on the number of leaves of one tree and of all trees, and on the depth."""

HEADER = {
    "tree", "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "average_output",
    "feature_names", "monotone_constraints", "feature_infos", "tree_sizes",
}  # fmt: skip
REQUIRED = {"tree", "version", "num_class", "num_tree_per_iteration", "max_feature_idx", "feature_names", "feature_infos"}

NODE_FIELDS = {"split_feature", "threshold", "decision_type", "left_child", "right_child"}
NODE_STATISTICS = {"split_gain", "internal_value", "internal_weight", "internal_count"}
LEAF_STATISTICS = {"leaf_weight", "leaf_count", "leaf_cover"}  # leaf_cover is ours: LightGBM ignores it
CATEGORY_FIELDS = {"cat_boundaries", "cat_threshold"}
TREE_FIELDS = {"num_leaves", "num_cat", "leaf_value", "is_linear", "shrinkage"}
FIELDS = TREE_FIELDS | NODE_FIELDS | NODE_STATISTICS | LEAF_STATISTICS | CATEGORY_FIELDS
LINEAR_FIELDS = {"leaf_const", "num_features", "leaf_features", "leaf_coeff"}

INTEGERS, FLOATS = re.compile(r"-?[0-9]+(?: -?[0-9]+)*"), re.compile(r"[-+0-9.eEinfa ]+")
CATEGORICAL, MISSING_TYPES = 1, 3

_NUMBER = r"[0-9.eE+-]+"
OBJECTIVE = re.compile(
    rf"(?:(?:binary|cross_entropy|cross_entropy_lambda|regression|regression_l2|regression_l1|huber|fair|poisson|quantile|mape|"
    rf"gamma|tweedie|multiclass|multiclassova|lambdarank|rank_xendcg|custom)"
    rf"(?: sqrt| (?:sigmoid|alpha|fair_c|tweedie_variance_power|num_class):{_NUMBER})*)?"
)
"""Objectives that LightGBM writes, with their parameters."""

Fields = Mapping[str, str]


_checked: set[bytes] = set()
"""Digests of the texts that this process has found valid: an ensemble holds those of its members again."""


def check_trees(text: str, features: int, outputs: int) -> None:
    """Check that the text is a valid model with these numbers of features and outputs.

    Raises a ValueError that names the tree and the field.
    """
    digest = hashlib.sha256(f"{features} {outputs} {text}".encode()).digest()
    if digest not in _checked:
        _check_text(text, features, outputs)
        _checked.add(digest)


def _check_text(text: str, features: int, outputs: int) -> None:
    if "\0" in text or "\r" in text:
        raise ValueError("the LightGBM text contains control characters: save the model again")
    head, blank, rest = text.partition("\n\n")
    body, end, _ = rest.partition("end of trees\n")
    starts = [match.start() for match in re.finditer(r"^Tree=", body, re.MULTILINE)]
    if not blank or not end or not starts or starts[0] != 0:
        raise ValueError("the text is not a complete LightGBM model")
    trees = [body[start:stop] for start, stop in zip(starts, [*starts[1:], len(body)], strict=True)]
    _check_header(
        _parse_fields(head.split("\n"), HEADER, "the header"), features, outputs, [len(tree.encode()) for tree in trees]
    )
    if sum(_check_tree(tree, index, features) for index, tree in enumerate(trees)) > MAX_TOTAL_LEAVES:
        raise ValueError(f"the trees have more than {MAX_TOTAL_LEAVES} leaves")


def _parse_fields(lines: list[str], known: set[str], where: str) -> dict[str, str]:
    """Parse lines of `name=value` with unique names. Raises ValueError."""
    parsed: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        if name in LINEAR_FIELDS:
            raise ValueError(f"{where} has linear models in its leaves: train with linear_tree=false")
        if name not in known or name in parsed:
            raise ValueError(f"{where} has an unknown or repeated field")
        parsed[name] = value
    return parsed


def _check_header(head: Fields, features: int, outputs: int, sizes: list[int]) -> None:
    if missing := sorted(REQUIRED - head.keys()):
        raise ValueError(f"the header lacks {', '.join(missing)}")
    if head["tree"] or head["version"] not in ("v3", "v4") or head.get("average_output"):
        raise ValueError("the header is not of version v3 or v4")
    _require_value(head, "num_class", outputs)
    _require_value(head, "num_tree_per_iteration", outputs)
    _require_value(head, "max_feature_idx", features - 1)
    if len(sizes) % outputs:
        raise ValueError(f"the number of trees is not a multiple of {outputs}, the number of outputs")
    for name in ("feature_names", "feature_infos"):
        if len(head[name].split(" ")) != features:
            raise ValueError(f"the header needs {features} entries in {name}")
    if "monotone_constraints" in head:
        _integers(head, "monotone_constraints", features, "the header")
    if not re.fullmatch(r"-?[0-9]{1,6}", head.get("label_index", "0")):
        raise ValueError("the header has an invalid label_index")
    if "tree_sizes" in head and _integers(head, "tree_sizes", len(sizes), "the header").tolist() != sizes:
        raise ValueError("the header's tree_sizes do not match the trees")
    if head.get("objective") == "":
        raise ValueError("the header has an empty objective")
    _check_objective(head.get("objective", ""), outputs)


def _require_value(head: Fields, name: str, value: int) -> None:
    if head[name] != str(value):
        raise ValueError(f"the header needs {name}={value}")


def _check_objective(objective: str, outputs: int) -> None:
    if not OBJECTIVE.fullmatch(objective):
        raise ValueError("the header has an unknown objective")
    classes = re.findall(r" num_class:(\S+)", objective)
    if objective.startswith("multiclass") != bool(classes) or any(count != str(outputs) for count in classes):
        raise ValueError(f"the objective does not have {outputs} classes")
    numbers = [float(number) for number in re.findall(r":(\S+)", objective)]
    if not np.isfinite(numbers).all() or any(float(number) <= 0 for number in re.findall(r"sigmoid:(\S+)", objective)):
        raise ValueError("the objective has a parameter out of range")


def _check_tree(text: str, index: int, features: int) -> int:
    """Return the number of leaves. Raises ValueError."""
    where = f"tree {index}"
    first, *lines = text.rstrip("\n").split("\n")
    if first != f"Tree={index}" or not text.endswith("\n\n") or text.endswith("\n" * 4):
        raise ValueError(f"{where} has the wrong number, or does not end with a blank line")
    tree = _parse_fields(lines, FIELDS, where)
    try:
        return _check_fields(tree, features, where)
    except KeyError as error:
        raise ValueError(f"{where} lacks {error.args[0]}") from None
    except OverflowError:
        raise ValueError(f"{where} has a number out of range") from None


def _check_fields(tree: Fields, features: int, where: str) -> int:
    leaves, categorical = _count(tree, "num_leaves", MAX_LEAVES, where), _count(tree, "num_cat", MAX_LEAVES, where)
    _floats(tree, "leaf_value", leaves, where, np.isfinite)
    _floats(tree, "shrinkage", 1, where, np.isfinite)
    if tree.get("is_linear", "0") != "0":
        raise ValueError(f"{where} has linear models in its leaves: train with linear_tree=false")
    if leaves < 1 or (leaves == 1 and categorical) or (categorical == 0 and CATEGORY_FIELDS & tree.keys()):
        raise ValueError(f"{where} has the wrong number of leaves or categorical splits")
    for names, count in ((NODE_STATISTICS, leaves - 1), (LEAF_STATISTICS, leaves)):
        for name in names & tree.keys():
            if leaves == 1 and not tree[name]:
                continue  # LightGBM writes empty fields for a tree without splits
            _check_length(tree, name, count, where)
    if leaves > 1:
        _check_nodes(tree, leaves, categorical, features, where)
    elif any(tree.get(name) for name in NODE_FIELDS):
        raise ValueError(f"{where} has one leaf but also splits")
    return leaves


def _check_nodes(tree: Fields, leaves: int, categorical: int, features: int, where: str) -> None:
    left, right = (_integers(tree, side, leaves - 1, where) for side in ("left_child", "right_child"))
    _check_children(left, right, leaves, where)
    feature = _integers(tree, "split_feature", leaves - 1, where)
    if ((feature < 0) | (feature >= features)).any():
        raise ValueError(f"{where} splits on a feature that does not exist")
    kind = _integers(tree, "decision_type", leaves - 1, where)
    if ((kind < 0) | (kind >> 2 >= MISSING_TYPES)).any():
        raise ValueError(f"{where} has an unknown decision_type")
    threshold = _floats(tree, "threshold", leaves - 1, where, lambda numbers: ~np.isnan(numbers))
    _check_categories(tree, threshold[kind & CATEGORICAL == CATEGORICAL], categorical, where)


def _check_children(left: np.ndarray, right: np.ndarray, leaves: int, where: str) -> None:
    """Check that every leaf and every node except the root is the child of exactly one earlier node. Raises ValueError."""
    index = np.arange(leaves - 1)
    ends = np.concatenate([left, right])
    if not np.array_equal(np.sort(ends), np.concatenate([np.arange(-leaves, 0), index[1:]])):
        raise ValueError(f"{where} does not reach each of its nodes and leaves exactly once")
    if any(((side >= 0) & (side <= index)).any() for side in (left, right)):
        raise ValueError(f"{where} has a child that precedes its parent")
    if leaves > MAX_DEPTH and _depth(left.tolist(), right.tolist()) > MAX_DEPTH:
        raise ValueError(f"{where} is deeper than {MAX_DEPTH}")


def _depth(left: list[int], right: list[int]) -> int:
    depth = [1] * len(left)
    for node, ends in enumerate(zip(left, right, strict=True)):
        for end in ends:
            if end >= 0:
                depth[end] = depth[node] + 1
    return max(depth)


def _check_categories(tree: Fields, bitset_indices: np.ndarray, categorical: int, where: str) -> None:
    """Check the bit sets of categorical splits. Raises ValueError."""
    if categorical == 0:
        if len(bitset_indices):
            raise ValueError(f"{where} splits by categories without a bit set")
        return
    borders = _integers(tree, "cat_boundaries", categorical + 1, where)
    if borders[0] != 0 or (np.diff(borders) < 1).any() or borders[-1] > MAX_TOTAL_LEAVES:
        raise ValueError(f"{where} has cat_boundaries that do not increase from 0")
    bits = _integers(tree, "cat_threshold", int(borders[-1]), where)
    if ((bits < 0) | (bits >= 1 << 32)).any():
        raise ValueError(f"{where} has a cat_threshold out of range")
    if not np.isin(bitset_indices, np.arange(categorical)).all():
        raise ValueError(f"{where} splits by categories without a bit set")


def _count(tree: Fields, name: str, maximum: int, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", tree[name]) or int(tree[name]) > maximum:
        raise ValueError(f"{where} has an invalid {name}")
    return int(tree[name])


def _check_length(tree: Fields, name: str, count: int, where: str) -> str:
    values = tree[name]
    if (values.count(" ") + 1 if values else 0) != count or (values and not FLOATS.fullmatch(values)):
        raise ValueError(f"{where} needs {count} numbers in {name}")
    return values


def _integers(tree: Fields, name: str, count: int, where: str) -> np.ndarray:
    values = _check_length(tree, name, count, where)
    if not INTEGERS.fullmatch(values):
        raise ValueError(f"{where} needs {count} integers in {name}")
    return np.array(list(map(int, values.split(" "))), dtype=np.int64)


def _floats(tree: Fields, name: str, count: int, where: str, is_valid: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    try:
        numbers = np.array(list(map(float, _check_length(tree, name, count, where).split(" "))))
    except ValueError:
        raise ValueError(f"{where} needs {count} numbers in {name}") from None
    if not is_valid(numbers).all():
        raise ValueError(f"{where} has a number in {name} that is not finite")
    return numbers
