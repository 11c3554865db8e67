"""Checks of a model's parts against their types and against each other, before anything is computed with them.

A model file is data of unknown origin: its classes are allow-listed, their fields hold whatever the file says.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from podium.models.encoder import DATE_PARTS, Encoder, MissingIndicator, OneHot, Ordinal, Standardized
from podium.models.model import Model
from podium.models.onnx_checks import check_graph
from podium.models.onnx_scorer import KINDS, OnnxScorer
from podium.models.panel_features import EntityScale, EntityStandardized, RelativeChange
from podium.models.scorers import LINKS, AffineScorer, LightGBMScorer, LinearScorer, Scorer
from podium.models.tree_checks import check_trees
from podium.schema.columns import Column

MAX_ITEMS, MAX_WIDTH = 20_000_000, 1_000_000
"""Bounds of everything that a model's tuples hold, and of its features."""


def check_model(model: Model) -> None:
    """Raises ValueError."""
    _Types().check(model, Model, "model")
    encoder = model.encoder
    if [(c.name, c.kind) for c in encoder.columns] != [(c.name, c.kind) for c in model.signature.inputs]:
        raise ValueError("the encoder has other columns than the signature")
    _check_encoder(encoder)
    outputs = _check_scorer(model.scorer, len(encoder.features))
    if outputs is not None and outputs != (len(model.signature.target.classes) or 1):
        raise ValueError(f"the scorer gives {outputs} numbers, which is not what the target needs")


# --- types -------------------------------------------------------------------------------------------------------------

SCALARS = {str, int, float, bool, bytes, types.NoneType}


class _Types:
    """Compares values with the annotations of their dataclasses; counts what they hold, shared parts each time."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, Any], int] = {}

    def check(self, value: Any, hint: Any, where: str) -> int:
        """The number of items. Raises ValueError."""
        key = id(value), hint
        if key not in self._sizes:
            self._sizes[key] = MAX_ITEMS  # a part that holds itself is too large
            self._sizes[key] = self._size(value, hint, where)
        if self._sizes[key] >= MAX_ITEMS:
            raise ValueError(f"{where} holds more than {MAX_ITEMS} items")
        return self._sizes[key]

    def _size(self, value: Any, hint: Any, where: str) -> int:
        if is_dataclass(hint):
            return self._fields(value, hint, where)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self.check(value, _of_union(value, arguments, where), where)
        if origin is Literal:
            _expect(isinstance(value, str) and value in arguments, where)
        elif origin is tuple:
            return self._tuple(value, arguments, where)
        elif origin is dict:
            _expect(type(value) is dict, where)
            return sum(
                self.check(key, arguments[0], where) + self.check(each, arguments[1], where) for key, each in value.items()
            )
        else:
            _expect(_is_scalar(value, hint), where)
        return 1

    def _fields(self, value: Any, hint: Any, where: str) -> int:
        _expect(type(value) is hint, where)
        size = 1
        for name, own in _hints(hint).items():
            _expect(hasattr(value, name), where)
            size += self.check(getattr(value, name), own, f"{hint.__name__}.{name}")
        return size

    def _tuple(self, value: Any, hints: tuple[Any, ...], where: str) -> int:
        _expect(type(value) is tuple, where)
        if len(hints) == 2 and hints[1] is Ellipsis:
            if hints[0] in SCALARS and set(map(type, value)) <= {hints[0]} and hints[0] is not float:
                return 1 + len(value)
            return 1 + sum(self.check(each, hints[0], where) for each in value)
        _expect(len(value) == len(hints), where)
        return 1 + sum(self.check(each, hint, where) for each, hint in zip(value, hints, strict=True))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    every = typing.get_type_hints(kind)
    hints = {field.name: every[field.name] for field in fields(kind) if not field.name.startswith("_")}
    if kind is Model:
        hints["scorer"] = LinearScorer | LightGBMScorer | OnnxScorer | AffineScorer
    if kind is AffineScorer:
        hints["inner"] = LinearScorer | LightGBMScorer | OnnxScorer
    return hints


def _of_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    for choice in choices:
        if choice is type(value) or (choice in SCALARS and _is_scalar(value, choice)) or get_origin(choice) is type(value):
            return choice
    raise ValueError(f"{where} has the wrong type")


def _is_scalar(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) is float or (type(value) is int and abs(value) < 1 << 53)
    if kind is int:
        return type(value) is int and abs(value) < 1 << 63
    return type(value) is kind


def _expect(sound: bool, where: str) -> None:
    if not sound:
        raise ValueError(f"{where} has the wrong type")


# --- parts -------------------------------------------------------------------------------------------------------------


def _check_encoder(encoder: Encoder) -> None:
    """Every feature reads columns that are there, of the kind that it needs. Raises ValueError."""
    if not 0 < len(encoder.features) <= MAX_WIDTH:
        raise ValueError("the encoder has no features, or too many")
    if len({column.name for column in encoder.columns}) != len(encoder.columns):
        raise ValueError("the encoder has two columns of one name")
    for feature in encoder.features:
        for place, text in _places(feature):
            if not 0 <= place < len(encoder.columns):
                raise ValueError(f"the feature {feature.name[:80]} reads a column that is not there")
            if text is not None and encoder.columns[place].is_text != text:
                raise ValueError(f"the feature {feature.name[:80]} reads a column of another kind")
        if isinstance(feature, Standardized):
            _check_number(feature, encoder.columns[feature.column])
        if isinstance(feature, EntityStandardized) and not all(math.isfinite(scale) and scale for _, _, scale in feature.table):
            raise ValueError(f"the feature {feature.name[:80]} has a scale that is not finite, or 0")


def _places(feature: Any) -> Iterator[tuple[int, bool | None]]:
    """The columns that a feature reads, and whether they must be text (None: either)."""
    yield feature.column, None if isinstance(feature, MissingIndicator) else isinstance(feature, OneHot | Ordinal)
    if isinstance(feature, RelativeChange) or (isinstance(feature, EntityStandardized) and feature.base is not None):
        yield typing.cast(int, feature.base), False
    if isinstance(feature, EntityScale) or (isinstance(feature, EntityStandardized) and feature.table):
        yield feature.entity, True


def _check_number(feature: Standardized, column: Column) -> None:
    if feature.part and (feature.part not in DATE_PARTS or column.kind != "date"):
        raise ValueError(f"the feature {feature.name[:80]} is an unknown part of a date")
    if not math.isfinite(feature.scale) or feature.scale == 0 or not math.isfinite(feature.mean):
        raise ValueError(f"the feature {feature.name[:80]} has a mean or scale that is not finite, or a scale of 0")


def _check_scorer(scorer: Scorer, features: int) -> int | None:
    """The number of outputs of a scorer for so many features, if it is known before it runs. Raises ValueError."""
    if isinstance(scorer, AffineScorer):
        return _check_scorer(scorer.inner, features - 2)
    if features < 1:
        raise ValueError("the scorer has no features")
    if isinstance(scorer, LinearScorer):
        return _check_linear(scorer, features)
    if not isinstance(scorer, LightGBMScorer | OnnxScorer) or scorer.features != features:
        raise ValueError("the scorer takes another number of features than the encoder gives")
    if isinstance(scorer, LightGBMScorer):
        if scorer.outputs < 1 or (scorer.chance and scorer.outputs != 1):
            raise ValueError("the trees have a wrong number of outputs")
        check_trees(scorer.text, scorer.features, scorer.outputs)
        return 2 if scorer.chance else scorer.outputs
    return _check_feeds(scorer)


def _check_linear(scorer: LinearScorer, features: int) -> int:
    if scorer.link not in LINKS:
        raise ValueError("the linear model has an unknown link")
    outputs = len(scorer.intercepts)
    if not outputs or len(scorer.weights) != outputs or any(len(weights) != features for weights in scorer.weights):
        raise ValueError("the linear model has a wrong number of weights")
    if outputs > 1 and scorer.link not in ("identity", "softmax"):
        raise ValueError(f"the link {scorer.link} is of one output")
    return 2 if scorer.link in ("logistic", "probit", "cloglog") else outputs


def _check_feeds(scorer: OnnxScorer) -> int | None:
    names = {feed.name for feed in scorer.feeds}
    if len(names) != len(scorer.feeds) or not names:
        raise ValueError("the graph has no inputs, or two of one name")
    for feed in scorer.feeds:
        if feed.kind not in KINDS or not all(0 < size <= MAX_WIDTH for size in feed.shape):
            raise ValueError(f"the graph's input {feed.name[:80]} has an unknown kind or shape")
        if not 0 <= feed.first <= scorer.features - math.prod(feed.shape):
            raise ValueError(f"the graph's input {feed.name[:80]} reads features that are not there")
    size = check_graph(scorer.model, scorer.feeds, scorer.output)
    if scorer.chance and size not in (None, 1):
        raise ValueError("the graph gives more than the probability of one class")
    return 2 if scorer.chance else size
