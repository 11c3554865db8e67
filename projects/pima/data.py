"""The Pima table (768 rows) as PyPI's `faraway` ships it, under the names that its columns have in the field."""

from __future__ import annotations

import bz2
from importlib.resources import files

NAMES = "NumTimesPrg,PlGlcConc,BloodP,SkinThick,TwoHourSerIns,BMI,DiPedFunc,Age,target"


def table() -> bytes:
    """CSV in the order of the training."""
    packed = files("faraway").joinpath("datasets/pima/pima.csv.bz2").read_bytes()
    return NAMES.encode() + b"\n" + bz2.decompress(packed).partition(b"\n")[2]
