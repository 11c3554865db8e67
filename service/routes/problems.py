"""Documentation of each problem code, at the URL in the `type` of a problem document."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.errors import NotFound
from service.negotiation import wants_page
from service.problem_types import PROBLEM_TYPES
from service.services import ServicesDep

router = APIRouter(tags=["problems"])


@router.get("/problems.json", include_in_schema=False)
@router.get("/problems", summary="Problem codes")
async def problem_types(request: Request, services: ServicesDep) -> Response:
    """Every problem code with its meaning and advice, as JSON or a page for browsers."""
    problems = [_problem(code) for code in sorted(PROBLEM_TYPES)]
    if wants_page(request):
        return Response(services.pages.page("problems.html", problems=problems), media_type="text/html")
    return JSONResponse({"problems": problems})


@router.get("/problems/{code}", summary="Problem code")
async def problem_type(code: str, request: Request, services: ServicesDep) -> Response:
    """The meaning of a problem code, with advice, as JSON or a page for browsers."""
    code = code.removesuffix(".json")
    if code not in PROBLEM_TYPES:
        raise NotFound("unknown problem code; see /problems")
    if wants_page(request):
        return Response(services.pages.page("problem.html", problem=_problem(code)), media_type="text/html")
    return JSONResponse(_problem(code))


def _problem(code: str) -> dict[str, str]:
    title, advice = PROBLEM_TYPES[code]
    return {"type": f"/problems/{code}", "code": code, "title": title, "advice": advice}
