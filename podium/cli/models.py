"""`podium models`: list, compare, promote, roll back and verify versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from podium.cli.common import STORE_ERROR, context_from_settings, echo_json, json_option, report_errors
from podium.cli.lazy_group import LazyGroup
from podium.formatting import (
    action_label,
    count,
    format_interval,
    format_score,
    format_time,
    gate_label,
    metric_label,
)
from podium.prediction_log.replay import NothingToReplay, replay
from podium.registry.audit_entry import AuditEntry
from podium.registry.audit_log import check_history, entries_since, read_history, retired_versions
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import ANY_CHAMPION, GateFailed, PromotionContext, countersign, promote, rollback, utc_now
from podium.registry.signing import Unsigned
from podium.registry.versions import (
    IntegrityError,
    Manifest,
    list_versions,
    projects_with_versions,
    read_file,
    read_manifest,
)
from podium.storage.object_store import StoreError, TooLarge, digest

reason_option = click.option("--reason", required=True, help="reason to record in the history")
expect_option = click.option("--expect", default=ANY_CHAMPION, help="fail unless this version is the current champion")


@click.group(cls=LazyGroup, lazy_commands={"import": "podium.cli.import_model:import_"})
def models() -> None:
    """List, compare, promote and roll back versions.

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
    """List all versions, newest last, and mark the champion."""
    context = context_from_settings(signing=False)
    _require_project(context, project)
    champion = read_champion(context.store, project, context.trust.promoters)
    retired = retired_versions(entries_since(context.store, project, context.trust.promoters))
    rows, errors = [], []
    for version in list_versions(context.store, project):
        try:
            rows.append(_version_facts(_manifest(context, project, version), champion, retired))
        except (Unsigned, IntegrityError, TooLarge) as error:
            errors.append(str(error))
    if as_json:
        echo_json(rows)
    else:
        _print_versions(rows)
    for message in errors:
        click.echo(f"Error: {message}", err=True)
    raise SystemExit(STORE_ERROR if errors else 0)


def _print_versions(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        state = "champion" if row["champion"] else "retired" if row["retired"] else ""
        metric = row["metric"]
        score = f"{metric_label(metric)} {format_score(row['score_test'], metric)}"
        if row["ci_low"] is not None:
            score += f" (95% CI {format_interval(row['ci_low'], row['ci_high'], metric)})"
        click.echo(f"{row['version']:<26} {state:<8} {row['model']:<14} {score:<40} by {row['author']}")


@models.command()
@click.argument("project")
@click.argument("version", default="")
@report_errors
def show(project: str, version: str) -> None:
    """Print the manifest of VERSION (default: the champion) as JSON."""
    context = context_from_settings(signing=False)
    manifest = _manifest(context, project, version or champion_version(context, project))
    echo_json(manifest.model_dump(mode="json"))


@models.command()
@click.argument("project")
@click.argument("old")
@click.argument("new")
@click.option("--replay", "rows", type=click.IntRange(1), help="also let NEW predict the last N logged rows")
@report_errors
def diff(project: str, old: str, new: str, rows: int | None) -> None:
    """Print the differences between two versions as JSON.

    Compares scores, signature, data, configuration and libraries; with --replay, also the answers to logged rows, by whichever
    version answered them.
    """
    context = context_from_settings(signing=False)
    before, after = (_comparable_facts(_manifest(context, project, version)) for version in (old, new))
    names = sorted(before.keys() | after.keys())
    changed = {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
    replayed = {"replay": _replayed(context, project, new, rows)} if rows else {}
    echo_json({"versions": [old, new], "changed": changed, **replayed})


def _replayed(context: PromotionContext, project: str, version: str, rows: int) -> dict[str, Any]:
    """Return how many of the last logged predictions a version changes, and where."""
    _, data = read_manifest(context.store, project, version, context.trust.trainers)
    try:
        return asdict(replay(context.store, context.load(project, version, digest(data)), rows))
    except NothingToReplay as error:
        return {"error": str(error)}
    finally:
        context.validator.close()


@models.command("promote")
@click.argument("project")
@click.argument("version")
@reason_option
@expect_option
@click.option("--dry-run", is_flag=True, help="run the checks without changing anything")
@click.option("--force", is_flag=True, help="promote despite failed checks (recorded in the history)")
@json_option
@report_errors
def promote_(project: str, version: str, reason: str, expect: str, dry_run: bool, force: bool, as_json: bool) -> None:
    """Check a version against the project's gates and make it the champion."""
    context = context_from_settings(signing=True)
    champion = read_champion(context.store, project, context.trust.promoters)
    try:
        entry = promote(context, project, version, reason, utc_now, expect=expect, force=force, dry_run=dry_run)
    except GateFailed as rejection:
        _print_entry(rejection.entry, as_json, dry_run)
        raise
    if champion and champion.champion == version and not as_json:
        click.echo(f"{version} is already the champion of {project}")
    else:
        _print_entry(entry, as_json, dry_run)


@models.command("rollback")
@click.argument("project")
@reason_option
@expect_option
@click.option("--to", help="earlier champion to restore; the previous one by default")
@click.option("--dry-run", is_flag=True, help="load the earlier version without changing anything")
@json_option
@report_errors
def rollback_(project: str, reason: str, expect: str, to: str | None, dry_run: bool, as_json: bool) -> None:
    """Restore an earlier champion."""
    entry = rollback(context_from_settings(signing=True), project, reason, utc_now, to=to, expect=expect, dry_run=dry_run)
    _print_entry(entry, as_json, dry_run)


@models.command("countersign")
@click.argument("project")
@reason_option
@json_option
@report_errors
def countersign_(project: str, reason: str, as_json: bool) -> None:
    """Repeat the last audit-log entry with this promoter's key; the champion stays.

    The key so vouches for the whole history, and an older key can be retired.
    """
    _print_entry(countersign(context_from_settings(signing=True), project, reason, utc_now), as_json, dry_run=False)


@models.command()
@click.argument("project")
@json_option
@report_errors
def history(project: str, as_json: bool) -> None:
    """List promotions, rollbacks and rejections, newest last."""
    context = context_from_settings(signing=False)
    _require_project(context, project)
    entries = entries_since(context.store, project, context.trust.promoters)
    if not entries and read_history(context.store, project):
        raise Unsigned(f"no entry of the audit log of {project} is signed by an accepted key: check PODIUM_PROMOTER_KEYS")
    if as_json:
        echo_json([entry.model_dump(mode="json") for entry in entries])
        return
    for entry in entries:
        action = action_label(entry.action) + (" (forced)" if entry.forced else "")
        click.echo(f"{entry.sequence:>4}  {format_time(entry.at)}  {action:<13} {entry.version} by {entry.by}: {entry.why}")


@models.command()
@click.argument("project")
@json_option
@report_errors
def verify(project: str, as_json: bool) -> None:
    """Verify the history, the champion alias, and the signatures and files of all versions.

    Exits with code 5 if anything is wrong.
    """
    context = context_from_settings(signing=False)
    _require_project(context, project)
    errors = check_history(context.store, project, context.trust.promoters)
    versions = list_versions(context.store, project)
    retired = set() if errors else retired_versions(entries_since(context.store, project, context.trust.promoters))
    for version in versions:
        try:
            manifest = _manifest(context, project, version)
            for name in [] if version in retired else manifest.files:
                read_file(manifest, name, context.fetch)
        except StoreError as error:
            errors.append(str(error))
    entries = len(read_history(context.store, project))
    if as_json:
        echo_json({"versions": len(versions), "entries": entries, "errors": errors})
    else:
        _print_verification(len(versions), entries, errors)
    raise SystemExit(STORE_ERROR if errors else 0)


def _print_verification(versions: int, entries: int, errors: list[str]) -> None:
    for error in errors:
        click.echo(f"Error: {error}", err=True)
    checked = f"{count(versions, 'version')}, {count(entries, 'history entry', 'history entries')}"
    click.echo(f"{count(len(errors), 'error')} in {checked}" if errors else f"OK: {checked} verified")


def _manifest(context: PromotionContext, project: str, version: str) -> Manifest:
    return read_manifest(context.store, project, version, context.trust.trainers.past)[0]


def _require_project(context: PromotionContext, project: str) -> None:
    """Raise StoreError if the bucket has neither versions nor a history of the project."""
    if not any(True for prefix in ("versions", "history") for _ in context.store.list_objects(f"{prefix}/{project}/")):
        names = ", ".join(projects_with_versions(context.store))
        raise StoreError(f'project "{project}" not found in the bucket (available: {names or "none"})')


def champion_version(context: PromotionContext, project: str) -> str:
    """Return the version of the champion. Raises StoreError if there is none."""
    entry = read_champion(context.store, project, context.trust.promoters)
    if entry is None or entry.champion is None:
        raise StoreError(f"{project} has no champion; promote a version with `podium models promote`")
    return entry.champion


def _version_facts(manifest: Manifest, champion: AuditEntry | None, retired: set[str]) -> dict[str, Any]:
    best = manifest.leaderboard[0]
    return {
        "version": manifest.version,
        "champion": champion is not None and champion.champion == manifest.version,
        "retired": manifest.version in retired,
        "model": manifest.champion,
        "metric": best["eval_metric"],
        **{name: best[name] for name in ("score_test", "ci_low", "ci_high")},
        "author": manifest.author,
    }


def _comparable_facts(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest as a flat dictionary."""
    document = manifest.model_dump(mode="json")
    facts = {f"signature.{column['name']}": column for column in document["signature"]["inputs"]}
    facts |= {
        f"score.{row['model']}": {key: row[key] for key in ("score_test", "ci_low", "ci_high")}
        for row in document["leaderboard"]
    }
    for section in ("data", "configuration", "libraries"):
        facts |= {f"{section}.{name}": value for name, value in document[section].items()}
    return facts | {name: document[name] for name in ("champion", "git", "lock_sha256", "author", "predictions_sha256")}


def _print_entry(entry: AuditEntry, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(entry.model_dump_json(indent=1))
        return
    for gate in entry.evidence:
        click.echo(f"{'✓' if gate.passed else '✗'} {gate_label(gate.name)}: {gate.detail}")
    if entry.action == "refuse":
        click.echo(f"{entry.version} {'would be' if dry_run else 'was'} rejected", err=True)
        return
    details = [] if dry_run else [f"entry {entry.sequence}"]
    details += [f"previously {entry.previous}"] if entry.previous else []
    verb = "would become" if dry_run else "is still" if entry.action == "countersign" else "is now"
    click.echo(f"{entry.champion} {verb} the champion of {entry.project}" + (f" ({'; '.join(details)})" if details else ""))
