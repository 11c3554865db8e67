"""Reject unknown and repeated query parameters, instead of ignoring them."""

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

MAX_NAME, MAX_REPORTED, MAX_LISTED = 64, 5, 20
RECORD_PATH = re.compile(r"/predict(\.\w+)?$")
"""Paths that accept the fields of a record as query parameters of a GET request."""


async def check_query(request: Request) -> None:
    """Check the query of a request; a dependency of every endpoint. Raises RequestValidationError."""
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    declared = _declared(route)
    given = Counter(name for name, _ in request.query_params.multi_items())
    has_record = request.method == "GET" and RECORD_PATH.search(route.path)  # the endpoint checks the record's fields
    unknown = [] if has_record else itertools.islice((name for name in given if name not in declared), MAX_REPORTED)
    errors = [(name, _unknown_message(name, declared)) for name in unknown]
    errors += [(name, "is repeated") for name in declared if given[name] > 1]
    if errors:
        raise RequestValidationError(
            [{"loc": ("query", name[:MAX_NAME]), "msg": message} for name, message in errors[:MAX_REPORTED]]
        )


def _declared(route: APIRoute) -> frozenset[str]:
    """Return the names of a route's query parameters."""
    fields = get_flat_params(route.dependant)
    return frozenset(field.alias for field in fields if isinstance(field.field_info, params.Query))


def _unknown_message(name: str, declared: Collection[str]) -> str:
    message = f"unknown parameter `{name[:MAX_NAME]}`"
    if matches := get_close_matches(name[:MAX_NAME], declared, 1):
        return f"{message}; did you mean `{matches[0]}`?"
    if not declared:
        return f"{message}; this path has no parameters"
    return f"{message}; available: {', '.join(sorted(declared)[:MAX_LISTED])}"
