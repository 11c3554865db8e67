"""The Pima table (768 rows) from the package `faraway`, with its common column names."""

from __future__ import annotations

import bz2
from importlib.resources import files

NAMES = "NumTimesPrg,PlGlcConc,BloodP,SkinThick,TwoHourSerIns,BMI,DiPedFunc,Age,target"


def table() -> bytes:
    """Return the table as CSV."""
    compressed = files("faraway").joinpath("datasets/pima/pima.csv.bz2").read_bytes()
    return NAMES.encode() + b"\n" + bz2.decompress(compressed).partition(b"\n")[2]
