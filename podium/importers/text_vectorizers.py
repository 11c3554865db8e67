"""Vectorizers of scikit-learn, which read texts: which columns they read, and what their pickles may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline

from podium.importers.errors import ImportRefused
from podium.importers.unpickling import FUNCTION_REMEDY, InertObject

VECTORIZERS = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
ANALYZERS = ("word", "char", "char_wb")


def takes_one_text(step: Any) -> bool:
    """Return whether an estimator takes a sequence of texts in place of a table."""
    if isinstance(step, CountVectorizer | HashingVectorizer):
        return True
    if isinstance(step, Pipeline):
        return takes_one_text(step.steps[0][1])
    if isinstance(step, FeatureUnion):
        return any(takes_one_text(part) for _, part in step.transformer_list)
    if hasattr(step, "calibrated_classifiers_"):
        return takes_one_text(step.calibrated_classifiers_[0].estimator)
    return any(takes_one_text(part) for part in _members(step))


def _members(ensemble: Any) -> Sequence[Any]:
    """Return the fitted parts of an ensemble that get the same rows."""
    members = getattr(ensemble, "estimators_", ())
    return members if isinstance(members, list) else ()


def text_columns(step: Any) -> Iterator[str | int]:
    """Yield the selected column of each vectorizer in a table of several columns, by its name or position."""
    if isinstance(step, Pipeline):
        yield from text_columns(step.steps[0][1])
    elif isinstance(step, FeatureUnion):
        for _, part in step.transformer_list:
            yield from text_columns(part)
    elif isinstance(step, ColumnTransformer):
        yield from (selection for _, part, selection in step.transformers_ if takes_one_text(part))
    else:
        for part in _members(step):
            yield from text_columns(part)


def check_vectorizer(vectorizer: InertObject) -> None:
    """Raise ImportRefused for functions and files in a scanned vectorizer, or a vocabulary that does not number its terms."""
    kind = vectorizer.kind
    if vectorizer.get("input", "content") != "content":
        raise ImportRefused(f'{kind} reads files: fit it on the texts, with input="content"')
    for name in ("analyzer", "preprocessor", "tokenizer"):
        value = vectorizer.get(name)
        if value is not None and (name != "analyzer" or not isinstance(value, str) or value not in ANALYZERS):
            raise ImportRefused(f"{kind} has its own {name}, which would run as code. {FUNCTION_REMEDY}")
    vocabulary = vectorizer.get("vocabulary_")
    if vocabulary is not None and not _numbers_terms(vocabulary):
        raise ImportRefused(f"the vocabulary of {kind} does not number its terms from 0: fit it again")


def _numbers_terms(vocabulary: Any) -> bool:
    if not isinstance(vocabulary, Mapping) or not all(isinstance(number, int | np.integer) for number in vocabulary.values()):
        return False
    return sorted(vocabulary.values()) == list(range(len(vocabulary)))
