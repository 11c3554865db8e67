"""Measure how Podium reads real tables that were made dirty, compared with the defaults of pandas and AutoGluon.

The tables come from packages that are installed in an environment of their own. For each form of dirt: the columns with the
right kind, and the cells with the right value, of those that were not left out with a finding; the targets with the right
task and rows; what is wrong without a finding that names it; and the tables that are refused, and how many of these with a
message that names the column and a setting. `python -m benchmarks.reading`
"""

from __future__ import annotations

import argparse
import io
import pickle
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.field_tables import Table, all_forms, collect, csv_of, dirty, kind_of
from benchmarks.peers import make_environment
from podium.project import Project
from podium.schema.data_errors import BadData
from podium.tables.frames import coerce_frame
from podium.tables.labeled_rows import LabeledRows
from podium.training.local_run import leaderboard, train_candidates
from podium.training.preparation import prepare_table
from podium.training.reading import read_training_table

LEARNED = ["AER/HousePrices", "ISLR/OJ", "ISLR/Carseats", "Stat2Data/Titanic", "modeldata/attrition", "modeldata/credit_data"]
LEARNED += ["openintro/ames", "seattle_weather"]
LEARNED_ROWS = 5_000
LEARNED_FORMS = ["currency", "missing marks", "mixed"]
AUTOGLUON = """
import io, pickle, sys
import pandas as pd
from autogluon.common.features.feature_metadata import FeatureMetadata
KINDS = {"int": "number", "float": "number", "bool": "boolean", "datetime": "date"}
def kinds(data):
    try: found = FeatureMetadata.from_df(pd.read_csv(io.BytesIO(data), low_memory=False))
    except Exception: return {}
    dates = found.type_group_map_special.get("datetime_as_object", [])
    return {name: "date" if name in dates else KINDS.get(kind, "category") for name, kind in found.type_map_raw.items()}
pickle.dump([kinds(data) for data in pickle.load(sys.stdin.buffer)], sys.stdout.buffer)
"""
SETTING = re.compile(r"columns\.|reading\.|target_na_values|set `task`|split\.")


@dataclass(slots=True)
class Score:
    """Counts over the tables of one form of dirt."""

    tables: int = 0
    columns: int = 0
    left_out: int = 0
    right: int = 0
    silent: int = 0
    cells: int = 0
    right_cells: int = 0
    targets: int = 0
    errors: int = 0
    named: int = 0
    pandas: list[bool] = field(default_factory=list)
    written: list[tuple[Table, bytes]] = field(default_factory=list)

    def row(self, form: str, rate: str, autogluon: str) -> str:
        kinds = [f"{self.right / max(self.columns, 1):.1%}", f"{np.mean(self.pandas):.1%}", autogluon]
        cells = [form, rate, self.tables, *kinds, f"{self.right_cells / max(self.cells, 1):.2%}"]
        read = self.tables - self.errors
        cells += [self.left_out, f"{self.targets / max(read, 1):.0%}", self.silent, f"{self.errors} ({self.named})"]
        return "| " + " | ".join(map(str, cells)) + " |"


def prepare(data: bytes, table: Table) -> tuple[LabeledRows, pd.DataFrame]:
    """Return the rows as Podium reads them, and the typed cells of all rows, also those without a target."""
    project = project_of(table)
    source = read_training_table(data, project, "table.csv")
    rows = prepare_table(source, project)
    return rows, coerce_frame(source.table, rows.signature.inputs, rows.signature.ignored)


def project_of(table: Table) -> Project:
    return Project(name="reading", data="s3://podium/table.csv", target=table.target, families=("lightgbm",), n_trials=1)


def measure(score: Score, table: Table, data: bytes, problems: list[str]) -> None:
    """Add what Podium and pandas make of a table; describe what is wrong without a finding."""
    score.tables += 1
    score.pandas += list(_pandas_kinds(data, table))
    try:
        rows, typed = prepare(data, table)
    except BadData as error:
        score.errors += 1
        score.named += all(problem.column and SETTING.search(problem.message) for problem in error.problems)
        problems.append(f"{table.name} refused: " + "; ".join(f"{p.column}: {p.message[:150]}" for p in error.problems[:2]))
        return
    noted = {finding.column for finding in rows.findings}
    found = {column.name: column.kind.replace("integer", "number") for column in rows.signature.inputs}
    is_right, seen = _is_target_right(rows, table), f"{rows.signature.target.task} with {len(rows.inputs)} rows"
    score.targets += is_right
    if not is_right:
        score.silent += table.target not in noted
        problems.append(f"{table.name}, target {table.target}: {seen} of {len(table.text)}")
    for column, kind in table.kinds.items():
        if column not in found and column in noted:
            score.left_out += 1
            continue
        score.columns += 1
        score.right += found.get(column) == kind
        same = np.zeros(len(table.text), bool)
        if found.get(column) == kind and len(typed) == len(same):
            cells, truth = typed[column], table.meaning[column]
            if kind == "category":  # Sat is read as Saturday
                same = np.array([read.startswith(text) for read, text in zip(cells.fillna(""), truth, strict=True)])
            else:
                same = np.isclose(cells.astype(float), truth.astype(float), rtol=1e-6, equal_nan=True)
        score.cells += len(same)
        score.right_cells += int(same.sum())
        if not same.all():
            wrong = np.flatnonzero(~same)[:3]
            read = [str(typed[column].iloc[row]) if column in found and row < len(typed) else None for row in wrong]
            is_silent = column not in noted
            score.silent += is_silent
            shown = f"{(~same).mean():.0%} wrong: {table.text[column].iloc[wrong].tolist()} → {read}"
            silently = "silently " if is_silent else ""
            problems.append(f"{table.name}, {column}: {kind} {silently}read as {found.get(column)}, {shown}")


def _is_target_right(rows: LabeledRows, table: Table) -> bool:
    """Return whether many numbers are a regression and text is classes, and whether at most 5 % of the rows are left out."""
    truth = table.meaning[table.target]
    is_number, known = truth.dtype == float, int((truth.notna() & (truth != "")).sum())
    is_regression = rows.signature.target.task == "regression"
    is_right = is_regression if is_number and truth.nunique() > 20 else is_number or not is_regression
    return is_right and len(rows.inputs) >= 0.95 * known


def _pandas_kinds(data: bytes, table: Table) -> Iterator[bool]:
    """Yield, for each input, whether the defaults of pandas give it the right kind."""
    try:
        frame = pd.read_csv(io.BytesIO(data), low_memory=False)
    except (ValueError, UnicodeError):
        frame = pd.DataFrame()
    for column, kind in table.kinds.items():
        yield column in frame and kind_of(frame[column]) == kind


def autogluon_kinds(folder: Path, scores: list[Score]) -> list[str]:
    """Return the fraction of columns to which AutoGluon gives the right kind, per form of dirt with stored files."""
    try:
        python = make_environment(folder / "autogluon", ["autogluon.features"])
        written = pickle.dumps([data for score in scores for _, data in score.written])
        found = pickle.loads(subprocess.run([python, "-c", AUTOGLUON], input=written, capture_output=True, check=True).stdout)
    except subprocess.CalledProcessError:
        return ["not run"] * len(scores)
    each, fractions = iter(found), []
    for score in scores:
        kinds = [(table.kinds, next(each)) for table, _ in score.written]
        right = [seen.get(name) == kind for true, seen in kinds for name, kind in true.items()]
        fractions.append(f"{np.mean(right):.1%}" if right else "–")
    return fractions


def learned(data: bytes, table: Table) -> str:
    """Train one model and return its metric."""
    try:
        rows, _ = prepare(data, table)
    except BadData:
        return "refused"
    project = project_of(table)
    board = leaderboard(rows, train_candidates(rows, project), project)
    name = next(metric for metric in ("roc_auc", "r2", "accuracy") if metric in board)
    return f"{board[name].iloc[0]:.3f} {name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, help="a file for a line about every column that is not read right")
    options = parser.parse_args()
    started, scores, labels, problems = time.monotonic(), list[Score](), list[tuple[str, str]](), list[str]()
    with tempfile.TemporaryDirectory(prefix="podium-reading-") as name:
        folder = Path(name)
        try:
            tables, larger = collect(folder), collect(folder / "larger", LEARNED_ROWS)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the packages with tables cannot be installed: {error}") from None
        for form, rate, written in all_forms(tables):
            score, lines = Score(written=written if rate in ("", "5%") else []), list[str]()
            for table, data in written:
                measure(score, table, data, lines)
            scores.append(score)
            labels.append((form, rate))
            problems += [f"{form} {rate} | {line}" for line in lines]
        fractions = autogluon_kinds(folder, scores)
    names = "dirt, cells dirty, tables, kinds right, pandas, AutoGluon, values right, left out, targets right, silent"
    print("| " + " | ".join([*names.split(", "), "refused (named)"]) + " |")
    print("| --- " * 11 + "|")
    for score, label, fraction in zip(scores, labels, fractions, strict=True):
        print(score.row(*label, fraction))
    print(f"\n| table | clean | {' | '.join(f'5 % {form}' for form in LEARNED_FORMS)} |")
    print("| --- " * (2 + len(LEARNED_FORMS)) + "|")
    for table in (table for table in larger if table.name in LEARNED):
        versions = [table, *(dirty(table, form, 0.05, 0) or table for form in LEARNED_FORMS)]
        print(f"| {table.name} | {' | '.join(learned(csv_of(each).encode(), each) for each in versions)} |", flush=True)
    print(f"\n{len(tables)} tables, {sum(score.tables for score in scores)} files, {time.monotonic() - started:.0f} s")
    if options.problems:
        options.problems.write_text("\n".join(problems))


if __name__ == "__main__":
    main()
