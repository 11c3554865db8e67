"""`podium models import`: a model that somebody else made becomes a version."""

from __future__ import annotations

import re
from pathlib import Path

import click

from podium.cli.models import context_from_settings, format_number, json_option, report_errors
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.importers.importing import import_model
from podium.project import Project, load_project, parse_project, project_names
from podium.registry.audit_log import read_champion
from podium.registry.promotion import utc_now
from podium.registry.versions import Manifest, publish
from podium.settings import StoreSettings


@click.command("import")
@click.argument("project")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sample", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="rows to compare on, CSV or Parquet"
)
@click.option(
    "--scalers", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="of a panel's network, as a pickle"
)
@click.option("--name", default="", help="of the model; the file's by default")
@click.option("--target", default="", help="what it predicts; the project's target, or `prediction`")
@click.option("--classes", default="", help="names of its classes in their order, separated by commas")
@click.option("--seconds", default=120.0, show_default=True, help="what the import may take")
@click.option("--other-release", is_flag=True, help="take a pickle of another release of scikit-learn")
@json_option
@report_errors
def import_(
    project: str,
    file: Path,
    sample: Path | None,
    scalers: Path | None,
    name: str,
    target: str,
    classes: str,
    seconds: float,
    other_release: bool,
    as_json: bool,
) -> None:
    """Publish a model that somebody else made: scikit-learn, statsmodels, Keras, ONNX, LightGBM.

    \b
    podium models import shoes a_model.joblib --sample rows.csv --target sex
    podium models import loans logit.pkl --classes rejected,accepted
    podium models import coins model.h5

    Nothing of the file is run before its names were looked through, and nothing but a child with limits touches it. The
    model is turned into Podium's own form and compared with the original, on the rows of the sample or on made-up ones. A
    sample that holds the target gives it a score.
    """
    settings, context = StoreSettings(), context_from_settings(signing=True)
    config = _project_of(settings, project, target)
    if file.stat().st_size > config.gates.max_bytes:
        raise ImportRefused(
            f"{file} has {file.stat().st_size} bytes, at most {config.gates.max_bytes} are taken (gates.max_bytes)"
        )
    wish = ImportRequest(
        file=file.name,
        data=file.read_bytes(),
        name=name or _slug(file.stem),
        target=config.target,
        sample=sample.read_bytes() if sample else None,
        classes=tuple(filter(None, classes.split(","))),
        metric=config.metric,
        other_release=other_release,
        allowed=settings.import_allowed,
        seed=config.seed,
        columns=config.columns,
        project=config,
        scalers=scalers.read_bytes() if scalers else None,
    )
    standing = read_champion(context.store, project, context.trust.promoters)
    parent = standing.champion if standing else None
    manifest, files = import_model(wish, config, utc_now(), context.by, parent, seconds)
    publish(context.store, manifest, files, context.signer)
    _say_imported(manifest, as_json)


def _project_of(settings: StoreSettings, name: str, target: str) -> Project:
    """The project's file, or one without data when there is none."""
    if name in project_names(settings.projects):
        project = load_project(settings.projects, name)
        return project.model_copy(update={"target": target}) if target else project
    return parse_project({"name": name, "target": target or "prediction"}, name)


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:64] or "imported"


def _say_imported(manifest: Manifest, as_json: bool) -> None:
    if as_json:
        click.echo(manifest.model_dump_json(indent=1))
        return
    data, signature = manifest.data, manifest.signature
    click.echo(f"{data['kind']}: {data['file']} is {manifest.project} {manifest.version}, the model {manifest.champion}")
    for column in signature.inputs:
        known = f": {', '.join(column.categories[:8])}" if column.categories else ""
        click.echo(f"  takes {column.name}, {column.kind}{known}{', may be missing' if column.nullable else ''}")
    classes = f", one of {', '.join(map(str, signature.target.classes))}" if signature.target.classes else ", a number"
    click.echo(f"  gives {signature.target.name}{classes}")
    click.echo(
        f"  compared with the original on {data['compared']} rows: it differs by {data['largest_difference']:.2g} at most, "
        f"{data['allowed_difference']:g} is allowed"
    )
    best = manifest.leaderboard[0]
    if best["score_test"] is not None:
        click.echo(
            f"  scores {best['eval_metric']} {format_number(best['score_test'])} on the rows of the sample with a target"
        )
    if data["training_rows_left_out"]:
        left_out = data["training_rows_left_out"]
        click.echo(f"  {left_out} training rows embedded in the file were left out; the file itself was not stored")
    click.echo(f'next: podium models promote {manifest.project} {manifest.version} --reason "…"')
