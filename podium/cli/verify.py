"""`podium verify`: check logged predictions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from podium.cli.common import REJECTED, echo_json, json_option, report_errors
from podium.formatting import count
from podium.prediction_log.transparency_log import TransparencyLog, verifier_key
from podium.prediction_log.verification import Verification, Verifier, loader, promotion_problems
from podium.registry.loading import fetcher
from podium.settings import StoreSettings
from podium.storage.model_cache import ModelCache
from podium.storage.object_store import Store

MAX_SHOWN_PROBLEMS = 20


@click.command()
@click.argument("prediction_id", required=False)
@click.option("--project", default="", help="project of the prediction; needed for --day")
@click.option("--day", help="check all predictions of a day (YYYY-MM-DD, UTC) instead of one")
@click.option("--log", "whole_log", is_flag=True, help="check the whole signed log instead")
@json_option
@report_errors
def verify(prediction_id: str | None, project: str, day: str | None, whole_log: bool, as_json: bool) -> None:
    """Compute a logged prediction again, and check its proof, its version and its promotion.

    \b
    podium verify 20261128c0ffee123456-2a
    podium verify --project credit --day 2026-11-28
    podium verify --log

    Exits with code 3 if something differs. Needs the bucket and the public keys only (PODIUM_TRAINER_KEYS,
    PODIUM_PROMOTER_KEYS, PODIUM_LOG_KEYS).
    """
    if (prediction_id is not None) + bool(day) + whole_log != 1:
        raise click.UsageError("give a prediction id, or --day with --project, or --log")
    settings = StoreSettings()
    store = settings.store()
    log = TransparencyLog(store, settings.log_verifiers(), settings.log_name)
    if whole_log:
        return _verify_log(log, store, as_json)
    with tempfile.TemporaryDirectory() as folder:
        trust = settings.trust()
        verifier = Verifier(store, trust, log, loader(fetcher(store, ModelCache(Path(folder))), trust.trainers.past))
        if prediction_id is not None:
            result = verifier.verify(prediction_id, project)
            echo_json(result.as_json()) if as_json else click.echo(_text(result))
            raise SystemExit(0 if result.ok else REJECTED)
        if not project:
            raise click.UsageError("--day needs --project")
        _verify_day(verifier, project, str(day), as_json)


def _verify_log(log: TransparencyLog, store: Store, as_json: bool) -> None:
    """Check the entries, and that the audit logs still have the promotions that they name."""
    checkpoint, entries = log.check_all()
    keys, problems = [verifier_key(log.origin, public) for public in log.public_keys], promotion_problems(store, entries)
    facts = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}
    if as_json:
        echo_json({**facts, "keys": keys, "problems": problems})
    else:
        click.echo(f"{checkpoint.origin}: {count(checkpoint.size, 'entry', 'entries')}, root {checkpoint.root.hex()}")
        click.echo(
            "\n".join(
                [*(f"key {key}" for key in keys), *(problems or ["ok: the entries have this root, which the key signed"])]
            )
        )
    raise SystemExit(REJECTED if problems else 0)


def _verify_day(verifier: Verifier, project: str, day: str, as_json: bool) -> None:
    result = verifier.verify_day(project, day)
    if as_json:
        echo_json({"rows": result.rows, "matches": result.matches, "log_size": result.log_size, "problems": result.problems})
    else:
        click.echo(f"{project} {day}: {result.matches:,} of {count(result.rows, 'row')} match to the bit")
        for problem in result.problems[:MAX_SHOWN_PROBLEMS]:
            click.echo(f"  {problem}")
    raise SystemExit(REJECTED if result.problems else 0)


def _text(result: Verification) -> str:
    lines = [f"{result.prediction_id}: {result.verdict}"]
    lines += [f"  {'ok' if stage.ok else 'FAILED':<6}  {stage.name}: {stage.detail}" for stage in result.stages]
    first = result.predictions[0]
    rows = count(len(result.predictions), "row")
    lines += ["", f"answered  {first['at']}, {rows}, model {first['model']}, prediction {first['prediction']}"]
    if version := result.version:
        data = ", ".join(f"{key} {value}" for key, value in version["data"].items())
        lines += [f"version   created {version['created']} by {version['author']}", f"data      {data}"]
        lines += [f"code      {version['git'] or 'unknown'}"]
    if promotion := result.promotion:
        lines += [f"promoted  {promotion['at']} by {promotion['by']}: {promotion['reason']}"]
    return "\n".join(lines)
