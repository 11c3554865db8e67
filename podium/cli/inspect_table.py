"""`podium projects inspect`: show how a table would be read, and a project file to start from."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from podium.project import RULES_OF_PATTERNS, S3_URL, BadProject, Project, check_name, parse_project
from podium.schema.columns import Column, Signature, Target
from podium.schema.reading import Finding, printable, quoted
from podium.storage.datasets import split_url
from podium.storage.object_store import Store, s3_client
from podium.tables.readers import read_table
from podium.tables.typed_columns import coerce_column
from podium.training.findings import findings_text
from podium.training.preparation import prepare_table
from podium.training.reading import read_options, read_training_table

TARGET_NAMES = ("target", "y", "label", "class", "outcome", "churn", "price", "diagnosis", "species", "survived")
MAX_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Inspection:
    """How a table would be read."""

    source: str
    rows: int
    target: Target
    target_is_guessed: bool
    columns: list[dict[str, object]]
    findings: tuple[Finding, ...]
    project_file: str

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings]}

    def text(self) -> str:
        """Return the inspection for a terminal."""
        header: dict[str, object] = {key: key for key in ("name", "kind", "missing", "distinct", "values")}
        shown = [header, *({**row, "missing": f"{row['missing']:.1%}"} for row in self.columns)]
        cells = [{key: printable(str(row[key])) for key in header} for row in shown]
        widths = {key: max(len(row[key]) for row in cells) for key in header}
        rows = ["  ".join(row[key].ljust(widths[key]) for key in header).rstrip() for row in cells]
        classes = f": {', '.join(map(str, self.target.classes))}" if self.target.classes else ""
        return "\n".join(
            [
                printable(f"{self.source}: {self.rows} rows; {self.target.task} of {self.target.name}{classes}"),
                *["The target is a guess; set another with --target."] * self.target_is_guessed,
                "",
                *rows,
                "",
                *(findings_text(self.findings) or ["Nothing was changed or left out"]),
                "",
                "project.toml to start from:",
                "",
                self.project_file,
            ]
        )


def inspect_table(source: str, target: str, bucket: str = "podium") -> Inspection:
    """Read a table at a path or an s3:// URL and infer its columns. Raises BadData, BadProject, StoreError, OSError.

    The project file has a URL in `bucket` for a table at a path.
    """
    data = _read(source)
    name = re.sub(r"[^a-z0-9]+", "-", Path(source).name.split(".")[0].lower()).strip("-")[:64] or "project"
    url = source if source.startswith("s3://") else f"s3://{bucket}/raw/{printable(Path(source).name)}"
    config = _config(name, url, target or _likely_target(data, name, url))
    rows = prepare_table(read_training_table(data, config, source), config)
    assert rows.raw is not None
    columns = [_facts(column, rows.raw[column.name]) for column in rows.signature.inputs]
    data_note = "" if source == url else f"  # upload {Path(source).name} to this URL"
    lines = [
        f"data = {quoted(url)}{printable(data_note)}",
        f"target = {quoted(config.target)}{'' if target else '  # a guess'}",
        *_setting_lines(rows.signature, rows.findings),
    ]
    file = "\n".join(lines) + "\n"
    return Inspection(source, rows.raw.num_rows, rows.signature.target, not target, columns, rows.findings, file)


def _read(source: str) -> bytes:
    if source.startswith("s3://"):
        if not re.match(S3_URL, source):
            raise BadProject(f"{source} cannot be read: {RULES_OF_PATTERNS[S3_URL]}")
        bucket, key = split_url(source)
        return Store(s3_client(), bucket).read(key).data
    return Path(source).read_bytes()


def _config(name: str, url: str, target: str) -> Project:
    return parse_project({"name": name, "data": url, "target": target}, f"the project file for {url}")


def _likely_target(data: bytes, name: str, url: str) -> str:
    """Return a column with a name that targets often have, else the last one. Raises BadData."""
    options = read_options(_config(name, url, TARGET_NAMES[0]), url)
    names = read_table(data, replace(options, header=replace(options.header, known=TARGET_NAMES))).column_names
    by_name = {column.lower(): column for column in names}
    return next((by_name[target] for target in TARGET_NAMES if target in by_name), names[-1])


def _facts(column: Column, cells: pa.ChunkedArray) -> dict[str, object]:
    """Return what the rows that are used have in a column; `missing` is a fraction."""
    values, _ = coerce_column(cells, column)
    return {
        "name": column.name,
        "kind": column.display_kind,
        "missing": round(float(values.isna().mean()), 6),
        "distinct": int(values.nunique()),
        "values": _summary(column, values.dropna()),
    }


def _summary(column: Column, values: pd.Series) -> str:
    if column.is_text:
        categories = [] if column.kind == "text" else sorted(values.unique())
        return ", ".join(categories[:MAX_SHOWN]) + (", …" if len(categories) > MAX_SHOWN else "")
    if values.empty:
        return ""
    return f"{column.format_value(values.min())} to {column.format_value(values.max())}"


def _setting_lines(signature: Signature, findings: tuple[Finding, ...]) -> list[str]:
    """Return the commented lines of a project file that set what was inferred."""
    lines, notes = [], _notes_by_setting(findings)
    if ("task",) not in [_key(setting) for setting in notes]:
        lines.append(f'# task = "{signature.target.task}"  # inferred')
    if notes:
        lines += [
            "",
            "# What was noticed in the table, after the setting that decides it. Remove the first # of a line to set it.",
        ]
        lines += [printable(f"# {setting}  # {'; '.join(about)}") for setting, about in notes.items()]
    return lines


def _notes_by_setting(findings: tuple[Finding, ...]) -> dict[str, list[str]]:
    """Return what was noticed for each setting; a key is set only once, because TOML allows it only once."""
    notes, settings = dict[str, list[str]](), dict[tuple[str, ...], str]()
    for finding in findings:
        if finding.setting and settings.setdefault(_key(finding.setting), finding.setting) == finding.setting:
            notes.setdefault(finding.setting, []).append(f"{finding.column or 'table'}: {finding.message}")
    return notes


def _key(setting: str) -> tuple[str, ...]:
    """Return the parts of the key of a line of TOML."""
    entry: object = tomllib.loads(setting)
    parts: tuple[str, ...] = ()
    while isinstance(entry, dict):
        part, entry = next(iter(entry.items()))
        parts += (part,)
    return parts


def new_project_file(folder: Path, name: str) -> Path:
    """Return the path of a new project's file. Raises BadProject if the name is invalid or taken."""
    check_name(name)
    path = folder / name / "project.toml"
    if path.exists():
        raise BadProject(f"{path} exists; choose another name")
    return path
