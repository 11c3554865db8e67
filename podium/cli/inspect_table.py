"""`podium projects inspect`: show how a table would be read, and a project file to start from."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from podium.project import (
    RULES_OF_PATTERNS,
    S3_URL,
    BadProject,
    ColumnOptions,
    Project,
    check_name,
    parse_project,
    project_name_of,
)
from podium.schema.columns import Column, Signature, Target
from podium.schema.data_errors import BadData, Problem
from podium.schema.reading import Finding, printable, quoted
from podium.storage.datasets import split_url
from podium.storage.object_store import Store, s3_client
from podium.storage.table_parts import list_parts
from podium.tables.labeled_rows import LabeledRows
from podium.tables.readers import SourceTable, read_table
from podium.tables.schema_inference import infer_column, table_decimal
from podium.tables.typed_columns import coerce_column
from podium.training.findings import findings_text, leakage_findings
from podium.training.project_kinds import kind_of
from podium.training.reading import read_options, read_training_table

TARGET_NAMES = ("target", "y", "label", "class", "outcome", "churn", "price", "diagnosis", "species", "survived")
MAX_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Inspection:
    """How a table would be read."""

    source: str
    rows: int
    target: Target | None
    """None if it cannot be predicted."""
    target_values: str
    """The classes with their numbers of rows, or the range."""
    target_is_guessed: bool
    columns: list[dict[str, object]]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    project_file: str
    is_new: bool = True
    """Whether `project_file` is a whole project file, instead of lines to add to one."""

    def as_json(self) -> dict[str, object]:
        findings, problems = ([asdict(entry) for entry in entries] for entries in (self.findings, self.problems))
        return {**asdict(self), "findings": findings, "problems": problems}

    def text(self) -> str:
        """Return the inspection for a terminal."""
        header: dict[str, object] = {key: key for key in ("name", "kind", "missing", "distinct", "values")}
        shown = [header, *({**row, "missing": f"{row['missing']:.1%}"} for row in self.columns)]
        cells = [{key: printable(str(row[key])) for key in header} for row in shown]
        widths = {key: max(len(row[key]) for row in cells) for key in header}
        rows = ["  ".join(row[key].ljust(widths[key]) for key in header).rstrip() for row in cells]
        problems = [f"  {printable(str(problem))}" for problem in self.problems]
        return "\n".join(
            [
                printable(f"{self.source}: {self.rows} rows{self._task()}"),
                *["The target is a guess; set another with --target."] * self.target_is_guessed,
                "",
                *rows,
                "",
                *(["Errors (the rest is read with the settings that avoid them)", *problems, ""] if problems else []),
                *(findings_text(self.findings) or ["Nothing was changed or left out"] * (not self.problems)),
                "",
                *self._file_lines(),
            ]
        )

    def _file_lines(self) -> list[str]:
        if not self.project_file.strip():
            return ["Nothing to add to project.toml"]
        return ["project.toml to start from:" if self.is_new else "Lines to add to project.toml:", "", self.project_file]

    def _task(self) -> str:
        if self.target is None:
            return ""
        return f"; {self.target.task} of {self.target.name}: {self.target_values}"


def inspect_table(source: str, target: str = "", bucket: str = "podium", project: Project | None = None) -> Inspection:
    """Read a table at a path or an s3:// URL and infer its columns. Raises BadData, BadProject, StoreError, OSError.

    The table is read as the file of the `project` says; by default as that of a new one, which has a URL in `bucket` for a
    table at a path. Columns with errors are shown as the settings that avoid the errors have them read.
    """
    data, file = _read(source)
    url = source if source.startswith("s3://") else f"s3://{bucket}/raw/{printable(Path(source).name)}"
    if project:
        config, lines = project, []
    else:
        name = project_name_of(Path(source).name.split(".")[0])
        config = _config(name, url, target or _likely_target(data, name, url))
        lines = [
            f"data = {quoted(url)}{'' if source == url else printable(f'  # upload {Path(source).name} to this URL')}",
            f"target = {quoted(config.target)}{'' if target else '  # a guess'}",
        ]
    table = read_training_table(data, config, file)
    rows, problems = _prepare(table, config)
    if rows is None:
        facts = list(_facts_without_target(table, config))
        lines += _setting_lines(config, None, tuple(table.findings), problems)
        count, target_column, values, findings = table.table.num_rows, None, "", tuple(table.findings)
    else:
        cells = table.table if rows.raw is None else rows.raw
        facts = [_facts(column, cells[column.name]) for column in rows.signature.request_columns]
        findings = (*rows.findings, *leakage_findings(rows))
        lines += _setting_lines(config, rows.signature, findings, problems)
        count, target_column, values = cells.num_rows, rows.signature.target, _target_summary(rows)
    text = "\n".join(lines) + "\n"
    shown = source if file == source else f"{file}, the first file"
    guessed = not project and not target
    return Inspection(shown, count, target_column, values, guessed, facts, findings, problems, text, not project)


def _prepare(table: SourceTable, config: Project) -> tuple[LabeledRows | None, tuple[Problem, ...]]:
    """Return the rows as the settings that avoid errors have them read, and the errors; no rows if an error has no setting."""
    problems: list[Problem] = []
    while True:
        try:
            return kind_of(config).prepare(table), tuple(problems)
        except BadData as error:
            new = [problem for problem in error.problems if problem not in problems]
            problems += new
            settings = [problem.setting for problem in new if problem.setting]
        try:
            if not settings:
                return None, tuple(problems)
            for setting in settings:
                config = _with_setting(config, setting)
        except BadProject:
            return None, tuple(problems)


def _with_setting(config: Project, setting: str) -> Project:
    """Return the project with a line of its file added. Raises BadProject."""
    entries = config.model_dump(by_alias=True, exclude_unset=True)
    section, (*path, last) = entries, _key(setting)
    added: Any = tomllib.loads(setting)
    for key in path:
        section, added = section.setdefault(key, {}), added[key]
    section[last] = added[last]
    return parse_project(entries, setting)


def _facts_without_target(table: SourceTable, config: Project) -> Iterator[dict[str, object]]:
    """Yield the facts of all columns but the target and those with errors."""
    decimal = table_decimal(table.table, config, table.reading)
    for name in table.table.column_names:
        try:
            if name != config.target:
                column = infer_column(name, table.table[name], config.columns.get(name, ColumnOptions()), decimal)
                yield _facts(column, table.table[name])
        except BadData:
            pass


def _read(source: str) -> tuple[bytes, str]:
    """Return a table and its path or URL: of a folder, the first file."""
    if not source.startswith("s3://"):
        return Path(source).read_bytes(), source
    if not re.match(S3_URL, source):
        raise BadProject(f"{source} cannot be read: {RULES_OF_PATTERNS[S3_URL]}")
    bucket, key = split_url(source)
    store = Store(s3_client(), bucket)
    if key.endswith("/"):
        key = list_parts(store, source).files[0].key
    return store.read(key).data, store.url(key)


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
    if column.kind == "boolean":
        return ", ".join("true" if value else "false" for value in sorted(values.unique()))
    if values.empty:
        return ""
    return f"{column.format_value(values.min())} to {column.format_value(values.max())}"


def _target_summary(rows: LabeledRows) -> str:
    values, classes = rows.target, rows.signature.target.classes
    if not classes:
        return f"{values.min():.6g} to {values.max():.6g}"
    return ", ".join(f"{label} ({(values == code).sum():,})" for code, label in enumerate(classes))


CHANGES = (
    "# These settings change how the table is read, if a note is not as you want it. Remove the first # of a line to set it."
)
CONFIRMS = "# These settings only confirm how the table is read, so that other tables are read in the same way."
ERRORS = "# These settings avoid the errors; check each."


def _setting_lines(
    config: Project, signature: Signature | None, findings: tuple[Finding, ...], problems: tuple[Problem, ...]
) -> list[str]:
    """Return the lines of a project file that avoid the errors, and commented lines that set what was inferred."""
    errors = _notes_by_setting([Finding(problem.column or "", problem.message, problem.setting or "") for problem in problems])
    notes = _notes_by_setting([each for each in findings if not _is_set(each.setting, config)], errors)
    lines = []
    if signature and "task" not in config.model_fields_set and ("task",) not in map(_key, notes):
        lines.append(f'# task = "{signature.target.task}"  # inferred')
    groups = {ERRORS: errors, CHANGES: dict[str, list[str]](), CONFIRMS: dict[str, list[str]]()}
    for setting, about in notes.items():
        groups[CONFIRMS if signature and _confirms(setting, signature) else CHANGES][setting] = about
    for heading, group in groups.items():
        mark = "" if heading == ERRORS else "# "
        if group:
            lines += ["", heading, *(printable(f"{mark}{setting}  # {'; '.join(about)}") for setting, about in group.items())]
    return lines


def _is_set(setting: str, config: Project) -> bool:
    """Return whether the project has the setting."""
    with contextlib.suppress(BadProject):
        return bool(setting) and _with_setting(config, setting) == config
    return False


def _confirms(setting: str, signature: Signature) -> bool:
    """Return whether the setting is how the table is read without it."""
    key, value = _key(setting), _value(setting)
    columns = {column.name: column for column in signature.request_columns}
    if key[0] == "reading":
        held = {**asdict(signature.reading), "skip_rows": value}.get(key[1])
        return bool(held == ("\t" if value == "tab" else value))
    column = columns.get(key[1]) if key[0] == "columns" else None
    if key[-1] == "na_values":
        return column is not None and isinstance(value, list) and bool(value) and set(value) <= set(column.na_values)
    return column is not None and getattr(column, key[-1], None) == value


def _notes_by_setting(findings: Iterable[Finding], taken: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return what was noticed for each setting; a key is set only once, because TOML allows it only once."""
    notes, settings = dict[str, list[str]](), {_key(setting): setting for setting in taken}
    known = set(settings.values())
    for finding in findings:
        setting = finding.setting
        if setting and setting not in known and settings.setdefault(_key(setting), setting) == setting:
            notes.setdefault(setting, []).append(f"{finding.column or 'table'}: {finding.message}")
    return notes


def _key(setting: str) -> tuple[str, ...]:
    """Return the parts of the key of a line of TOML."""
    return _parsed(setting)[0]


def _value(setting: str) -> object:
    return _parsed(setting)[1]


def _parsed(setting: str) -> tuple[tuple[str, ...], object]:
    """Return the parts of the key and the value of a line of TOML."""
    entry: object = tomllib.loads(setting)
    parts: tuple[str, ...] = ()
    while isinstance(entry, dict):
        part, entry = next(iter(entry.items()))
        parts += (part,)
    return parts, entry


def new_project_file(folder: Path, name: str) -> Path:
    """Return the path of a new project's file. Raises BadProject if the name is invalid or taken."""
    check_name(name)
    path = folder / name / "project.toml"
    if path.exists():
        raise BadProject(f"{path} exists; choose another name")
    return path
