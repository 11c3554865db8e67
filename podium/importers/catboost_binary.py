"""CatBoost's binary format (.cbm) as the content of its JSON format, so that both are read by the same code.

The schemas are model.fbs, features.fbs and ctr_data.fbs in CatBoost's repository, catboost/libs/model/flatbuffers. The numbers
in this module are the positions of their fields.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from podium.importers.catboost_statistics import NO_HASH
from podium.importers.errors import ImportRefused
from podium.importers.flatbuffers import FlatBuffer, FlatTable

MAGIC = b"CBM1"
STATISTICS_PART = "static_provider_v1"
MISSING = ("AsIs", "AsFalse", "AsTrue")
STATISTICS = ("Borders", "Buckets", "BinarizedTargetMeanValue", "FloatTargetMeanValue", "Counter", "FeatureFreq")


def read_binary(data: bytes) -> dict[str, Any]:
    """Return the content of a file. Raises ValueError, IndexError or struct.error if it is damaged, and ImportRefused."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if not data.startswith(MAGIC) or end > len(data):
        raise ValueError("the file ends early")
    core = FlatBuffer(data[8:end]).root()
    trees = core.table(1)
    for field, kind in ((12, "text"), (18, "embedding")):
        if names := [feature.text(2) or str(feature.number(1, "i", -1)) for feature in trees.tables(field)]:
            raise ImportRefused(f"CatBoost's {kind} features are not supported: train without {', '.join(names)[:200]}")
    return {
        "model_info": {entry.text(0): _info(entry.text(0), entry.text(1)) for entry in core.tables(2)},
        "features_info": _features(trees),
        "trees" if len(trees.array(10, "<u4")) else "oblivious_trees": list(_trees(trees)),
        "scale_and_bias": [trees.number(14, "d", 1.0), trees.array(16, "<f8").tolist() or [trees.number(15, "d", 0.0)]],
        "ctr_data": dict(_statistics(data[end:])) if STATISTICS_PART in core.texts(3) else {},
    }


def _info(key: str, value: str) -> Any:
    return json.loads(value) if key.endswith("params") and value else value


def _features(trees: FlatTable) -> dict[str, Any]:
    values = {table.number(0, "i", -1): table for table in trees.tables(6)}
    if list(values) != [number for table in trees.tables(4) if (number := table.number(0, "i", -1)) in values]:
        raise ValueError("the one-hot columns are in another order")
    return {
        "float_features": [
            {
                "has_nans": bool(table.number(0, "B")),
                "feature_index": table.number(1, "i", -1),
                "flat_feature_index": table.number(2, "i", -1),
                "borders": table.array(3, "<f4").tolist(),
                "feature_id": table.text(4),
                "nan_value_treatment": MISSING[table.number(5, "B")],
            }
            for table in trees.tables(5)
        ],
        "categorical_features": [
            {
                "feature_index": (index := table.number(0, "i", -1)),
                "flat_feature_index": table.number(1, "i", -1),
                "feature_id": table.text(2),
                "values": values[index].array(1, "<i4").tolist() if index in values else [],
                "string_values": values[index].texts(2) if index in values else [],
            }
            for table in trees.tables(4)
        ],
        "ctrs": [_statistic(table.table(0), table.array(1, "<f4")) for table in trees.tables(7)],
    }


def _statistic(table: FlatTable, borders: np.ndarray) -> dict[str, Any]:
    return {
        **_base(table.table(0)),
        "target_border_idx": table.number(1, "i"),
        "prior_numerator": table.number(2, "f"),
        "prior_denomerator": table.number(3, "f", 1.0),
        "shift": table.number(4, "f"),
        "scale": table.number(5, "f", 1.0),
        "borders": borders.tolist(),
    }


def _base(table: FlatTable) -> dict[str, Any]:
    """Return what a statistic has in common with its table of counts."""
    parts, kind = table.table(0), STATISTICS[table.number(1, "B")]
    numbers, categories = parts.array(1, "<i4,<f4").tolist(), parts.array(2, "<i4,<i4").tolist()
    elements = [{"combination_element": "cat_feature_value", "cat_feature_index": i} for i in parts.array(0, "<i4").tolist()]
    elements += [
        {"combination_element": "float_feature", "float_feature_index": index, "border": border} for index, border in numbers
    ]
    elements += [
        {"combination_element": "cat_feature_exact_value", "cat_feature_index": index, "value": value}
        for index, value in categories
    ]
    return {"elements": elements, "ctr_type": kind, "identifier": json.dumps([elements, kind])}


def _statistics(data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the tables of counts, each of which is a buffer of its own."""
    count, position = struct.unpack_from("<I", data)[0], 4
    for _ in range(count):
        size = struct.unpack_from("<I", data, position)[0]
        table = FlatBuffer(data[position + 4 : position + 4 + size]).root()
        position += 4 + size
        base = _base(table.table(0))
        buckets = np.frombuffer(table.array(1, "u1"), "<u8,<u4")
        buckets = buckets[buckets["f0"] != NO_HASH]  # empty ones lead nowhere
        is_mean = base["ctr_type"].endswith("MeanValue")
        counts = np.array(np.frombuffer(table.array(2, "u1"), "<f4,<i4" if is_mean else "<i4").tolist(), dtype=float)
        width = 2 if is_mean else max(1, table.number(4, "i")) if base["ctr_type"] in ("Borders", "Buckets") else 1
        yield (
            base["identifier"],
            {
                "hashes": buckets["f0"],
                "counts": counts.reshape(-1, width)[buckets["f1"]],
                "counter_denominator": table.number(3, "i"),
            },
        )


def _trees(trees: FlatTable) -> Iterator[dict[str, Any]]:
    splits, sizes = trees.array(1, "<i4").tolist(), trees.array(2, "<i4").tolist()
    width, values, weights = trees.number(0, "i"), trees.array(8, "<f8"), trees.array(9, "<f8")
    leaves = values.reshape(-1, width)
    nodes, leaf_ids = trees.array(10, "<u2,<u2").tolist(), trees.array(11, "<u4").tolist()
    start = first = 0
    for size in sizes:
        chosen = splits[start : start + size]
        if size < 0 or len(chosen) < size:
            raise ValueError("a tree is damaged")
        if nodes:
            yield _grown_tree(chosen, nodes[start : start + size], leaf_ids[start : start + size], leaves, weights)
        else:
            end = first + (1 << min(size, 32))
            tree = {"splits": [{"split_index": split} for split in chosen], "leaf_values": leaves[first:end].ravel()}
            yield {**tree, **({"leaf_weights": weights[first:end]} if len(weights) else {})}
            first = end
        start += size


def _grown_tree(
    splits: list[int], nodes: list[tuple[int, int]], leaf_ids: list[int], leaves: np.ndarray, weights: np.ndarray
) -> dict[str, Any]:
    """Nest the nodes, each of which is used once. A node without a child on one side has a leaf there."""
    built: dict[int, dict[str, Any]] = {}
    for index in reversed(range(len(nodes))):
        left, right = nodes[index]
        leaf = {}
        if not left or not right:
            row = leaf_ids[index] // leaves.shape[1]
            leaf = {"value": leaves[row], "weight": weights[row] if len(weights) else 1.0}
        built[index] = leaf
        if left or right:
            sides = [built.pop(index + step) if step else leaf for step in (left, right)]
            built[index] = {"split": {"split_index": splits[index]}, "left": sides[0], "right": sides[1]}
    return built[0]
