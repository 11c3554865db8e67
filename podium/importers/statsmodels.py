"""statsmodels results: coefficients and a link function, read from inert objects.

A pickled result stores its formula as text, which statsmodels evaluates as Python while unpickling. Therefore no object is
constructed: only the coefficients are read, and a formula is used only if all its terms are columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import patsy
import statsmodels
import statsmodels.api as sm

from podium.importers.errors import ImportRefused
from podium.importers.formula_terms import column_factor
from podium.importers.imported_model import (
    FLOAT64_TOLERANCE,
    Conversion,
    ImportedModel,
    check_column_count,
    target_of,
)
from podium.importers.statsmodels_formula import Terms, design_matrix, formula_columns, formula_scorer, parse_terms
from podium.importers.unpickling import InertObject
from podium.schema.arrays import FloatMatrix, FloatVector
from podium.schema.columns import Column

LINKS = {
    "Identity": "identity",
    "Logit": "logistic",
    "Probit": "probit",
    "CLogLog": "cloglog",
    "Log": "log",
    "InversePower": "reciprocal",
}
"""Maps statsmodels' link classes to the inverse links in `podium.models.scorers.LINKS`."""
DISCRETE = {"Logit": "logistic", "Probit": "probit", "MNLogit": "softmax", "Poisson": "log"}
LEAST_SQUARES = ("OLS", "WLS", "GLS")
CLASSIFICATION_LINKS = ("logistic", "probit", "cloglog", "softmax")

CONSTANTS = ("const", "Intercept")
PLAIN_TERM = re.compile(r"\w+|(?:C\(\w+\)|\w+)\[T\.(.+)\]")
COLUMN_FACTOR = re.compile(r"C\(\w+\)|\w+")
NAMED_DATA = ("PandasData", "PatsyData", "FormulaicData")


@dataclass(frozen=True, slots=True)
class StatsmodelsFit:
    """The content of a pickled result; `params` is (terms,) or (terms, classes - 1)."""

    model: str
    link: str
    params: FloatVector | FloatMatrix
    terms: Sequence[str]
    target: str
    labels: Sequence[object]
    formula: str
    frame: pd.DataFrame
    exog: FloatMatrix | None


def is_statsmodels(content: Any) -> bool:
    """True for a scanned pickle of statsmodels."""
    return isinstance(content, InertObject) and content.global_name[0].startswith("statsmodels.")


def read_statsmodels(content: InertObject, target: str, class_names: tuple[str, ...], names: list[str] | None) -> ImportedModel:
    """Read a pickled result; `names` are the columns of a sample, for a file without names. Raises ImportRefused."""
    fit = _read_fit(content, names)
    rows = fit.frame if fit.formula else _named_rows(fit)
    constants = _constants(fit)
    if fit.formula:
        terms = parse_terms(list(fit.terms), constants, rows)
    else:
        terms = [[] if term in constants else [column_factor(term)] for term in fit.terms]
    columns = formula_columns(terms, rows)
    if not columns:
        raise ImportRefused("the model has only a constant: fit it with at least one column")
    if fit.formula:
        if all(PLAIN_TERM.fullmatch(term) for term in fit.terms):
            _check_formula(fit.formula)
        _check_matrix(fit, terms, columns)
    model, labels = _unfitted_model(fit), fit.labels if fit.link in CLASSIFICATION_LINKS else None
    encoder, scorer = formula_scorer(fit.terms, terms, columns, fit.params.reshape(len(terms), -1), fit.link)
    return ImportedModel(
        "statsmodels",
        encoder,
        [Conversion(encoder, scorer, FLOAT64_TOLERANCE)],
        target_of(fit.target or target, labels, class_names),
        lambda frame: _predicted(fit, model, design_matrix(terms, columns, frame)),
        f"statsmodels {statsmodels.__version__}" + (" with Podium's own matrix of the formula" if fit.formula else ""),
        embedded_training_rows=max(len(fit.frame), 0 if fit.exog is None else len(fit.exog)),
    )


def _named_rows(fit: StatsmodelsFit) -> pd.DataFrame:
    """Return the training rows of a fit on a table."""
    return pd.DataFrame() if fit.exog is None else pd.DataFrame(fit.exog, columns=list(fit.terms))


def _check_formula(formula: str) -> None:
    """Check that a formula, which is parsed but never evaluated, has only columns and categories. Raises ImportRefused."""
    try:
        terms = patsy.ModelDesc.from_formula(formula).rhs_termlist
    except patsy.PatsyError as error:
        raise ImportRefused("the formula cannot be parsed: fit with a plain formula of columns") from error
    if not all(COLUMN_FACTOR.fullmatch(factor.code) for term in terms for factor in term.factors):
        raise ImportRefused("the formula has a computed term: add the result to the table as a column and fit again")


def _check_matrix(fit: StatsmodelsFit, terms: Terms, columns: tuple[Column, ...]) -> None:
    """Check that the terms give the matrix of the fit, if the file has it. Raises ImportRefused."""
    if fit.exog is None or not len(fit.exog) or len(fit.frame) != len(fit.exog):
        return
    frame = fit.frame.assign(**{column.name: fit.frame[column.name].astype(str) for column in columns if column.is_text})
    if not np.allclose(design_matrix(terms, columns, frame), fit.exog, rtol=FLOAT64_TOLERANCE, atol=FLOAT64_TOLERANCE):
        raise ImportRefused("the terms of the formula do not give the matrix of the fit: add them to the table as columns")


def _predicted(fit: StatsmodelsFit, model: Any, matrix: FloatMatrix) -> FloatMatrix:
    predicted = np.asarray(model.predict(fit.params, matrix), dtype=float)
    if fit.link in CLASSIFICATION_LINKS and fit.link != "softmax":
        return np.column_stack([1.0 - predicted, predicted])
    return predicted.reshape(len(matrix), -1)


def _read_fit(content: InertObject, names: list[str] | None) -> StatsmodelsFit:
    results = content.get("_results", content)
    model = results.get("model") if isinstance(results, InertObject) else None
    data = model.get("data") if isinstance(model, InertObject) else None
    params = results.get("params") if data is not None else None
    if not isinstance(model, InertObject) or not isinstance(data, InertObject) or params is None:
        raise ImportRefused(f"{content.kind} is not the result of a statsmodels fit: pickle what `.fit()` returned")
    has_offset = isinstance(model.get("offset"), np.ndarray) and model.kind != "GLM"
    if model.get("_has_offset") or model.get("_has_exposure") or has_offset:
        raise ImportRefused("models with an offset or exposure are not supported: fit without it")
    exog, endog = data.get("orig_exog"), data.get("orig_endog")
    if getattr(endog, "ndim", 1) == 2 and np.shape(endog)[1] != 1:
        raise ImportRefused(
            "the target is text or has two columns: fit with one column of 0 and 1, and name the classes with --classes"
        )
    frame = data.get("frame")
    return StatsmodelsFit(
        model.kind,
        _link(model),
        np.asarray(params, dtype=float),
        _terms(data, len(np.asarray(params)), names),
        _target_name(data),
        list((model.get("_ynames_map") or {0: 0, 1: 1}).values()),
        str(model.get("formula") or ""),
        frame if isinstance(frame, pd.DataFrame) else pd.DataFrame(),
        np.asarray(exog, dtype=float) if exog is not None else None,
    )


def _link(model: InertObject) -> str:
    """The name of the inverse link in `podium.models.scorers.LINKS`."""
    if model.kind in LEAST_SQUARES:
        return "identity"
    if model.kind in DISCRETE:
        return DISCRETE[model.kind]
    family = model.get("family")
    if model.kind != "GLM" or not isinstance(family, InertObject):
        supported = ", ".join((*LEAST_SQUARES, "GLM", *DISCRETE))
        raise ImportRefused(f"statsmodels' {model.kind} is not supported: fit one of {supported}")
    link = getattr(family.get("_link", family.get("link")), "kind", "?")
    link = next((name for name in LINKS if name.lower() == link.lower()), link)  # before 0.14, the names were in lower case
    name = LINKS.get(link)
    if name is None or (name in ("probit", "cloglog", "logistic")) != (family.kind == "Binomial"):
        raise ImportRefused(
            f"a GLM of the family {family.kind} with the link {link} is not supported: fit with one of {', '.join(LINKS)}"
        )
    return name


def _terms(data: InertObject, count: int, names: list[str] | None) -> list[str]:
    """The names of the coefficients: from the file, else the columns of the sample in their order. Raises ImportRefused."""
    exog = data.get("orig_exog")
    if isinstance(exog, pd.DataFrame):
        return [str(name) for name in exog.columns]
    known = (data.get("_cache") or {}).get("xnames") if data.kind in NAMED_DATA else None  # for arrays, these are invented
    if isinstance(known, list) and len(known) == count:
        return [str(name) for name in known]
    constant = data.get("const_idx")
    position = None if constant is None else int(np.ravel(constant)[0])
    inputs = count - (position is not None)
    if names is None:
        raise ImportRefused(
            f"the file does not name its {inputs} inputs: pass --sample with these columns in the order of the fit"
        )
    if len(names) == count and (position is None or names[position] in CONSTANTS):
        return names
    check_column_count(inputs, names)
    if position is None and data.get("k_constant"):
        raise ImportRefused("the file does not tell which coefficient is the constant: add its column of ones to the sample")
    return [*names[:position], CONSTANTS[0], *names[position:]]


def _target_name(data: InertObject) -> str:
    endog = data.get("orig_endog")
    name = getattr(endog, "name", None) or next(iter(getattr(endog, "columns", [])), None)
    known = (data.get("_cache") or {}).get("ynames") if data.kind in NAMED_DATA else None
    return str(name or (known if isinstance(known, str) else ""))


def _constants(fit: StatsmodelsFit) -> set[str]:
    """Constant terms, which are 1 in every row; recognized by name alone if the file has no rows."""
    named = {term for term in fit.terms if term in CONSTANTS}
    if fit.exog is None or not len(fit.exog):
        return named
    return {term for index, term in enumerate(fit.terms) if term in named and (fit.exog[:, index] == 1).all()}


def _unfitted_model(fit: StatsmodelsFit) -> Any:
    """A new model of the same kind on the smallest table that its constructor accepts."""
    if fit.link == "softmax":
        classes = np.arange(fit.params.reshape(len(fit.terms), -1).shape[1] + 1)
        return sm.MNLogit(classes, np.ones((len(classes), 1)))
    target, ones = np.array([0.0, 1.0]), np.ones((2, 1))
    if fit.model in LEAST_SQUARES:
        return sm.OLS(target, ones)
    if fit.model in DISCRETE:
        return getattr(sm, fit.model)(target, ones)
    names = {link: name for name, link in LINKS.items()}
    link = getattr(sm.families.links, names[fit.link])()
    family = sm.families.Binomial if fit.link in CLASSIFICATION_LINKS else sm.families.Gaussian
    return sm.GLM(target, ones, family=family(link=link))
