"""Results of statsmodels: coefficients and a link, read from inert shells.

A pickled result with a formula holds that formula as text, and statsmodels evaluates it, which is Python, while it unpickles.
So nothing of it is constructed: the coefficients are taken out, and the formula is used only when all its terms are columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import patsy
import statsmodels.api as sm

from podium.importers.errors import ImportRefused
from podium.importers.imported_model import DOUBLE, ImportedModel, numbered, target_of
from podium.importers.unpickling import Shell
from podium.models.encoder import Encoder
from podium.models.features import Feature, OneHot, Passthrough
from podium.models.scorers import LinearScorer
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Column

LINKS = {"Identity": "identity", "Logit": "logistic", "Probit": "probit", "CLogLog": "cloglog", "Log": "log"}
LINKS |= {"InversePower": "reciprocal"}
DISCRETE = {"Logit": "logistic", "Probit": "probit", "MNLogit": "softmax", "Poisson": "log"}
STRAIGHT = ("OLS", "WLS", "GLS")
OF_CLASSES = ("logistic", "probit", "cloglog", "softmax")

CONSTANTS = ("const", "Intercept")
LEVEL = re.compile(r"(?:C\((\w+)\)|(\w+))\[T\.(.+)\]")
FACTOR = re.compile(r"C\((\w+)\)|(\w+)")


@dataclass(frozen=True, slots=True)
class Fit:
    """What is taken out of the shells; `params` is (terms,) or (terms, classes - 1)."""

    model: str
    link: str
    params: FloatVector | FloatMatrix
    terms: Sequence[str]
    target: str
    labels: Sequence[object]
    formula: str
    frame: pd.DataFrame
    exog: FloatMatrix | None


def is_statsmodels(shell: Any) -> bool:
    return isinstance(shell, Shell) and shell.asked[0].startswith("statsmodels.")


def read_statsmodels(shell: Shell, target: str, classes: tuple[str, ...]) -> ImportedModel:
    """Raises Refusal."""
    fit = _fit(shell)
    columns, features, weights, intercepts = _linear(fit)
    labels = fit.labels if fit.link in OF_CLASSES else None
    encoder, scorer = Encoder(columns, features), LinearScorer(weights, intercepts, fit.link)
    embedded_training_rows = max(len(fit.frame), 0 if fit.exog is None else len(fit.exog))
    found = target_of(fit.target or target, labels, classes)
    return ImportedModel(
        "statsmodels",
        encoder,
        [(encoder, scorer, DOUBLE)],
        found,
        _original(fit),
        embedded_training_rows=embedded_training_rows,
    )


def _fit(shell: Shell) -> Fit:
    results = shell.get("_results", shell)
    model = results.get("model") if isinstance(results, Shell) else None
    data = model.get("data") if isinstance(model, Shell) else None
    params = results.get("params") if data is not None else None
    if not isinstance(model, Shell) or not isinstance(data, Shell) or params is None:
        raise ImportRefused(f"{shell.kind} is no result of a statsmodels fit: pickle what `.fit()` returned")
    if (
        model.get("_has_offset")
        or model.get("_has_exposure")
        or (isinstance(model.get("offset"), np.ndarray) and model.kind != "GLM")
    ):
        raise ImportRefused("the model has an offset or an exposure, which a service does not know: fit without")
    exog, endog = data.get("orig_exog"), data.get("orig_endog")
    if getattr(endog, "ndim", 1) == 2 and np.shape(endog)[1] != 1:
        raise ImportRefused(
            "the target was text or had two columns: fit with one column of 0 and 1, and name them with --classes"
        )
    matrix = np.asarray(exog if exog is not None else data.get("exog"), dtype=float) if exog is not None else None
    frame = data.get("frame")
    return Fit(
        model.kind,
        _link(model),
        np.asarray(params, dtype=float),
        _terms(exog, np.asarray(params), data.get("const_idx")),
        str(getattr(endog, "name", None) or next(iter(getattr(endog, "columns", [])), "")),
        list((model.get("_ynames_map") or {0: 0, 1: 1}).values()),
        str(model.get("formula") or ""),
        frame if isinstance(frame, pd.DataFrame) else pd.DataFrame(),
        matrix,
    )


def _link(model: Shell) -> str:
    """The name of the link's inverse in `podium.models.scorers.LINKS`."""
    if model.kind in STRAIGHT:
        return "identity"
    if model.kind in DISCRETE:
        return DISCRETE[model.kind]
    family = model.get("family")
    if model.kind != "GLM" or not isinstance(family, Shell):
        raise ImportRefused(
            f"statsmodels' {model.kind} is not among those that are taken: OLS, WLS, GLS, GLM, {', '.join(DISCRETE)}"
        )
    link = getattr(family.get("_link"), "kind", "?")
    name = LINKS.get(link)
    if name is None or (name in ("probit", "cloglog", "logistic")) != (family.kind == "Binomial"):
        raise ImportRefused(
            f"a GLM of the family {family.kind} with the link {link} is not taken; links are {', '.join(LINKS)}"
        )
    return name


def _terms(exog: Any, params: np.ndarray, constant: int | None) -> list[str]:
    """The names of the coefficients."""
    if isinstance(exog, pd.DataFrame):
        return [str(name) for name in exog.columns]
    names = numbered(len(params) - (constant is not None))
    if constant is not None:
        names.insert(constant, CONSTANTS[0])
    return names


def _linear(fit: Fit) -> tuple[tuple[Column, ...], tuple[Feature, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Columns, features, weights (outputs, features) and intercepts from the names of the terms. Raises Refusal."""
    params = fit.params.reshape(len(fit.terms), -1)
    intercepts = np.zeros(params.shape[1])
    columns: dict[str, Column] = {}
    constant = _constants(fit)
    features: list[Feature] = []
    weights = []
    for place, (term, values) in enumerate(zip(fit.terms, params, strict=True)):
        if term in constant:
            intercepts = intercepts + values
            continue
        level = LEVEL.fullmatch(term) if fit.formula else None
        if fit.formula and not level and not re.fullmatch(r"\w+", term):
            raise ImportRefused(f"the term {term} is more than a column: compute it as a column of its own and fit without it")
        name = (level[1] or level[2]) if level else term
        column = columns.setdefault(name, _category(name, fit) if level else _number(name, fit, place))
        number = list(columns).index(column.name)
        features.append(OneHot(number, term, (level[3],)) if level else Passthrough(number, term))
        weights.append(values)
    if not features:
        raise ImportRefused("the model has no input but its constant")
    table = np.array(weights).reshape(len(features), -1).T
    if fit.link == "softmax":  # the first class is the one that the others are compared with
        table, intercepts = np.vstack([np.zeros(len(features)), table]), np.concatenate([[0.0], intercepts])
    rows = tuple(tuple(row) for row in table.tolist())
    return tuple(columns.values()), tuple(features), rows, tuple(intercepts.tolist())


def _constants(fit: Fit) -> set[str]:
    """Terms that are 1 in every row; by their name alone where the rows are not in the file."""
    named = {term for term in fit.terms if term in CONSTANTS}
    if fit.exog is None or not len(fit.exog):
        return named
    return {term for place, term in enumerate(fit.terms) if term in named and (fit.exog[:, place] == 1).all()}


def _number(name: str, fit: Fit, place: int) -> Column:
    if fit.exog is None or not len(fit.exog):
        return Column(name, "number")
    return Column(name, "number", low=float(fit.exog[:, place].min()), high=float(fit.exog[:, place].max()))


def _category(name: str, fit: Fit) -> Column:
    """With the base level as well, if the file says what it was; else only the levels that have a coefficient."""
    levels = {match[3] for match in map(LEVEL.fullmatch, fit.terms) if match and (match[1] or match[2]) == name}
    if name in fit.frame:
        levels |= {str(level) for level in fit.frame[name].dropna().unique()}
    return Column(name, "category", categories=tuple(sorted(levels)))


def _original(fit: Fit) -> Callable[[pd.DataFrame], FloatMatrix]:
    """statsmodels' own predict for these coefficients; the design by patsy when there was a formula."""
    fresh, design = _fresh(fit), _design(fit)

    def scores(frame: pd.DataFrame) -> FloatMatrix:
        found = np.asarray(fresh.predict(fit.params, design(frame)), dtype=float)
        if fit.link in OF_CLASSES and fit.link != "softmax":
            return np.column_stack([1.0 - found, found])
        return found.reshape(len(frame), -1)

    return scores


def _fresh(fit: Fit) -> Any:
    """A model of the same kind, made here, of the smallest table that its constructor takes."""
    if fit.link == "softmax":
        classes = np.arange(fit.params.reshape(len(fit.terms), -1).shape[1] + 1)
        return sm.MNLogit(classes, np.ones((len(classes), 1)))
    rows, ones = np.array([0.0, 1.0]), np.ones((2, 1))
    if fit.model in STRAIGHT:
        return sm.OLS(rows, ones)
    if fit.model in DISCRETE:
        return getattr(sm, fit.model)(rows, ones)
    names = {link: name for name, link in LINKS.items()}
    link = getattr(sm.families.links, names[fit.link])()
    family = sm.families.Binomial if fit.link in OF_CLASSES else sm.families.Gaussian
    return sm.GLM(rows, ones, family=family(link=link))


def _design(fit: Fit) -> Callable[[pd.DataFrame], Any]:
    """A frame of the columns to the matrix of the terms."""
    constant = _constants(fit)
    names = [term for term in fit.terms if term not in constant]
    if not fit.formula or fit.frame.empty:
        return lambda frame: np.column_stack(
            [np.ones(len(frame)) if term in constant else _term(term, frame) for term in fit.terms]
        )
    right = _safe_formula(fit.formula)
    info = patsy.dmatrix(right, fit.frame.infer_objects(), eval_env=patsy.EvalEnvironment([{}])).design_info
    if [name for name in info.column_names if name not in CONSTANTS] != names:
        raise ImportRefused("the formula does not give the terms of the coefficients: the file is damaged")
    levels = {
        name: {str(level): level for level in fit.frame[name].dropna().unique()}
        for name in {match[1] or match[2] for match in map(LEVEL.fullmatch, fit.terms) if match}
    }

    def restored(frame: pd.DataFrame) -> pd.DataFrame:
        """Categories as training had them: numbers and truth values, too."""
        return frame.assign(
            **{name: frame[name].map(lambda text, known=known: known.get(text, text)) for name, known in levels.items()}
        )

    return lambda frame: np.asarray(patsy.build_design_matrices([info], restored(frame), NA_action="raise")[0])


def _term(term: str, frame: pd.DataFrame) -> Any:
    level = LEVEL.fullmatch(term)
    return frame[term] if term in frame else (frame[level[1] or level[2]] == level[3]).astype(float) if level else None


def _safe_formula(formula: str) -> patsy.ModelDesc:
    """The right side, of columns and C(column) only; patsy splits a formula without running it. Raises Refusal."""
    try:
        parsed = patsy.ModelDesc.from_formula(formula)
    except patsy.PatsyError as error:
        raise ImportRefused("the formula cannot be read") from error
    for term in parsed.rhs_termlist:
        for factor in term.factors:
            if not FACTOR.fullmatch(factor.code):
                raise ImportRefused("the formula computes something: make it a column of its own and fit without it")
    return patsy.ModelDesc([], parsed.rhs_termlist)
