"""The matrix of a statsmodels formula: columns, categories, interactions, arithmetic, functions of numpy and splines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

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
from podium.importers.graph_builder import Tensor, concat
from podium.importers.imported_model import plain_encoder
from podium.importers.sklearn_graph_columns import Columns
from podium.importers.sklearn_graph_formulas import both, softmax
from podium.models.encoder import Encoder
from podium.models.features import Feature, OneHot, Passthrough
from podium.models.onnx_scorer import OnnxScorer
from podium.models.scorers import LinearScorer
from podium.schema.arrays import FloatMatrix
from podium.schema.columns import Column

Terms = list[list[Factor]]
"""The factors of each coefficient; none for the constant."""

LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda sums: sums,
    "logistic": lambda sums: both(sums.map(expit)),
    "cloglog": lambda sums: both(1.0 - (-sums.map(np.exp)).map(np.exp)),
    "log": lambda sums: sums.map(np.exp),
    "reciprocal": lambda sums: sums.map(np.reciprocal),
    "softmax": lambda sums: softmax(concat([sums.column(0) * 0.0, sums])),
}


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


def formula_scorer(
    names: Sequence[str], terms: Terms, columns: tuple[Column, ...], params: FloatMatrix, link: str
) -> tuple[Encoder, LinearScorer | OnnxScorer]:
    """Return the weighted terms with their link; `params` is (terms, outputs). Raises ImportRefused."""
    positions = {column.name: index for index, column in enumerate(columns)}
    features = [_feature(name, factors, positions) for name, factors in zip(names, terms, strict=True) if factors]
    if all(features):
        is_constant = np.array([not factors for factors in terms])
        weights, intercepts = params[~is_constant].T, params[is_constant].sum(axis=0)
        if link == "softmax":  # the first class is the reference class
            weights, intercepts = np.vstack([0.0 * weights[:1], weights]), np.concatenate([[0.0], intercepts])
        linear = LinearScorer(tuple(map(tuple, weights.tolist())), tuple(intercepts.tolist()), link)
        return Encoder(columns, tuple(filter(None, features))), linear
    if link not in LINKS:
        raise ImportRefused(
            f"a formula that computes is not supported with the link {link}: add its terms to the table as columns"
        )
    target = GraphTarget(Columns.of_input(columns))
    tensors = [compute_term(factors, target) if factors else target.number(1.0) for factors in terms]
    output = LINKS[link](concat(tensors) @ params)
    return plain_encoder(columns), output.graph.scorer(len(columns), output)


def _feature(name: str, factors: list[Factor], positions: Mapping[str, int]) -> Feature | None:
    """Return the feature of a term that is a column or a category of one, else None."""
    (first, *others) = factors
    if others or isinstance(first, Learned) or not first.column:
        return None
    index = positions[first.column]
    return OneHot(index, name, (first.level,)) if isinstance(first, Category) else Passthrough(index, name)
