"""Terms of a statsmodels formula, parsed from the names of the coefficients and never evaluated as Python.

A term is a product of factors, such as `np.log(income):C(town)[T.Bonn]`. A factor is a category of a column, or an arithmetic
expression of columns, numbers and functions of numpy.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from podium.importers.formula_splines import TRANSFORMS, LearnedTransform, learn_transform
from podium.importers.graph_builder import Tensor, where
from podium.importers.sklearn_graph_columns import Columns
from podium.importers.sklearn_graph_steps import FUNCTIONS

CATEGORY = re.compile(r"(?P<code>.+?)\[(?:T\.)?(?P<level>[^\[\]]*)\]")
LEARNED = re.compile(rf"(?P<code>(?:{'|'.join(TRANSFORMS)})\(.+\))(?:\[(?P<output>\d+)\])?")
OPERATORS: dict[type, np.ufunc] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
OTHER_CODINGS = ("S.", "D.", "H.")
"""How the levels of sum, difference and Helmert codings start."""
MAX_NUMBER = 1e300
NAMES_OF_NUMPY = ("np", "numpy")


class UnknownTerm(Exception):
    """A term that is not a product of categories and arithmetic expressions."""


class Target(Protocol):
    """What a term is computed from: the columns of a frame, or of a graph, whose tensors have the arithmetic of arrays."""

    def column(self, name: str) -> Any: ...

    def is_level(self, name: str, level: str) -> Any: ...

    def number(self, value: float) -> Any: ...

    def learned(self, transform: LearnedTransform, output: int, value: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Category:
    column: str
    level: str

    def compute(self, target: Target) -> Any:
        return target.is_level(self.column, self.level)


@dataclass(frozen=True, slots=True)
class Expression:
    node: ast.expr

    @property
    def column(self) -> str | None:
        """The column, if the expression is only a column."""
        return _column(self.node)

    def compute(self, target: Target) -> Any:
        return _compute(self.node, target)

    def columns(self) -> Iterator[str]:
        return _columns(self.node)


@dataclass(frozen=True, slots=True)
class Learned:
    """One output of a transform that learns from the training rows, such as a spline of a column."""

    column: str
    transform: LearnedTransform
    output: int

    def compute(self, target: Target) -> Any:
        return target.learned(self.transform, self.output, target.column(self.column))

    def columns(self) -> Iterator[str]:
        yield self.column


Factor = Category | Expression | Learned


def column_factor(name: str) -> Factor:
    """Return a column as it is."""
    return Expression(ast.Name(name))


def parse_term(term: str, frame: pd.DataFrame) -> list[Factor]:
    """Return the factors of a term; splines are fitted on the training rows `frame`. Raises UnknownTerm."""
    try:
        return [_learned(part, frame) or _factor(part) for part in _split(term)]
    except RecursionError as error:
        raise UnknownTerm("a nested expression") from error


def compute_term(factors: list[Factor], target: Target) -> Any:
    """Return the product of the factors."""
    product = factors[0].compute(target)
    for factor in factors[1:]:
        product = product * factor.compute(target)
    return product


def _split(term: str) -> Iterator[str]:
    """Split at colons outside of brackets and quotes."""
    depth, quote, start = 0, "", 0
    for position, letter in enumerate(term):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter == ":" and depth == 0:
            yield term[start:position]
            start = position + 1
    yield term[start:]


def _learned(text: str, frame: pd.DataFrame) -> Learned | None:
    """Return the output of a learned transform, such as `bs(x, df=4)[2]`; None for other factors. Raises UnknownTerm."""
    match = LEARNED.fullmatch(text)
    node = _parse(match["code"]) if match else None
    if not match or not isinstance(node, ast.Call) or not node.args:
        return None
    column = _column(node.args[0])
    if column not in frame:
        raise UnknownTerm(f"{text} of training rows that the file does not have")
    try:
        transform = learn_transform(node, frame[column])
    except Exception as error:  # raised by patsy
        raise UnknownTerm(text) from error
    output = int(match["output"] or 0)
    if output >= transform.pieces.shape[1]:
        raise UnknownTerm(text)
    return Learned(str(column), transform, output)


def _factor(text: str) -> Factor:
    match = CATEGORY.fullmatch(text)
    if match:
        if match["level"].startswith(OTHER_CODINGS):
            raise UnknownTerm(text)
        return Category(_category_column(_parse(match["code"])), match["level"])
    node = _parse(text)
    list(_columns(node))  # raises UnknownTerm
    return Expression(node)


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnknownTerm(text) from error


def _category_column(node: ast.expr) -> str:
    """The column of `town`, `Q("town")`, `C(town)` or `C(town, Treatment(…))`. Raises UnknownTerm, also for other codings."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "C" and node.args:
        if not all(ast.unparse(coding).startswith("Treatment") for coding in node.args[1:]) or node.keywords:
            raise UnknownTerm(ast.unparse(node))
        node = node.args[0]
    name = _column(node)
    if name is None:
        raise UnknownTerm(ast.unparse(node))
    return name


def _column(node: ast.expr) -> str | None:
    """The name of a column, which `Q` quotes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Q" and len(node.args) == 1:
        (name,) = node.args
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return name.value
    return None


def _function(node: ast.Call) -> np.ufunc | None:
    """The function of numpy that is called with one number; None for `I(…)`. Raises UnknownTerm."""
    if len(node.args) == 1 and not node.keywords:
        function = node.func
        if isinstance(function, ast.Name) and function.id == "I":
            return None
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in NAMES_OF_NUMPY:
            known = {ufunc.__name__: ufunc for ufunc in FUNCTIONS} | {"abs": np.absolute}
            if function.attr in known:
                return known[function.attr]
    raise UnknownTerm(ast.unparse(node))


def _columns(node: ast.expr) -> Iterator[str]:
    """Yield the columns of an expression. Raises UnknownTerm."""
    name = _column(node)
    if name is not None:
        yield name
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield from _columns(node.left)
        yield from _columns(node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        yield from _columns(node.operand)
    elif isinstance(node, ast.Call):
        _function(node)
        yield from _columns(node.args[0])
    elif not _is_number(node):
        raise UnknownTerm(ast.unparse(node))


def _is_number(node: ast.expr) -> bool:
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool) or not isinstance(node.value, int | float):
        return False
    return abs(node.value) <= MAX_NUMBER


def _compute(node: ast.expr, target: Target) -> Any:
    name = _column(node)
    if name is not None:
        return target.column(name)
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_compute(node.left, target), _compute(node.right, target))
    if isinstance(node, ast.UnaryOp):
        return (-1.0 if isinstance(node.op, ast.USub) else 1.0) * _compute(node.operand, target)
    if isinstance(node, ast.Call):
        function, value = _function(node), _compute(node.args[0], target)
        return value if function is None else function(value)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return target.number(float(node.value))
    raise UnknownTerm(ast.unparse(node))


class FrameTarget:
    """Computes with the columns of a frame; categories are compared as texts."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def column(self, name: str) -> Any:
        return self._frame[name].to_numpy(dtype=float)

    def is_level(self, name: str, level: str) -> Any:
        return (self._frame[name].astype(str) == level).to_numpy(dtype=float)

    def number(self, value: float) -> Any:
        return np.full(len(self._frame), value)

    def learned(self, transform: LearnedTransform, output: int, value: Any) -> Any:
        return transform.values(value)[:, output]


class GraphTarget:
    """Adds operators to the graph of these columns."""

    def __init__(self, x: Columns) -> None:
        self._x = x

    def column(self, name: str) -> Tensor:
        return self._x.tensor.column(self._x.names.index(name))

    def is_level(self, name: str, level: str) -> Tensor:
        return (self.column(name) == self._x.code(self._x.names.index(name), level)).number()

    def number(self, value: float) -> Tensor:
        return self._x.tensor.constant_rows(np.array([value]))

    def learned(self, transform: LearnedTransform, output: int, value: Tensor) -> Tensor:
        """Choose the last piece that has started."""
        total = self.number(0.0)
        if transform.period:
            value = value - ((value - float(transform.starts[0])) / transform.period).map(np.floor) * transform.period
        for number, (start, width) in enumerate(zip(transform.starts, transform.widths, strict=True)):
            x, polynomial = (value - float(start)) / float(width), self.number(0.0)
            for coefficient in reversed(transform.pieces[number, output].tolist()):
                polynomial = polynomial * x + coefficient
            total = polynomial if number == 0 else where(value < float(start), total, polynomial)
        return total
