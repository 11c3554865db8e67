"""`podium models`: what there is, what serves, who changed it, and the way back."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from podium.importers.errors import ImportRefused
from podium.inference.served_model import UnknownModel
from podium.project import BadProject
from podium.registry import provenance
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import AliasMoved, check_history, entries_since, read_champion, read_history, retired_versions
from podium.registry.identity import signed_name
from podium.registry.promotion import ANY_CHAMPION, GateFailed, PromotionContext, promote, rollback, utc_now
from podium.registry.signing import BadKey, Signer, Unsigned
from podium.registry.versions import (
    IntegrityError,
    Manifest,
    fetch_from,
    list_versions,
    projects_with_versions,
    read_file,
    read_manifest,
)
from podium.settings import StoreSettings
from podium.storage.object_store import StoreError, TooLarge

PATIENCE_SECONDS = 3.0
"""Commands that only read wait so long for an answer of the store, twice at most."""
REFUSED, MOVED, WRONG = 3, 4, 5
Command = TypeVar("Command", bound=Callable[..., None])


def report_errors(command: Command) -> Command:
    """Errors as a sentence and an exit code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (GateFailed, AliasMoved, StoreError, BadKey, BadProject, ImportRefused, UnknownModel) as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            codes = {GateFailed: REFUSED, AliasMoved: MOVED, BadKey: 1, BadProject: 1, ImportRefused: REFUSED}
            raise SystemExit(codes.get(type(error), WRONG)) from None

    return run  # type: ignore[return-value]


json_option = click.option("--json", "as_json", is_flag=True, help="for programs")
reason_option = click.option("--reason", required=True, help="why, for the history")
expect_option = click.option("--expect", default=ANY_CHAMPION, help="only if this version serves now")


def context_from_settings(signing: bool) -> PromotionContext:
    """Where the commands promote and look."""
    settings = StoreSettings()
    store = settings.store() if signing else settings.store(PATIENCE_SECONDS)
    signer = settings.signer() if signing else Signer.new()  # looking needs no key
    by = signed_name(provenance.actor(settings.actor), signer)
    return PromotionContext(store, settings.trust(), signer, by, fetch_from(store), rules=settings.rules_for)


@click.group()
def models() -> None:
    """Versions, champions and their history.

    \b
    podium models list pima
    podium models promote pima 20261121T023000Z-3f9a1c2b --reason "better recall" --dry-run
    podium models rollback pima --reason "wrong since noon"
    """


@models.command("list")
@click.argument("project")
@json_option
@report_errors
def list_(project: str, as_json: bool) -> None:
    """Every version, the newest last, and which serves."""
    context = context_from_settings(signing=False)
    _require_project(context, project)
    standing = read_champion(context.store, project, context.trust.promoters)
    retired = retired_versions(entries_since(context.store, project, context.trust.promoters))
    rows, wrong = [], []
    for version in list_versions(context.store, project):
        try:
            rows.append(_row(_manifest(context, project, version), standing, retired))
        except (Unsigned, IntegrityError, TooLarge) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    _print_rows(rows, as_json)
    for line in wrong:
        click.echo(line, err=True)
    raise SystemExit(WRONG if wrong else 0)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        mark = "champion" if row["champion"] else "retired" if row["retired"] else ""
        test_score, low, high = (format_number(row[name]) for name in ("score_test", "ci_low", "ci_high"))
        score = f"{row['metric']} {test_score} ({low} … {high})"
        click.echo(f"{row['version']:<28} {mark:<9} {row['model']:<14} {score:<34} by {row['author']}")


@models.command()
@click.argument("project")
@click.argument("version", default="")
@report_errors
def show(project: str, version: str) -> None:
    """A version's manifest as JSON; the champion's when none is named."""
    context = context_from_settings(signing=False)
    click.echo(json.dumps(_manifest(context, project, version or _serving(context, project)).model_dump(mode="json"), indent=1))


@models.command()
@click.argument("project")
@click.argument("one")
@click.argument("other")
@report_errors
def diff(project: str, one: str, other: str) -> None:
    """What differs between two versions, as JSON: scores with intervals, signature, data, configuration, libraries."""
    context = context_from_settings(signing=False)
    sides = [_facts(_manifest(context, project, version)) for version in (one, other)]
    names = sorted(sides[0].keys() | sides[1].keys())
    changed = {name: [side.get(name) for side in sides] for name in names if sides[0].get(name) != sides[1].get(name)}
    click.echo(json.dumps({"versions": [one, other], "changed": changed}, indent=1))


@models.command("promote")
@click.argument("project")
@click.argument("version")
@reason_option
@expect_option
@click.option("--dry-run", is_flag=True, help="judge and write nothing")
@click.option("--force", is_flag=True, help="past failed gates; the history will say so")
@json_option
@report_errors
def promote_(project: str, version: str, reason: str, expect: str, dry_run: bool, force: bool, as_json: bool) -> None:
    """Judge a version by its gates and make it the champion."""
    context = context_from_settings(signing=True)
    standing = read_champion(context.store, project, context.trust.promoters)
    try:
        entry = promote(context, project, version, reason, utc_now, expect=expect, force=force, dry_run=dry_run)
    except GateFailed as refusal:
        _print_json(refusal.entry, as_json)
        raise
    already = standing is not None and standing.champion == version
    _print_json(entry, as_json, "already is" if already else "would be" if dry_run else "is")


@models.command("rollback")
@click.argument("project")
@reason_option
@expect_option
@click.option("--to", help="a version that served; the one before the present one by default")
@click.option("--dry-run", is_flag=True, help="load what it would go back to, and write nothing")
@json_option
@report_errors
def rollback_(project: str, reason: str, expect: str, to: str | None, dry_run: bool, as_json: bool) -> None:
    """Go back to the version that served before."""
    entry = rollback(context_from_settings(signing=True), project, reason, utc_now, to=to, expect=expect, dry_run=dry_run)
    _print_json(entry, as_json, "would be" if dry_run else "is")


@models.command()
@click.argument("project")
@json_option
@report_errors
def history(project: str, as_json: bool) -> None:
    """Every promotion, rollback and refusal, the newest last."""
    context = context_from_settings(signing=False)
    _require_project(context, project)
    entries = entries_since(context.store, project, context.trust.promoters)
    if as_json:
        click.echo(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=1))
        return
    for entry in entries:
        forced = " (forced)" if entry.forced else ""
        click.echo(f"{entry.sequence:>4} {entry.at[:19]} {entry.action:<8} {entry.version} by {entry.by}{forced}: {entry.why}")


@models.command()
@click.argument("project")
@report_errors
def verify(project: str) -> None:
    """Check the history, the alias, and every version's signature and files."""
    context = context_from_settings(signing=False)
    _require_project(context, project)
    wrong = check_history(context.store, project, context.trust.promoters)
    versions = list_versions(context.store, project)
    retired = set() if wrong else retired_versions(entries_since(context.store, project, context.trust.promoters))
    for version in versions:
        try:
            manifest = _manifest(context, project, version)
            for name in [] if version in retired else manifest.files:
                read_file(manifest, name, context.fetch)
        except StoreError as error:
            wrong.append(str(error))
    for line in wrong:
        click.echo(line, err=True)
    click.echo(f"{len(versions)} versions, {len(read_history(context.store, project))} entries, {len(wrong)} wrong")
    raise SystemExit(WRONG if wrong else 0)


@click.group()
def keys() -> None:
    """Keys that sign versions and promotions."""


@keys.command()
def new() -> None:
    """Make an ed25519 key and print the variables that use it."""
    signer = Signer.new()
    click.echo(f"PODIUM_SIGNING_KEY={signer.private}\nPODIUM_TRAINER_KEYS='{json.dumps([signer.public])}'")


def _manifest(context: PromotionContext, project: str, version: str) -> Manifest:
    return read_manifest(context.store, project, version, context.trust.trainers)[0]


def _require_project(context: PromotionContext, project: str) -> None:
    """Raises StoreError for a project of which the bucket knows nothing."""
    if not any(True for prefix in ("versions", "history") for _ in context.store.list_objects(f"{prefix}/{project}/")):
        names = ", ".join(projects_with_versions(context.store))
        raise StoreError(f"the bucket has no project {project} (it has: {names or 'none'})")


def _serving(context: PromotionContext, project: str) -> str:
    standing = read_champion(context.store, project, context.trust.promoters)
    if standing is None or standing.champion is None:
        raise StoreError(f"{project} has no champion")
    return standing.champion


def _row(manifest: Manifest, standing: AuditEntry | None, retired: set[str]) -> dict[str, Any]:
    best = manifest.leaderboard[0]
    return {
        "version": manifest.version,
        "champion": standing is not None and standing.champion == manifest.version,
        "retired": manifest.version in retired,
        "model": manifest.champion,
        "metric": best["eval_metric"],
        **{name: best[name] for name in ("score_test", "ci_low", "ci_high")},
        "author": manifest.author,
    }


def format_number(number: float | None) -> str:
    return "not known" if number is None else f"{number:.4g}"


def _facts(manifest: Manifest) -> dict[str, Any]:
    """A manifest as flat facts that can be compared one by one."""
    document = manifest.model_dump(mode="json")
    columns = {column["name"]: column for column in document["signature"]["inputs"]}
    facts = {f"signature.{name}": column for name, column in columns.items()}
    facts |= {
        f"score.{row['model']}": {key: row[key] for key in ("score_test", "ci_low", "ci_high")}
        for row in document["leaderboard"]
    }
    for part in ("data", "configuration", "libraries"):
        facts |= {f"{part}.{name}": value for name, value in document[part].items()}
    return facts | {name: document[name] for name in ("champion", "git", "lock_sha256", "author", "predictions_sha256")}


def _print_json(entry: AuditEntry, as_json: bool, verb: str = "is") -> None:
    if as_json:
        click.echo(entry.model_dump_json(indent=1))
        return
    for gate in entry.evidence:
        click.echo(f"{'✓' if gate.passed else '✗'} {gate}")
    if entry.action == "refuse":
        click.echo(f"{entry.version} was refused", err=True)
    else:
        place = f"number {entry.sequence}, before: {entry.previous or 'none'}"
        click.echo(f"{entry.champion} {verb} the champion of {entry.project} ({place})")
