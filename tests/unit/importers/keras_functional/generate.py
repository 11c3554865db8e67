"""Write small networks with the Keras of the Python that runs this program, and their predictions.

    python - FOLDER < generate.py

The archive holds such folders, written by Keras 2.13.1, 2.15.0 and 3.15.1 with TensorFlow. The weights are random. Read from
standard input, the program leaves no path of its own in the Lambda layers.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf
from keras import layers

ROWS = 8
random = np.random.default_rng(5)
NUMBERS = random.normal(size=(40, 4)).round(3)
CODES = random.integers(0, 6, (40, 2))
TOWNS = np.array(["Bonn", "Köln", "Aachen", "Trier"])[random.integers(0, 4, 40)]


def number(name):
    return layers.Input((1,), name=name)


def code(name, dtype="int32"):
    return layers.Input((1,), name=name, dtype=dtype)


def columns():
    """One input per column, branches and a residual connection."""
    inputs = [number(name) for name in "abcd"]
    x = layers.Concatenate()(inputs[:3])
    wide = layers.Dense(3, "tanh")(x)
    deep = layers.BatchNormalization()(layers.Dropout(0.2)(layers.Dense(3, "relu")(x)))
    x = layers.LayerNormalization()(layers.Add()([wide, deep, x]))
    return inputs, layers.Dense(1, "sigmoid")(layers.Concatenate()([x, inputs[3]]))


def embeddings():
    """A block of numbers, and one input of whole numbers per category."""
    block, shop, day = layers.Input((2,), name="block"), code("shop"), code("day", "float32")
    shop_vector = layers.Flatten()(layers.Embedding(6, 3)(shop))
    day_vector = layers.Reshape((3,))(layers.Embedding(6, 3)(day))
    dot = layers.Dot(axes=1)([shop_vector, day_vector])
    x = layers.Concatenate(axis=1)([block, shop_vector, day_vector, dot])
    return [block, shop, day], layers.Dense(1)(layers.Dense(4, "selu")(x))


def merges():
    block, other = layers.Input((3,)), layers.Input((1,), name="other")
    parts = [layers.Dense(3, name)(block) for name in ("swish", "softplus", "elu", "exponential")]
    parts[0] = layers.LeakyReLU()(parts[0])
    parts[1] = layers.PReLU()(layers.Subtract()(parts[:2]))
    x = layers.Multiply()([*parts, other])
    x = layers.Average()([x, layers.Maximum()(parts), layers.Minimum()(parts[:2])])
    x = layers.ELU(0.7)(layers.ReLU(negative_slope=0.1)(layers.Rescaling(0.5, offset=0.1)(x)))
    heads = [layers.Dense(2, "softmax")(x), layers.Activation("softmax")(layers.Dense(2)(x))]
    return [block, other], layers.Average()(heads)


def vocabularies():
    """Normalization and categories as layers of the network."""
    block, town, zone, day = layers.Input((2,), name="block"), code("town", "string"), code("zone"), code("day")
    normalization = layers.Normalization()
    normalization.adapt(1000 + 10 * NUMBERS[:, :2])
    town_code = layers.StringLookup(vocabulary=["Trier", "Köln", "Bonn"])(town)
    parts = [
        layers.Rescaling(0.01)(normalization(block)),
        layers.Flatten()(layers.Embedding(4, 2)(town_code)),
        layers.StringLookup(vocabulary=["Aachen", "Bonn"], output_mode="one_hot")(town),
        layers.IntegerLookup(vocabulary=[3, 1, 4], output_mode="multi_hot")(zone),
        layers.CategoryEncoding(6, output_mode="one_hot")(day),
    ]
    return [block, town, zone, day], layers.Dense(3, "softmax")(layers.Concatenate()(parts))


def learned():
    """A vocabulary that is learned from data, which only .keras files hold."""
    town, zone, a = code("town", "string"), code("zone"), number("a")
    lookup, zones = layers.StringLookup(mask_token=""), layers.IntegerLookup()
    lookup.adapt(TOWNS[:, None])
    zones.adapt(CODES[:20, :1])
    parts = [layers.Flatten()(layers.Embedding(8, 2)(x)) for x in (lookup(town), zones(zone))]
    return [town, zone, a], layers.Dense(1)(layers.Concatenate()([*parts, a]))


def nested():
    """Models within a model, and layers that are used twice."""
    block, a = layers.Input((3,)), number("a")
    shared = layers.Dense(3, "tanh", name="same")
    inner = keras.Sequential([layers.Input((3,)), layers.BatchNormalization(), layers.Dense(2, name="same")], name="inner")
    left, right = layers.Input((3,)), layers.Input((1,))
    x = layers.Concatenate()([layers.BatchNormalization(center=False)(left), layers.Dense(2, use_bias=False)(right)])
    both = keras.Model([left, right], keras.Sequential([layers.Input((5,)), layers.Dense(4), layers.ReLU()])(x), name="both")
    x = shared(layers.Dense(3)(shared(block)))
    parts = [inner(block), both([x, a]), both([block, a])]
    return [block, a], layers.Dense(1)(layers.Concatenate()(parts))


def sequences():
    steps, a = layers.Input((4, 2), name="steps"), number("a")
    gru = layers.GRU(2, return_sequences=True, dropout=0.1)(steps)
    lstm = layers.Bidirectional(layers.LSTM(2, recurrent_dropout=0.1))(gru)
    pools = [layers.GlobalAveragePooling1D()(gru), layers.GlobalMaxPooling1D()(layers.Dense(2)(steps))]
    return [steps, a], layers.Dense(1)(layers.Concatenate()([lstm, *pools, a]))


def scalar():
    """An input without axes, and whole numbers that are used as numbers."""
    a, day = layers.Input((), name="a"), code("day")
    x = layers.Concatenate()([layers.Reshape((1,))(a), layers.Rescaling(0.1)(day)])
    return [a, day], layers.Dense(1, "sigmoid")(x)


def sequential():
    """Codes of one vocabulary in a sequential model."""
    return keras.Sequential([layers.Input((2,)), layers.Embedding(6, 2), layers.Flatten(), layers.Dense(3, "softmax")])


SUPPORTED = (columns, embeddings, merges, vocabularies, learned, nested, sequences, scalar, sequential)


class Own(layers.Layer):
    def call(self, x):
        return x * 2


def refused_lambda(x):
    return layers.Lambda(lambda x: x * 2)(x)


def refused_own(x):
    return Own()(x)


def refused_operation(x):
    return x * 2


def refused_outputs(x):
    return [layers.Dense(1, name="first")(x), layers.Dense(1)(x)]


def refused_training(x):
    return layers.Dropout(0.5)(x, training=True)


def refused_mask(x):
    return layers.GRU(2)(layers.Embedding(6, 2, mask_zero=True)(x))


def refused_slices(x):
    return layers.Dense(1)(x[:, :1])


REFUSED = (refused_lambda, refused_own, refused_operation, refused_outputs, refused_training, refused_mask, refused_slices)


def randomize(model):
    for weight in model.weights:
        name = getattr(weight, "name", "count").split("/")[-1].split(":")[0]  # a vocabulary has no name
        if name in ("mean", "variance", "count") or "float" not in str(weight.dtype):
            continue
        values = random.normal(0, 0.6, weight.shape)
        weight.assign(np.abs(values) + 0.4 if name == "moving_variance" else values)


def column_values(name, dtype, size):
    if dtype == "string":
        return np.array([*TOWNS[: ROWS - 1], "elsewhere"])[:, None]
    if name in ("shop", "day", "zone"):
        return CODES[:ROWS, :1]
    if not name.startswith("block") or size != 2:
        return random.normal(size=(ROWS, size)).round(3)
    return (1000 + 10 * NUMBERS[:ROWS, :2]).round(3)


def predictions(model):
    """Return the rows, as the columns of all inputs, and the predictions."""
    values = []
    for tensor in model.inputs:
        dtype = getattr(tensor.dtype, "name", tensor.dtype)
        name = tensor.name.split(":")[0]
        size = int(np.prod(tensor.shape[1:]))
        values.append(CODES[:ROWS] if model.name.startswith("sequential") else column_values(name, dtype, size))
    tensors = [tf.constant(v.reshape(ROWS, *t.shape[1:]), t.dtype) for v, t in zip(values, model.inputs, strict=True)]
    output = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    rows = [[cell for part in row for cell in part] for row in zip(*(part.tolist() for part in values), strict=True)]
    return {"rows": rows, "predictions": np.asarray(output, dtype=float).round(8).tolist()}


def main():
    folder = Path(sys.argv[1]) / f"keras-{keras.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    known = {}
    for build in SUPPORTED:
        built = build()
        model = built if isinstance(built, keras.Model) else keras.Model(*built)
        randomize(model)
        known[build.__name__] = predictions(model)
        for suffix in ("keras", "h5") if build is not learned else ("keras",):
            model.save(folder / f"{build.__name__}.{suffix}")
    for build in REFUSED:
        x = layers.Input((2,), name="numbers")
        for suffix in ("keras", "h5"):
            keras.Model(x, build(x)).save(folder / f"{build.__name__}.{suffix}")
    (folder / "predictions.json").write_text(json.dumps(known))


if __name__ == "__main__":
    main()
