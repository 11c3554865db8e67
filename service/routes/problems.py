"""The documentation of every problem, at the address that is its `type`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from service.negotiation import wants_page
from service.problem_types import PROBLEM_TYPES
from service.services import StateDep

router = APIRouter(tags=["problems"])


@router.get("/problems.json", include_in_schema=False)
@router.get("/problems", summary="Every code of a problem, what it means and what to do")
async def problem_types(request: Request, state: StateDep) -> Response:
    found = [_facts(code) for code in sorted(PROBLEM_TYPES)]
    if wants_page(request):
        return Response(state.pages.page("problems.html", problems=found), media_type="text/html")
    return JSONResponse({"problems": found})


@router.get("/problems/{code}", summary="What a code means and what to do")
async def problem_type(code: str, request: Request, state: StateDep) -> Response:
    """A page for browsers."""
    code = code.removesuffix(".json")
    if code not in PROBLEM_TYPES:
        raise HTTPException(404, "There is no problem of this code; /problems lists them")
    if wants_page(request):
        return Response(state.pages.page("problem.html", problem=_facts(code)), media_type="text/html")
    return JSONResponse(_facts(code))


def _facts(code: str) -> dict[str, str]:
    title, advice = PROBLEM_TYPES[code]
    return {"type": f"/problems/{code}", "code": code, "title": title, "advice": advice}
