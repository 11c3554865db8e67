"""Model to bytes and back; only Podium's own classes are ever constructed."""

from __future__ import annotations

import io
import pickle

from podium.models.bounded_unpickling import PickleBudget, TooLarge, check_pickle_size
from podium.models.encoder import Encoder, MissingIndicator, OneHot, Ordinal, Passthrough, Standardized
from podium.models.model import Model
from podium.models.model_checks import check_model
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.models.panel_features import EntityScale, EntityStandardized, RelativeChange
from podium.models.scorers import AffineScorer, LightGBMScorer, LinearScorer
from podium.schema.columns import Column, Derived, Panel, Signature, Target

ALLOWED = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        Ordinal,
        Column,
        Encoder,
        OnnxInput,
        OnnxScorer,
        OneHot,
        LinearScorer,
        MissingIndicator,
        Model,
        Standardized,
        Passthrough,
        Signature,
        Target,
        LightGBMScorer,
    )
    + (Derived, Panel, RelativeChange, AffineScorer, EntityStandardized, EntityScale)
}


class UnsafePickle(Exception):
    """The pickle asks for something that no Podium model holds, or is damaged."""


class _Reader(PickleBudget, pickle._Unpickler):
    dispatch = check_pickle_size(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UnsafePickle(f"a model file may not construct {module}.{name}") from None


def dump(model: Model) -> bytes:
    return pickle.dumps(model, protocol=5)


def load(data: bytes) -> Model:
    """Raises Refused; the bytes must have been verified before."""
    try:
        model = _Reader(io.BytesIO(data)).load()
    except UnsafePickle:
        raise
    except TooLarge as error:
        raise UnsafePickle(str(error)) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UnsafePickle(f"the model file cannot be read: {type(error).__name__}") from error
    if not isinstance(model, Model):
        raise UnsafePickle(f"the file holds a {type(model).__name__}, not a model")
    try:
        check_model(model)
    except ValueError as error:
        raise UnsafePickle(str(error)) from error
    return model
