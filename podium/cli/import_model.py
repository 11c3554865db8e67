"""`podium models import`: publish a model that was trained elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click

from podium.cli.common import context_from_settings, json_option, report_errors
from podium.formatting import format_score, format_size, metric_label
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.importers.importing import import_model
from podium.project import Project, load_project, parse_project, project_names
from podium.registry.champion_alias import read_champion
from podium.registry.promotion import utc_now
from podium.registry.versions import Manifest, publish
from podium.settings import StoreSettings

INPUT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MAX_SHOWN_CATEGORIES = 8


@click.command("import")
@click.argument("project")
@click.argument("file", type=INPUT_FILE)
@click.option("--sample", type=INPUT_FILE, help="CSV or Parquet rows on which to compare the original and the converted model")
@click.option(
    "--preprocessing",
    type=INPUT_FILE,
    multiple=True,
    help="pickle with transformers that were applied before the model, or JSON list of their columns; repeatable, in order",
)
@click.option("--scalers", type=INPUT_FILE, help="pickle with the scalers of a panel network")
@click.option("--name", default="", help="name of the model; the file name by default")
@click.option("--target", default="", help="name of the target; by default from project.toml, or else `prediction`")
@click.option("--classes", default="", help="comma-separated class names, in the model's order")
@click.option("--output", type=click.IntRange(0), help="number of the target of a model with several, from 0")
@click.option("--seconds", default=120.0, show_default=True, help="time limit of the import")
@click.option("--other-release", is_flag=True, help="accept estimators whose form in that scikit-learn release is not known")
@json_option
@report_errors
def import_(
    project: str,
    file: Path,
    sample: Path | None,
    preprocessing: tuple[Path, ...],
    scalers: Path | None,
    name: str,
    target: str,
    classes: str,
    output: int | None,
    seconds: float,
    other_release: bool,
    as_json: bool,
) -> None:
    """Publish a model FILE from scikit-learn, LightGBM, XGBoost, CatBoost, statsmodels, Keras or ONNX as a version.

    \b
    podium models import shoes a_model.joblib --sample rows.csv --target sex
    podium models import loans logit.pkl --classes rejected,accepted
    podium models import coins model.h5

    The file is scanned before anything in it runs, and it is only read in a sandboxed child process. The model is converted
    to Podium's own format and compared with the original on the rows of --sample, or on synthetic rows. A file that does not
    name its inputs needs a sample. A sample that contains the target also gives the model a test score.
    """
    settings, context = StoreSettings(), context_from_settings(signing=True)
    config = _project_config(settings, project, target)
    size, max_size = file.stat().st_size, config.gates.max_bytes
    if size > max_size:
        raise ImportRefused(f"{file} is {format_size(size)}; the limit is {format_size(max_size)} (gates.max_bytes)")
    request = ImportRequest(
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
        preprocessing=tuple(path.read_bytes() for path in preprocessing),
        output=output,
    )
    champion = read_champion(context.store, project, context.trust.promoters)
    parent = champion.champion if champion else None
    manifest, files = import_model(request, config, utc_now(), context.by, parent, seconds)
    publish(context.store, manifest, files, context.signer)
    if as_json:
        click.echo(manifest.model_dump_json(indent=1))
    else:
        click.echo("\n".join(_summary(manifest)))


def _project_config(settings: StoreSettings, name: str, target: str) -> Project:
    """Return the project's configuration, or a minimal one if it has no project.toml. Raises BadProject."""
    if name in project_names(settings.projects):
        project = load_project(settings.projects, name)
        return project.model_copy(update={"target": target}) if target else project
    return parse_project({"name": name, "target": target or "prediction"}, name)


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:64] or "imported"


def _summary(manifest: Manifest) -> list[str]:
    data, target, best = manifest.data, manifest.signature.target, manifest.leaderboard[0]
    lines = [f"Imported {data['file']} ({data['kind']}) as {manifest.project} {manifest.version}, model {manifest.champion}"]
    for column in manifest.signature.inputs:
        categories = f": {', '.join(column.categories[:MAX_SHOWN_CATEGORIES])}" if column.categories else ""
        lines.append(f"  input {column.name}: {column.kind}{categories}{' (optional)' if column.nullable else ''}")
    output = f"one of {', '.join(map(str, target.classes))}" if target.classes else "number"
    lines.append(f"  output {target.name}: {output}")
    lines.append(
        f"  largest difference from {data['reference']} on {data['compared']} rows: {data['largest_difference']:.2g} "
        f"(relative to 1 + |score|; limit {data['allowed_difference']:g})"
    )
    lines += [f"  note: {warning}" for warning in str(data["warnings"]).splitlines()]
    if best["score_test"] is not None:
        metric = best["eval_metric"]
        lines.append(f"  {metric_label(metric)} on the sample: {format_score(best['score_test'], metric)}")
    if removed := data["training_rows_left_out"]:
        lines.append(f"  removed {removed} training rows embedded in the file; the file itself is not stored")
    return [*lines, f'Next: podium models promote {manifest.project} {manifest.version} --reason "…"']
