"""Checks of a model's parts against their types and against each other, before anything is computed with them.

A model file is untrusted data. Its classes are allow-listed, but their fields may hold anything.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from podium.models.encoder import FEATURE_CLASSES, Encoder
from podium.models.model import Model
from podium.models.onnx_scorer import OnnxScorer
from podium.models.runner_scorer import RunnerScorer
from podium.models.scorers import AffineScorer, EnsembleScorer, LightGBMScorer, LinearScorer, Scorer

SIMPLE_SCORERS: tuple[type[Scorer], ...] = (LinearScorer, LightGBMScorer, OnnxScorer, RunnerScorer)
SCORER_CLASSES: tuple[type[Scorer], ...] = (*SIMPLE_SCORERS, AffineScorer, EnsembleScorer)
"""The scorer classes that a model file may contain."""

MAX_ITEMS, MAX_WIDTH = 20_000_000, 1_000_000
"""Limits on the number of items in all tuples of a model, and on its number of features."""


def check_model(model: Model) -> None:
    """Raise ValueError if a part of the model has the wrong type or does not fit the others."""
    _TypeChecker().check(model, Model, "model")
    encoder = model.encoder
    if [(c.name, c.kind) for c in encoder.columns] != [(c.name, c.kind) for c in model.signature.inputs]:
        raise ValueError("the columns of the encoder differ from those of the signature")
    _check_encoder(encoder)
    if encoder.holds_text and not isinstance(model.scorer, RunnerScorer):
        raise ValueError("only a runner scores texts")
    outputs = model.scorer.check(len(encoder.features))
    if outputs is not None and outputs != (len(model.signature.target.classes) or 1):
        raise ValueError(f"the scorer has {outputs} outputs, which does not fit the target")


# --- types -------------------------------------------------------------------------------------------------------------

SCALARS = {str, int, float, bool, bytes, types.NoneType}


class _TypeChecker:
    """Checks values against their dataclass annotations and counts their items; shared parts count every time they occur."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, Any], int] = {}

    def check(self, value: Any, hint: Any, where: str) -> int:
        """Return the number of items. Raises ValueError."""
        key = id(value), hint
        if key not in self._sizes:
            self._sizes[key] = MAX_ITEMS  # so that a part that contains itself is too large
            self._sizes[key] = self._size(value, hint, where)
        if self._sizes[key] >= MAX_ITEMS:
            raise ValueError(f"{where} holds more than {MAX_ITEMS} items")
        return self._sizes[key]

    def _size(self, value: Any, hint: Any, where: str) -> int:
        if is_dataclass(hint):
            return self._check_dataclass(value, hint, where)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self.check(value, _union_member(value, arguments, where), where)
        if origin is Literal:
            _require_type(isinstance(value, str) and value in arguments, where)
        elif origin is tuple:
            return self._check_tuple(value, arguments, where)
        elif origin is dict:
            _require_type(type(value) is dict, where)
            key_hint, item_hint = arguments
            return sum(self.check(key, key_hint, where) + self.check(item, item_hint, where) for key, item in value.items())
        else:
            _require_type(_is_scalar(value, hint), where)
        return 1

    def _check_dataclass(self, value: Any, hint: Any, where: str) -> int:
        _require_type(type(value) is hint, where)
        size = 1
        for name, field_hint in _field_hints(hint).items():
            _require_type(hasattr(value, name), where)
            size += self.check(getattr(value, name), field_hint, f"{hint.__name__}.{name}")
        return size

    def _check_tuple(self, value: Any, hints: tuple[Any, ...], where: str) -> int:
        _require_type(type(value) is tuple, where)
        if len(hints) == 2 and hints[1] is Ellipsis:
            if hints[0] in SCALARS and set(map(type, value)) <= {hints[0]} and hints[0] is not float:
                return 1 + len(value)
            return 1 + sum(self.check(item, hints[0], where) for item in value)
        _require_type(len(value) == len(hints), where)
        return 1 + sum(self.check(item, hint, where) for item, hint in zip(value, hints, strict=True))


@functools.cache
def _field_hints(kind: type) -> dict[str, Any]:
    """Return the type of each public field, with the concrete classes in place of protocols."""
    all_hints = typing.get_type_hints(kind)
    hints = {field.name: all_hints[field.name] for field in fields(kind) if not field.name.startswith("_")}
    if kind is Model:
        hints["scorer"] = functools.reduce(operator.or_, SCORER_CLASSES)
    if kind is AffineScorer:
        hints["inner"] = functools.reduce(operator.or_, SIMPLE_SCORERS)
    if kind is EnsembleScorer:
        hints["members"] = types.GenericAlias(tuple, (functools.reduce(operator.or_, SIMPLE_SCORERS), ...))
    if kind is Encoder:
        hints["features"] = types.GenericAlias(tuple, (functools.reduce(operator.or_, FEATURE_CLASSES), ...))
    return hints


def _union_member(value: Any, choices: tuple[Any, ...], where: str) -> Any:
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


def _require_type(condition: bool, where: str) -> None:
    if not condition:
        raise ValueError(f"{where} has the wrong type")


# --- parts -------------------------------------------------------------------------------------------------------------


def _check_encoder(encoder: Encoder) -> None:
    if not 0 < len(encoder.features) <= MAX_WIDTH:
        raise ValueError(f"the encoder has {len(encoder.features)} features, expected 1 to {MAX_WIDTH}")
    if len({column.name for column in encoder.columns}) != len(encoder.columns):
        raise ValueError("the encoder has two columns with the same name")
    for feature in encoder.features:
        feature.check(encoder.columns)
