"""Guarded moves of the champion: who may, from which champion, and why."""

from __future__ import annotations

import asyncio
import functools
import hmac
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from podium.project import NAME
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import AliasMoved, Retired, entries_since, read_champion
from podium.registry.promotion import GateFailed, NoPreviousChampion, PromotionContext, promote, rollback, utc_now
from podium.registry.signing import BadKey, Unsigned
from podium.registry.versions import IntegrityError, NotPublished
from podium.storage.object_store import StoreError
from service.negotiation import wants_page
from service.problems import ConditionMissing, PromotionDisabled, PromotionForbidden, problem
from service.services import Services, StateDep
from service.settings import ServiceSettings
from service.store_calls import from_store, in_time
from service.thread_pools import ThreadPool

router = APIRouter(tags=["promotion"])

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
ProjectName = Annotated[str, Path(pattern=NAME)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$")]
Condition = Annotated[str, Header(description='the champion that you expect to replace, as its ETag: "VERSION"')]
First = Annotated[str, Header(description="* when there is no champion yet")]


STATUS = {
    AliasMoved: (412, "alias-moved", "The champion is another by now"),
    NotPublished: (404, "unknown-version", "No such version"),
    NoPreviousChampion: (409, "nothing-before", "There is nothing to go back to"),
    GateFailed: (409, "gate-failed", "The version may not serve"),
    Retired: (409, "retired", "The version's files are gone"),
    Unsigned: (409, "unsigned", "The version is not signed as it should be"),
    IntegrityError: (409, "damaged", "The version is damaged"),
}


class PromotionBody(BaseModel):
    """What to promote and why; `dry_run` judges and writes nothing, `force` goes past failed gates and is written down."""

    model_config = ConfigDict(extra="forbid")

    version: Version
    reason: Text
    dry_run: bool = False
    force: bool = False


class RollbackBody(BaseModel):
    """Why to go back; `to` is any version that served, the one before when absent; `dry_run` writes nothing."""

    model_config = ConfigDict(extra="forbid")

    reason: Text
    to: Version | None = None
    dry_run: bool = False


@router.post("/projects/{project}/promote", summary="Judge a version by its gates and make it the champion")
async def promote_(
    project: ProjectName,
    wish: PromotionBody,
    request: Request,
    state: StateDep,
    if_match: Condition = "",
    if_none_match: First = "",
) -> Response:
    """Needs a promoter's bearer token and If-Match. 428 without a condition, 412 when somebody was faster, 409 for a gate."""
    context, expect = promotion_context(request, state), _expected(if_match, if_none_match)

    def act() -> AuditEntry:
        return promote(
            context, project, wish.version, wish.reason, utc_now, expect=expect, force=wish.force, dry_run=wish.dry_run
        )

    return await _change_champion(act, request, state)


@router.post("/projects/{project}/rollback", summary="Go back to the version that served before")
async def rollback_(
    project: ProjectName, wish: RollbackBody, request: Request, state: StateDep, if_match: Condition = ""
) -> Response:
    """Needs a promoter's bearer token and If-Match, as promotion does."""
    context, expect = promotion_context(request, state), _expected(if_match, "")

    def act() -> AuditEntry:
        return rollback(context, project, wish.reason, utc_now, to=wish.to, expect=expect, dry_run=wish.dry_run)

    return await _change_champion(act, request, state)


@router.get("/projects/{project}/history.json", include_in_schema=False)
@router.get(
    "/projects/{project}/history", summary="Who made what champion, when, why and on what evidence; a page for browsers"
)
async def history(project: ProjectName, request: Request, state: StateDep) -> Response:
    """Every act, the newest last; the ETag is that of the champion, for If-Match."""
    promoters = state.settings.trust().promoters
    async with in_time():
        entries, standing = await asyncio.gather(
            from_store(entries_since, state.pages_store, project, promoters),
            from_store(read_champion, state.pages_store, project, promoters),
        )
    acts = [entry.model_dump(mode="json", exclude={"signatures"}) for entry in entries]
    if wants_page(request):
        page = state.pages.page("history.html", project=project, acts=acts)
        return Response(page, headers=_etag(standing), media_type="text/html")
    return JSONResponse({"project": project, "acts": acts}, headers=_etag(standing))


@functools.cache
def _pool() -> ThreadPool:
    """Of this process: promotions wait patiently for the store, and must not use up the threads of others."""
    return ThreadPool(4, "promotions")


async def _change_champion(act: Callable[[], AuditEntry], request: Request, state: Services) -> Response:
    try:
        entry = await _pool().run(act)
    except StoreError as error:
        if type(error) not in STATUS:
            raise
        status, code, title = STATUS[type(error)]
        findings = error.entry.evidence if isinstance(error, GateFailed) else ()
        errors = [{"code": gate.name, "message": gate.detail} for gate in findings if not gate.passed]
        return problem(status, code, title, str(error), request, errors=errors)
    written = bool(entry.signatures)  # a dry one moved nothing
    if written:
        state.reconcile.hint()
    return JSONResponse(entry.model_dump(mode="json", exclude={"signatures"}), headers=_etag(entry) if written else None)


def promotion_context(request: Request, state: Services) -> PromotionContext:
    """Where this caller promotes, in their name, by the service's key and project files. Raises PromotionOff, NotAPromoter."""
    by = promoter(request.headers.get("authorization", ""), state.settings)
    try:
        signer = state.settings.signer()
    except BadKey:
        raise PromotionDisabled("the service has no signing key") from None
    return replace(state.reconcile.context(state.store, signer), by=by, rules=state.settings.rules_for)


def promoter(header: str, settings: ServiceSettings) -> str:
    """The name behind a bearer token. Raises PromotionOff, NotAPromoter."""
    if not settings.promoters:
        raise PromotionDisabled("set PODIUM_PROMOTERS to let somebody promote over HTTP")
    scheme, _, text = header.partition(" ")
    given = text.strip().encode()
    names = [
        name for name, token in settings.promoters.items() if hmac.compare_digest(token.get_secret_value().encode(), given)
    ]
    if scheme.lower() != "bearer" or not names:
        raise PromotionForbidden("send a promoter's token as `Authorization: Bearer …`")
    return names[0]


def _expected(if_match: str, if_none_match: str) -> str | None:
    """The version that must serve now, None for none. Raises ConditionMissing."""
    if not if_match.strip() and if_none_match.strip() == "*":
        return None
    tag = re.fullmatch(r'"([^"*]+)"', if_match.strip())
    if not tag or if_none_match:
        raise ConditionMissing(
            'send If-Match: "VERSION" with the one champion you expect, or If-None-Match: * if there is none'
        )
    return tag[1]


def _etag(entry: AuditEntry | None) -> dict[str, str]:
    return {"ETag": f'"{entry.champion}"'} if entry and entry.champion else {}
