"""Pickled models, restricted to Podium's own classes."""

from __future__ import annotations

import io
import pickle

from podium.models.bounded_unpickling import PickleBudget, TooLarge, check_pickle_size
from podium.models.encoder import FEATURE_CLASSES, Encoder
from podium.models.model import Model
from podium.models.model_checks import SCORER_CLASSES, check_model
from podium.models.onnx_scorer import OnnxInput
from podium.schema.columns import Column, Decision, Derived, Panel, Signature, Target
from podium.schema.reading import Reading

MODEL_CLASSES = (Model, Signature, Target, Decision, Column, Panel, Derived, Encoder, OnnxInput, Reading)
ALLOWED = {
    (allowed.__module__, allowed.__qualname__): allowed for allowed in (*MODEL_CLASSES, *SCORER_CLASSES, *FEATURE_CLASSES)
}
"""The only globals that a model file may name."""


class UnsafePickle(Exception):
    """The pickle is damaged, or names a global that no Podium model contains."""


class _Unpickler(PickleBudget, pickle._Unpickler):
    dispatch = check_pickle_size(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UnsafePickle(f"a model file may not construct {module}.{name}") from None


def dump(model: Model) -> bytes:
    return pickle.dumps(model, protocol=5)


def load(data: bytes) -> Model:
    """Return the unpickled model; the bytes must have been verified before. Raises UnsafePickle."""
    try:
        model = _Unpickler(io.BytesIO(data)).load()
    except UnsafePickle:
        raise
    except TooLarge as error:
        raise UnsafePickle(str(error)) from error
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise UnsafePickle(f"the model file cannot be read: {type(error).__name__}") from error
    if not isinstance(model, Model):
        raise UnsafePickle(f"the file holds a {type(model).__name__}, not a model")
    try:
        check_model(model)
    except ValueError as error:
        raise UnsafePickle(str(error)) from error
    return model
