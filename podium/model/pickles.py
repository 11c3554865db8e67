"""Model to bytes and back; only Podium's own classes are ever constructed."""

from __future__ import annotations

import io
import pickle

from podium.data.columns import Column, Derived, Panel, Signature, Target
from podium.model.bounded import Bounded, TooLarge, bounded
from podium.model.changes import Relative, Scaled, Share
from podium.model.checks import check_model
from podium.model.encode import Code, Encoder, Levels, Missing, Number, Plain
from podium.model.graph import Feed, Graph
from podium.model.model import Model
from podium.model.scorers import Linear, Rescaled, Trees

ALLOWED = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (Code, Column, Encoder, Feed, Graph, Levels, Linear, Missing, Model, Number, Plain, Signature, Target, Trees)
    + (Derived, Panel, Relative, Rescaled, Scaled, Share)
}


class Refused(Exception):
    """The pickle asks for something that no Podium model holds, or is damaged."""


class _Reader(Bounded, pickle._Unpickler):
    dispatch = bounded(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"a model file may not construct {module}.{name}") from None


def dump(model: Model) -> bytes:
    return pickle.dumps(model, protocol=5)


def load(data: bytes) -> Model:
    """Raises Refused; the bytes must have been verified before."""
    try:
        model = _Reader(io.BytesIO(data)).load()
    except Refused:
        raise
    except TooLarge as error:
        raise Refused(str(error)) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise Refused(f"the model file cannot be read: {type(error).__name__}") from error
    if not isinstance(model, Model):
        raise Refused(f"the file holds a {type(model).__name__}, not a model")
    try:
        check_model(model)
    except ValueError as error:
        raise Refused(str(error)) from error
    return model
