"""Promotion and rollback over HTTP, and the promotion history."""

from __future__ import annotations

import asyncio
import functools
import hmac
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from podium.project import NAME
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import AliasMoved, Retired, entries_since
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import GateFailed, NoPreviousChampion, PromotionContext, promote, rollback, utc_now
from podium.registry.retrain_record import RetrainRecord, read_retrain, retrain_dates
from podium.registry.signing import BadKey, Unsigned
from podium.registry.versions import IntegrityError, NotPublished
from podium.storage.object_store import StoreError
from service.errors import (
    ChampionChanged,
    ConditionMissing,
    GatesFailed,
    NoEarlierChampion,
    PromotionDisabled,
    PromotionForbidden,
    ServiceError,
    UnknownVersion,
    VersionDamaged,
    VersionRetired,
    VersionUnsigned,
)
from service.negotiation import wants_page
from service.services import Services, ServicesDep
from service.settings import ServiceSettings
from service.store_calls import from_store, page_deadline
from service.thread_pools import ThreadPool

router = APIRouter(tags=["promotion"])
MAX_RETRAINS = 50

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
ProjectName = Annotated[str, Path(pattern=NAME)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$")]
IfMatch = Annotated[str, Header(description='ETag of the champion to replace: "VERSION"')]
IfNoneMatch = Annotated[str, Header(description="* if there is no champion yet")]


PROMOTION_ERRORS: dict[type[StoreError], type[ServiceError]] = {
    AliasMoved: ChampionChanged,
    NotPublished: UnknownVersion,
    NoPreviousChampion: NoEarlierChampion,
    GateFailed: GatesFailed,
    Retired: VersionRetired,
    Unsigned: VersionUnsigned,
    IntegrityError: VersionDamaged,
}


class PromotionBody(BaseModel):
    """`dry_run` evaluates the gates without changing anything; `force` promotes despite failed gates and is recorded."""

    model_config = ConfigDict(extra="forbid")

    version: Version
    reason: Text
    dry_run: bool = False
    force: bool = False


class RollbackBody(BaseModel):
    """`to` is an earlier champion, by default the previous one; `dry_run` changes nothing."""

    model_config = ConfigDict(extra="forbid")

    reason: Text
    to: Version | None = None
    dry_run: bool = False


@router.post("/projects/{project}/promote", summary="Promote a version that passes the gates")
async def promote_(
    project: ProjectName,
    body: PromotionBody,
    request: Request,
    services: ServicesDep,
    if_match: IfMatch = "",
    if_none_match: IfNoneMatch = "",
) -> Response:
    """Needs a promoter's token and If-Match: 428 without it, 412 if the champion has changed, 409 if a gate fails."""
    context, expect = promotion_context(request, services), _expected(if_match, if_none_match)

    def change() -> AuditEntry:
        return promote(
            context, project, body.version, body.reason, utc_now, expect=expect, force=body.force, dry_run=body.dry_run
        )

    return await _change_champion(change, services)


@router.post("/projects/{project}/rollback", summary="Roll back to a previous champion")
async def rollback_(
    project: ProjectName, body: RollbackBody, request: Request, services: ServicesDep, if_match: IfMatch = ""
) -> Response:
    """Needs a promoter's token and If-Match, like promotion."""
    context, expect = promotion_context(request, services), _expected(if_match, "")

    def change() -> AuditEntry:
        return rollback(context, project, body.reason, utc_now, to=body.to, expect=expect, dry_run=body.dry_run)

    return await _change_champion(change, services)


@router.get("/projects/{project}/history.json", include_in_schema=False)
@router.get("/projects/{project}/history", summary="Promotion history (JSON or HTML)")
async def history(project: ProjectName, request: Request, services: ServicesDep) -> Response:
    """Every audit-log entry, oldest first; the ETag is that of the champion, for If-Match."""
    promoters = services.settings.trust().promoters
    retrains, unreadable = await _retrains(services, project)
    async with page_deadline():
        entries, champion = await asyncio.gather(
            from_store(entries_since, services.pages_store, project, promoters),
            from_store(read_champion, services.pages_store, project, promoters),
        )
    documents = [_document(entry) for entry in entries]
    if wants_page(request):
        page = services.pages.page("history.html", project=project, entries=documents, retrains=retrains, unreadable=unreadable)
        return Response(page, headers=_etag(champion), media_type="text/html")
    document = {"project": project, "entries": documents, "retrains": retrains, "unreadable": unreadable}
    return JSONResponse(document, headers=_etag(champion))


async def _retrains(services: Services, project: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the latest retrainings, oldest first, and what is wrong with records that cannot be trusted. Raises StoreError."""
    store, trainers = services.pages_store, services.settings.trust().trainers

    def read(day: str) -> RetrainRecord | str:
        try:
            return read_retrain(store, project, day, trainers)
        except (Unsigned, IntegrityError) as error:
            return str(error)

    async with page_deadline():
        dates = (await from_store(retrain_dates, store, project))[-MAX_RETRAINS:]
        found = await asyncio.gather(*(from_store(read, day) for day in dates))
    records = [record.model_dump(mode="json") for record in found if not isinstance(record, str)]
    return records, [problem for problem in found if isinstance(problem, str)]


@functools.cache
def _pool() -> ThreadPool:
    """Return the pool of this process; promotions may wait a long time for the store and must not block other calls."""
    return ThreadPool(4, "promotions")


async def _change_champion(change: Callable[[], AuditEntry], services: Services) -> Response:
    """Run a promotion or rollback in a thread and return its entry; a dry run has no signatures. Raises ServiceError."""
    try:
        entry = await _pool().run(change)
    except StoreError as error:
        if type(error) not in PROMOTION_ERRORS:
            raise
        gates = error.entry.evidence if isinstance(error, GateFailed) else ()
        errors = [{"code": gate.name, "message": gate.detail} for gate in gates if not gate.passed]
        raise PROMOTION_ERRORS[type(error)](str(error), errors=errors) from error
    if not entry.signatures:
        return JSONResponse(_document(entry))
    services.reconciler.notify()
    return JSONResponse(_document(entry), headers=_etag(entry))


def _document(entry: AuditEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={"signatures"})


def promotion_context(request: Request, services: Services) -> PromotionContext:
    """Return the context of a promoter's request. Raises PromotionDisabled, PromotionForbidden."""
    by = authenticate_promoter(request.headers.get("authorization", ""), services.settings)
    try:
        signer = services.settings.signer()
    except BadKey:
        raise PromotionDisabled("PODIUM_SIGNING_KEY is not set") from None
    return replace(services.reconciler.promotion_context(services.store, signer), by=by, rules=services.settings.rules_for)


def authenticate_promoter(header: str, settings: ServiceSettings) -> str:
    """Return the name of the promoter with this bearer token. Raises PromotionDisabled, PromotionForbidden."""
    if not settings.promoters:
        raise PromotionDisabled("set PODIUM_PROMOTERS to enable promotion over HTTP")
    scheme, _, text = header.partition(" ")
    given = text.strip().encode()
    names = [
        name for name, token in settings.promoters.items() if hmac.compare_digest(token.get_secret_value().encode(), given)
    ]
    if scheme.lower() != "bearer" or not names:
        raise PromotionForbidden("send a promoter's token as `Authorization: Bearer …`")
    return names[0]


def _expected(if_match: str, if_none_match: str) -> str | None:
    """Return the expected champion, or None if there must not be one. Raises ConditionMissing."""
    if not if_match.strip() and if_none_match.strip() == "*":
        return None
    tag = re.fullmatch(r'"([^"*]+)"', if_match.strip())
    if not tag or if_none_match:
        raise ConditionMissing('send If-Match: "VERSION" with the expected champion, or If-None-Match: * if there is none')
    return tag[1]


def _etag(entry: AuditEntry | None) -> dict[str, str]:
    return {"ETag": f'"{entry.champion}"'} if entry and entry.champion else {}
