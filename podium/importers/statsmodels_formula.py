"""Results of statsmodels whose formula computes: interactions, arithmetic, functions of numpy and quoted names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from podium.importers.errors import ImportRefused
from podium.importers.formula_terms import (
    Category,
    Expression,
    Factor,
    FrameTarget,
    GraphTarget,
    Learned,
    UnknownTerm,
    compute_term,
    parse_term,
)
from podium.importers.graph_builder import GraphBuilder
from podium.importers.sklearn_graph_steps import Columns
from podium.models.onnx_scorer import OnnxInput, OnnxScorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

Terms = list[list[Factor]]
"""The factors of each coefficient; none for the constant."""

LINKS: dict[str, Callable[[GraphBuilder, str], str]] = {
    "identity": lambda graph, sums: sums,
    "logistic": lambda graph, sums: _both(graph, graph.add("Sigmoid", sums)),
    "cloglog": lambda graph, sums: _both(
        graph, graph.add("Sub", 1.0, graph.add("Exp", graph.add("Neg", graph.add("Exp", sums))))
    ),
    "log": lambda graph, sums: graph.add("Exp", sums),
    "reciprocal": lambda graph, sums: graph.add("Reciprocal", sums),
    "softmax": lambda graph, sums: graph.add(
        "Softmax", graph.add("Concat", graph.add("Mul", _first(graph, sums), 0.0), sums, axis=1)
    ),
}


def _first(graph: GraphBuilder, sums: str) -> str:
    return graph.add("Gather", sums, graph.integers([0]), axis=1)


def _both(graph: GraphBuilder, second: str) -> str:
    return graph.add("Concat", graph.add("Sub", 1.0, second), second, axis=1)


def parse_terms(names: list[str], constants: set[str], frame: pd.DataFrame) -> Terms:
    """Parse the names of the coefficients; `frame` are the training rows, if the file has them. Raises ImportRefused."""
    terms: Terms = []
    for name in names:
        try:
            terms.append([] if name in constants else parse_term(name, frame))
        except UnknownTerm:
            raise ImportRefused(
                f"the term {name[:200]} is not a column, a category, a spline or arithmetic with functions of numpy: add its "
                "values to the table as a new column and fit again"
            ) from None
    return terms


def formula_columns(terms: Terms, frame: pd.DataFrame) -> tuple[Column, ...]:
    """Return the columns that the terms read; the training rows give ranges and reference categories. Raises ImportRefused."""
    levels: dict[str, set[str]] = {}
    numbers: dict[str, None] = {}
    order: dict[str, None] = {}
    for factor in (factor for factors in terms for factor in factors):
        if isinstance(factor, Category):
            order[factor.column] = None
            levels.setdefault(factor.column, set()).add(factor.level)
        elif isinstance(factor, Expression | Learned):
            order |= dict.fromkeys(factor.columns())
            numbers |= dict.fromkeys(factor.columns())
    if both := sorted(levels.keys() & numbers.keys()):
        raise ImportRefused(f"the formula uses {both[0]} as a number and as a category: add a copy of the column and fit again")
    return tuple(_text(name, levels[name], frame) if name in levels else _number(name, frame) for name in order)


def _text(name: str, levels: set[str], frame: pd.DataFrame) -> Column:
    known = {str(value) for value in frame[name].dropna().unique()} if name in frame else set()
    return Column(name, "category", categories=tuple(sorted(levels | known)))


def _number(name: str, frame: pd.DataFrame) -> Column:
    if name not in frame or not len(frame):
        return Column(name, "number")
    cells = frame[name].astype(float)
    return Column(name, "number", low=float(cells.min()), high=float(cells.max()))


def design_matrix(terms: Terms, columns: tuple[Column, ...], frame: pd.DataFrame) -> FloatMatrix:
    """Return the (rows, terms) matrix. Raises ValueError for an unknown or missing category, as patsy does."""
    for column in columns:
        if column.is_text and not frame[column.name].astype(str).isin(column.categories).all():
            raise ValueError(f"an unknown category of {column.name}")
    target = FrameTarget(frame)
    with np.errstate(all="ignore"):
        return np.column_stack([compute_term(factors, target) if factors else np.ones(len(frame)) for factors in terms])


def formula_scorer(terms: Terms, columns: tuple[Column, ...], params: FloatMatrix, link: str) -> OnnxScorer:
    """Return the weighted terms with their link; `params` is (terms, outputs). Raises ImportRefused."""
    if link not in LINKS:
        raise ImportRefused(
            f"a formula that computes is not supported with the link {link}: add its terms to the table as columns"
        )
    graph = GraphBuilder("x")
    x = Columns("x", tuple(column.name for column in columns), tuple(column.categories for column in columns))
    target = GraphTarget(graph, x, {column.name: index for index, column in enumerate(columns)})
    tensors = [compute_term(factors, target) if factors else target.number(1.0) for factors in terms]
    sums = graph.add("MatMul", graph.add("Concat", *tensors, axis=1), params)
    output = LINKS[link](graph, sums)
    shape = (len(columns),)
    return OnnxScorer(graph.model("x", shape, output), (OnnxInput("x", "float64", 0, shape),), "y", len(columns))
