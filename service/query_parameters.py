"""Query parameters that an endpoint does not know, or that come twice, are refused and not ignored."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection
from difflib import get_close_matches

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

MAX_NAME, MAX_REPORTED, MAX_SHOWN = 64, 5, 20
A_RECORD = re.compile(r"/predict(\.\w+)?$")
"""Paths that take the fields of a record in the query of a GET."""


async def check_query(request: Request) -> None:
    """A dependency of every endpoint. Raises RequestValidationError."""
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    options = _declared(route)
    given = Counter(name for name, _ in request.query_params.multi_items())
    holds_record = request.method == "GET" and A_RECORD.search(route.path)  # the endpoint checks the record's fields
    wrong = [] if holds_record else itertools.islice((name for name in given if name not in options), MAX_REPORTED)
    errors = [(name, _unknown(name, options)) for name in wrong]
    errors += [(name, "is given twice") for name in options if given[name] > 1]
    if errors:
        raise RequestValidationError(
            [{"loc": ("query", name[:MAX_NAME]), "msg": message} for name, message in errors[:MAX_REPORTED]]
        )


def _declared(route: APIRoute) -> frozenset[str]:
    """The names of a route's query parameters."""
    found = get_flat_params(route.dependant)
    return frozenset(each.alias for each in found if isinstance(each.field_info, params.Query))


def _unknown(name: str, known: Collection[str]) -> str:
    shown = f"unknown parameter `{name[:MAX_NAME]}`"
    if close := get_close_matches(name[:MAX_NAME], known, 1):
        return f"{shown}; did you mean `{close[0]}`?"
    return f"{shown}; known are {', '.join(sorted(known)[:MAX_SHOWN])}" if known else f"{shown}; this path takes none"
