"""Tables as people and programs write them are read as they are meant, and every change is reported."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium.inference.panel_rows import key_table, typed_panel
from podium.inference.parsed_rows import DEFAULT_OPTIONS
from podium.inference.table_rows import read_options as request_options
from podium.models.encoder import fit_encoder
from podium.project import Project
from podium.schema.data_errors import BadData
from podium.schema.reading import na_values_setting
from podium.tables.frames import coerce_frame, columns_of, frame_to_rows, rows_to_frame
from podium.tables.json_values import coerce_rows, json_cell
from podium.tables.kind_inference import PANDAS_MARKS
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import windows
from podium.tables.readers import read_typed
from podium.tables.size_limits import REQUEST
from podium.tables.text_values import text_cell
from podium.training.findings import leakage_findings
from podium.training.panel import prepare_panel
from podium.training.preparation import prepare_table
from podium.training.reading import read_training_table

CASES = Path(__file__).parents[3].parent / "shared" / "cases"
ROWS = 300


def base() -> pd.DataFrame:
    random = np.random.default_rng(0)
    a, b = random.normal(50, 10, ROWS).round(2), random.integers(18, 80, ROWS)
    c = random.choice(["red", "green", "blue"], ROWS)
    y = np.where(a / 10 + b / 20 + random.normal(0, 1, ROWS) > 7.5, "yes", "no")
    return pd.DataFrame({"a": a, "b": b, "c": c, "y": y})


def read(data: bytes, name: str = "t.csv", target: str = "y", **options: object) -> LabeledRows:
    project = Project.model_validate({"name": "x", "data": f"s3://podium/{name}", "target": target, **options})
    return prepare_table(read_training_table(data, project, name), project)


def csv(frame: pd.DataFrame, **options: object) -> bytes:
    text: str = frame.to_csv(**{"index": False, **options})  # type: ignore[call-overload]
    return text.encode()


def kinds(rows: LabeledRows) -> dict[str, str]:
    return {column.name: column.kind for column in rows.signature.inputs}


BASE_KINDS = {"a": "number", "b": "integer", "c": "category"}


def excel_german() -> bytes:
    return base().replace("green", "grün").to_csv(index=False, sep=";", decimal=",").encode("windows-1252")


def with_total() -> bytes:
    return csv(base()) + b"Total,15000\nSource: the office\n"


LAYOUTS = {
    "tab": csv(base(), sep="\t"),
    "semicolon": csv(base(), sep=";"),
    "vertical bar": csv(base(), sep="|"),
    "decimal comma, windows-1252": excel_german(),
    "sep line": b"sep=;\r\n" + csv(base(), sep=";"),
    "utf-16": csv(base()).decode().encode("utf-16"),
    "utf-8 with a byte order mark": b"\xef\xbb\xbf" + csv(base()),
    "comment": b"# exported by a tool\n" + csv(base()),
    "preamble": b"Report of sales,,,\n\nAll regions,,,\n" + csv(base()),
    "preamble of one cell": b"Report of sales\n2024\n\n" + csv(base()),
    "footer": with_total(),
    "padded names": csv(base()).replace(b"a,b,c,y", b" a , b,c ,y"),
    "quoted names": csv(base()).replace(b"a,b,c,y", b'"a","b","c","y"'),
    "trailing delimiter": b"\n".join(line + b"," for line in csv(base()).splitlines()),
    "trailing delimiter in the rows": csv(base()).replace(b"\n", b",\n").replace(b"a,b,c,y,", b"a,b,c,y", 1),
    "pandas index": csv(base(), index=True),
    "names of rows as R writes them": csv(base(), index=True).replace(b",a,b,c,y", b"a,b,c,y", 1),
    "old Mac line ends": csv(base()).replace(b"\n", b"\r"),
}
QUIET = ("old Mac line ends", "quoted names", "utf-8 with a byte order mark")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_detected(layout: str) -> None:
    rows = read(LAYOUTS[layout])
    assert kinds(rows) == BASE_KINDS and rows.signature.target.classes == ("no", "yes")
    assert np.allclose(rows.inputs["a"].sum(), base()["a"].sum())
    is_silent = layout in QUIET or "trailing" in layout
    assert bool(rows.findings) != is_silent or "trailing" in layout


FLOWERS = [f"{n % 7}.{n % 9},{n % 5}.{n % 8 + 1},{('setosa', 'virginica')[n % 2]}" for n in range(60)]
HEADLESS = {
    "numbers and a text": (FLOWERS, "setosa"),
    "only numbers": ([line.replace("setosa", "1").replace("virginica", "0") for line in FLOWERS], "1"),
    "repeated": (["5.1,5.1,setosa", *FLOWERS], "setosa"),
    "dates": ([f"2024-01-{n % 28 + 1:02d},{'ab'[n % 2]}" for n in range(60)], "a"),
    "semicolons": ([line.replace(",", ";") for line in FLOWERS], "setosa"),
    "texts that occur again": ([f"{'abc'[n % 3]},{'xy'[n % 2]}" for n in range(60)], "x"),
}


@pytest.mark.parametrize("form", HEADLESS)
@pytest.mark.parametrize("is_target_known", [True, False])
def test_a_table_without_a_header_needs_names(form: str, is_target_known: bool) -> None:
    lines, target = HEADLESS[form]
    data = "\n".join(lines).encode()
    with pytest.raises(BadData, match=r"first row looks like data; set reading\.names"):
        read(data, target=target if is_target_known else "species")
    names = ["p", "q", "r"][: 2 if form in ("dates", "texts that occur again") else 3]
    assert len(read(data, target=names[-1], reading={"names": names}).target) == len(lines)


HEADERS = {
    "years": "2019,2020,y",
    "years with a text": "c,2018,2019,2020,y",
    "a running number": "0,1,2,y",
    "pixels": "0,1,2,3,4,5,y",
    "wavelengths": "400,450,500,550,y",
    "thresholds": "0.5,1.5,4,9,15,22,y",
    "dates": "2024-01-01,2024-01-02,y",
    "one number": "5,a,b,y",
}


@pytest.mark.parametrize("form", HEADERS)
def test_numbers_may_be_names_of_columns(form: str) -> None:
    names = HEADERS[form].split(",")
    frame = pd.DataFrame({name: np.random.default_rng(1).normal(100, 9, ROWS) for name in names})
    assert list(kinds(read(csv(frame.assign(y=base()["y"]))))) == names[:-1]


def test_a_header_of_numbers_can_be_confirmed() -> None:
    data = "\n".join(FLOWERS).encode()
    assert len(read(data, target="setosa", reading={"skip_rows": 0}).target) == len(FLOWERS) - 1


def test_a_header_that_is_repeated_below_is_a_header() -> None:
    assert kinds(read(csv(base()) + csv(base()), target="c"))["a"] == "number"


def sales() -> pd.DataFrame:
    frame = base().assign(c=lambda f: "shop " + f["c"], sold=np.random.default_rng(3).integers(100, 9_999, ROWS))
    return frame[["c", "b", "sold", "a", "y"]]


TOTAL = f"{sales()['sold'].sum():,}"
TOTALS = {
    "Total": f'Total,,"{TOTAL}",,\n',
    "TOTAL:": f'TOTAL:,,"{TOTAL}",,\n',
    "a label in another column": f',Summe,"{TOTAL}",,\n',
    "no label": f',,"{TOTAL}",,\n',
    "a blank row before": f',,,,\n,,"{TOTAL}",,\n',
    "a mean, too": f'Total,,"{TOTAL}",,\nAverage,,{sales()["sold"].mean():.1f},,\n',
    "with a label in the target": f'Total,,"{TOTAL}",,yes\n',
    "a source below": f'Total,,"{TOTAL}",,\nSource: the till,,,,\n',
    "blank rows and notes": f',,,,\n,,,,\nGrand Total,,"{TOTAL}",,\n,,,,\nNote: net,,,,\nSource: the till,,,,\n,,,,\n',
    "a full row": f'Total (2026),{sales()["b"].sum()},"{TOTAL}",{sales()["a"].sum():.2f},no\n',
    "a total, a rounded mean and a source": f'Total,,"{TOTAL}",,\nPromedio,,{sales()["sold"].mean():.0f},,\nsee page 3,,,,\n',
}


@pytest.mark.parametrize("form", TOTALS)
def test_totals_at_full_width_are_left_out(form: str) -> None:
    rows = read(csv(sales()) + TOTALS[form].encode())
    assert len(rows.target) == ROWS and rows.signature.inputs[0].categories == ("shop blue", "shop green", "shop red")
    assert rows.inputs["sold"].max() == sales()["sold"].max()
    finding = next(finding for finding in rows.findings if "totals at the end left out" in finding.message)
    assert finding.setting == "reading.skip_footer = 0"
    kept = read(csv(sales()) + TOTALS[form].encode(), reading={"skip_footer": 0}, columns={"sold": {"kind": "category"}})
    assert kept.raw is not None and len(kept.raw) >= ROWS


LAST_ROWS = {
    "some cells missing": ",30,1234,5.1,yes",
    "most cells missing": ",,1234,,yes",
    "a full row called Total": "Total,30,1234,5.1,yes",
}


@pytest.mark.parametrize("form", LAST_ROWS)
def test_a_last_row_that_may_be_data_is_kept(form: str) -> None:
    rows = read(csv(sales()) + LAST_ROWS[form].encode() + b"\n")
    assert len(rows.target) == ROWS + 1
    doubts = [finding.setting for finding in rows.findings if "may be a total" in finding.message]
    assert doubts == ["reading.skip_footer = 1"] * (form != "some cells missing")
    assert len(read(csv(sales()) + LAST_ROWS[form].encode() + b"\n", reading={"skip_footer": 1}).target) == ROWS


def test_notes_alone_are_left_out_and_blank_rows_have_no_target() -> None:
    rows = read(csv(sales()) + b",,,,\nSource: the till,,,,\n")
    assert [finding.message for finding in rows.findings] == ["2 rows with notes at the end left out (blank, a note)"]
    rows = read(csv(sales()) + b",,,,\n")
    assert [finding.message for finding in rows.findings] == ["1 row without a target left out: empty"]


def test_a_total_that_remains_above_the_skipped_rows_is_reported() -> None:
    data = csv(sales()) + f'Total,,"{TOTAL}",,no\n,,,,\nSource: the till,,,,\n'.encode()
    rows = read(data, reading={"skip_footer": 1})
    assert len(rows.target) == ROWS + 1
    assert "row 3 from the end may be a total (Total), but is not left out [reading.skip_footer = 3]" in map(str, rows.findings)
    assert len(read(data, reading={"skip_footer": 3}).findings) == 1


def test_a_total_below_a_short_table_is_left_out() -> None:
    frame = sales().head(20)
    total = f"Total,{frame['b'].sum()},{frame['sold'].sum()},{frame['a'].sum():.2f},\n".encode()
    assert len(read(csv(frame) + total, task="binary", split={"folds": 2}).target) == 20


def test_a_request_has_no_totals() -> None:
    signature = read(csv(sales())).signature
    data = csv(sales().drop(columns="y")) + f'Total,,"{TOTAL}",\n'.encode()
    assert read_typed(data, request_options(signature, DEFAULT_OPTIONS, REQUEST)).num_rows == ROWS + 1


CELLS: dict[str, tuple[list[str], str]] = {
    "thousands": (["1,234", "12,500", "999", "1,000,000"], "number"),
    "German thousands and decimals": (["1.234,5", "12.500,25", "9,75"], "number"),
    "French spaces": (["1 234,5", "12 500,25", "9,75"], "number"),
    "Swiss": (["1'234.5", "12'500.25", "9.75"], "number"),
    "dollars": (["$1,234.50", "$9", "($8.2)"], "number"),
    "pounds": (["£1,234.50", "£9.00", "-£8"], "number"),
    "euros after": (["1.234,50 €", "9,00 €", "8 €"], "number"),
    "trailing minus": (["12.5-", "3", "4.25"], "number"),
    "percent": (["12%", "13.5 %", "7%"], "number"),
    "units": (["12.5 kg", "3kg", "4"], "number"),
    "degrees": (["12.5°C", "-3 °C", "4 °C"], "number"),
    "magnitudes": (["1.2k", "3M", "2bn", "15"], "number"),
    "dollar magnitudes": (["$1.2k", "$3M", "$2bn"], "number"),
    "limits": (["<0.5", "1.25", "3", "7.5", ">100"], "number"),
    "groups by limits": (["<40", ">=40"], "category"),
    "codes with letters": (["136A", "136", "204"], "category"),
    "seats": (["32B", "34C", "36A"], "category"),
    "sizes with letters": (["32B", "34B", "36B"], "number"),
    "open ranges": (["50-", "55-", "60-"], "category"),
    "pairs": (["1", "1;2", "3;4"], "category"),
    "Excel errors": (["1.5", "#DIV/0!", "2.5"], "number"),
    "R and SQL": (["1.5", "NA", "\\N"], "number"),
    "booleans": (["yes", "Y", "no", "N", "TRUE"], "boolean"),
    "true and false": (["True", "False"], "boolean"),
    "US dates": (["01/31/2024", "12/01/2023"], "date"),
    "European dates": (["31/01/2024", "01/12/2023"], "date"),
    "German dates": (["31.01.2024", "01.12.2023"], "date"),
    "month names": (["31-Jan-2024", "01-Dec-2023"], "date"),
    "American month names": (["January 31, 2024", "December 1, 2023"], "date"),
    "ISO with T and Z": (["2024-01-31T10:20:30Z", "2023-12-01T00:00:00Z"], "date"),
    "ISO with offset": (["2024-01-31 10:20:30+02:00", "2023-12-01 00:00:00+02:00"], "date"),
    "US time": (["01/31/2024 10:20 PM", "12/01/2023 09:00 AM"], "date"),
    "postcodes": (["01234", "98765", "10115"], "category"),
    "sizes": (["S", "M", "L", "XL"], "category"),
    "mixed units": (["12 kg", "13 lb"], "category"),
    "mixed currencies": (["$12", "€13"], "category"),
}


@pytest.mark.parametrize("form", CELLS)
def test_cells_are_read_as_they_are_meant(form: str) -> None:
    cells, kind = CELLS[form]
    rows = read(csv(base().assign(x=(cells * ROWS)[:ROWS])))
    assert kinds(rows)["x"] == kind
    if kind == "number":
        column = next(column for column in rows.signature.inputs if column.name == "x")
        assert column.has_number_format or column.na_values


MARKS = ["k. A.", "K.A.", "o. A.", "keine Angabe", "n/v", "s/d", "n.d.", "sin dato", "-", "--", "?", "N/A", "Missing", "#REF!"]


@pytest.mark.parametrize("cells", [["1,5", "2,25", "3,75"], ["01.02.2026", "17.03.2026"], ["ja", "nein"]])
def test_marks_of_many_languages_are_missing_values_but_for_categories(cells: list[str]) -> None:
    shown = [MARKS[n // 3 % len(MARKS)] if n % 3 == 0 else cells[n % len(cells)] for n in range(ROWS)]
    rows = read(csv(base().assign(x=shown), sep=";", decimal=","))
    column = next(column for column in rows.signature.inputs if column.name == "x")
    if column.kind == "category":
        assert set(MARKS) - {"N/A"} < set(column.categories)
    else:
        assert set(column.na_values) == set(MARKS) and rows.inputs["x"].isna().sum() == ROWS // 3
    assert any(finding.column == "x" and "missing values" in finding.message for finding in rows.findings)


NUMBER_NOTES = {
    "spaces": (["1 234 €", "12 500 €"], "read as amounts; currency signs are removed; spaces are thousands separators"),
    "no-break spaces": (["1\u202f234,5", "9,75"], "spaces are thousands separators; commas are decimal marks"),
    "apostrophes": (["1'234.5", "9.75"], "read as amounts; apostrophes are thousands separators"),
    "points": (["1.234,5", "9,75"], "read as numbers; points are thousands separators; commas are decimal marks"),
    "limits": (["<0.5", "1.25", "3", "7.5", ">100"], "read as numbers; <, > are removed"),
    "magnitudes": (["$1.2k", "$3M"], "currency signs are removed; k is × 1,000; M is × 1,000,000"),
    "parentheses": (["$1.5", "($8.2)"], "numbers in parentheses are negative"),
    "units": (["12 kg", "13 kg"], "read as numbers with the unit kg"),
    "units that may be magnitudes": (["12k", "13k"], "read as numbers; k is × 1,000"),
    "a few units": (["12 kg", "13", "14"], "read as numbers; 100 cells have the unit kg, the others none"),
    "percent": (["12%", "3.5 %"], "read as percentages: 12% is 12"),
    "a few percent": (["12%", "0.5", "3"], "read as percentages; 100 cells have the unit %, the others none"),
    "a few currencies": (["$12", "9.5", "3"], "read as amounts; currency signs are removed from 100 cells"),
    "clear thousands": (
        ["$139,750", "$81,035"],
        "read as amounts; currency signs are removed; commas are thousands separators",
    ),
    "open commas": (["1,500", "2,750"], "commas are thousands separators; 1,500 is 1500, not 1.5"),
    "open points": (["$1.500", "$2.750"], "currency signs are removed; 1.500 is 1.5, not 1500"),
}


@pytest.mark.parametrize("form", NUMBER_NOTES)
def test_a_finding_says_how_formatted_numbers_are_read(form: str) -> None:
    cells, message = NUMBER_NOTES[form]
    rows = read(csv(base().assign(x=(cells * ROWS)[:ROWS])))
    assert next(finding.message for finding in rows.findings if finding.column == "x").endswith(message)


@pytest.mark.parametrize(
    ("cells", "setting"),
    [
        (["1,500", "2,750"], 'reading.decimal = ","'),
        (["$1.500", "$2.750"], 'reading.decimal = ","'),
        (["12,5", "9,75"], 'reading.decimal = ","'),
        (["$139,750", "$81,035"], 'columns.x.number_format = "money"'),
        (["$1,500.50", "$9"], 'columns.x.number_format = "money"'),
        (["12%", "7%"], 'columns.x.number_format = "percent"'),
        (["12 kg", "7 kg"], 'columns.x.number_format = "quantity"'),
    ],
)
def test_a_finding_on_numbers_has_the_setting_that_decides_it(cells: list[str], setting: str) -> None:
    rows = read(csv(base().assign(x=(cells * ROWS)[:ROWS])))
    assert next(finding.setting for finding in rows.findings if finding.column == "x") == setting


def test_whole_numbers_of_a_table_with_decimal_commas_are_whole_with_and_without_settings() -> None:
    cells = [",", "NA", *range(2, ROWS)]
    data = csv(base().assign(x=cells, z=np.arange(ROWS) / 4), sep=";", decimal=",")
    settings: list[dict[str, Any]] = [{}, {"columns": {"x": {"na_values": [",", "NA"]}}}]
    assert [read(data, **each).signature.inputs[-2].kind for each in settings] == ["integer", "integer"]


def test_plain_numbers_of_a_table_with_decimal_commas_are_no_finding() -> None:
    rows = read(csv(base().assign(x=np.arange(1000, 1000 + 3 * ROWS, 3) // 9 * 9), sep=";", decimal=","))
    assert "x" not in {finding.column for finding in rows.findings}


MAGNITUDES = {
    "12.3k": 12_300, "12.3K": 12_300, "12K": 12_000, "1.2M": 1.2e6, "3mn": 3e6, "2bn": 2e9, "1.5B": 1.5e9, "$1.2k": 1_200,
    "300 K": 300, "32B": 32, "12.3kg": 12.3, "12.3 km": 12.3, "5 mm": 5, "5 m": 5, "5m": 5,
}  # fmt: skip


@pytest.mark.parametrize("cell", MAGNITUDES)
def test_the_same_magnitude_in_all_cells_multiplies(cell: str) -> None:
    cells = [cell.replace(cell[1] if cell[0] == "$" else cell[0], str(n % 8 + 1), 1) for n in range(ROWS)]
    rows = read(csv(base().assign(x=[cell, *cells[1:]])))
    assert rows.inputs["x"][0] == pytest.approx(MAGNITUDES[cell])
    finding = next(finding.message for finding in rows.findings if finding.column == "x")
    assert ("unit" in finding) == (MAGNITUDES[cell] < 1_000)
    assert json_cell(rows.signature.inputs[3])(cell) == pytest.approx(MAGNITUDES[cell])


@pytest.mark.parametrize("every", [2, 5, 20])
def test_a_unit_of_some_cells_is_a_finding(every: int) -> None:
    numbers = base()["a"]
    cells = [f"{number} kg" if n % every == 0 else f"{number}" for n, number in enumerate(numbers)]
    rows = read(csv(base().assign(a=cells)))
    assert np.allclose(rows.inputs["a"], numbers)
    assert any(f"{ROWS // every} cells have the unit kg, the others none" in finding.message for finding in rows.findings)
    target = read(csv(base().assign(y=cells)))
    assert np.allclose(target.target, numbers)


@pytest.mark.parametrize("form", ["{:.3f}", "{:.3f} kg", "{:.3f}%", "${:.3f}"])
@pytest.mark.parametrize("minus", "\u2212\u2013")
def test_a_unicode_minus_is_a_minus(form: str, minus: str) -> None:
    numbers = base()["a"].to_numpy() - 50
    frame = base().assign(a=[form.format(n).replace("-", minus) for n in numbers])
    rows = read(csv(frame))
    column = rows.signature.inputs[0]
    assert np.allclose(rows.inputs["a"], numbers)
    cell = form.format(-1.5).replace("-", minus)
    assert text_cell(column)(cell) == -1.5
    if column.has_number_format:
        assert json_cell(column)(cell) == -1.5
    target = read(csv(base().assign(y=frame["a"]))).target
    assert np.allclose(target, numbers)


def test_an_en_dash_between_numbers_is_no_minus() -> None:
    assert kinds(read(csv(base().assign(x=["10–20", "20–30", "–"] * 100))))["x"] == "category"


def test_one_letter_after_every_number_is_a_unit() -> None:
    rows = read(csv(base().assign(size=["32B", "34B", "36B"] * 100)))
    assert rows.inputs["size"].max() == 36 and any("unit B" in finding.message for finding in rows.findings)


@pytest.mark.parametrize(
    ("offset", "is_noted"), [("+02:00", True), (" -0530", True), ("Z", False), ("+00:00", False), ("", False)]
)
def test_times_with_an_offset_are_a_finding(offset: str, is_noted: bool) -> None:
    times = pd.date_range("2024-01-01", periods=ROWS, freq="7h")
    rows = read(csv(base().assign(t=[f"{time:%Y-%m-%d %H:%M:%S}{offset}" for time in times])))
    assert kinds(rows)["t"] == "date"
    notes = [finding.message for finding in rows.findings if finding.column == "t"]
    assert notes == ["300 cells have an offset and are converted to UTC: 10:00+02:00 is 08:00"] * is_noted


def test_a_time_of_day_is_a_feature() -> None:
    times = pd.date_range("2024-01-01", periods=ROWS, freq="7h")
    days = read(csv(base().assign(t=times))).inputs["t"]
    assert (days % 1 * 24).round(6).tolist() == times.hour.astype(float).tolist()


@pytest.mark.parametrize(("name", "unit"), [("created_at", 1), ("timestamp", 1000), ("event_time", 10**9)])
def test_whole_numbers_named_as_times_are_times(name: str, unit: int) -> None:
    seconds = pd.date_range("2024-01-01", periods=ROWS, freq="7h").astype("int64").to_numpy() // 10**9
    if seconds[0] < 10**8:  # the index counts in a coarser unit
        seconds = (
            (pd.date_range("2024-01-01", periods=ROWS, freq="7h") - pd.Timestamp(0)).total_seconds().astype(int).to_numpy()
        )
    rows = read(csv(base().assign(**{name: seconds * unit})))
    assert kinds(rows)[name] == "date"
    assert rows.inputs[name].min() == pytest.approx(19723)


def test_a_few_odd_cells_are_missing_values_with_a_finding() -> None:
    frame = base().astype({"a": object})
    frame.loc[[3, 4, 5], "a"] = ["n/a", "about 50", "see note"]
    rows = read(csv(frame))
    assert kinds(rows) == BASE_KINDS and rows.inputs["a"].isna().sum() == 3
    finding = next(finding for finding in rows.findings if finding.column == "a")
    message = "3 cells that are not numbers are missing values: n/a; by form: aaaaa 99, aaa aaaa"  # the forms, not the cells
    assert (finding.message, finding.setting) == (message, 'columns.a.na_values = ["n/a"]')


@pytest.mark.parametrize("mark", PANDAS_MARKS)
def test_missing_marks_of_pandas_are_missing_in_categories(mark: str) -> None:
    frame = base()
    frame.loc[:10, "c"] = mark
    frame.loc[11:20, "c"] = "unknown"
    rows = read(csv(frame))
    column = rows.signature.inputs[2]
    assert column.categories == ("blue", "green", "red", "unknown") and column.nullable
    finding = next(finding for finding in rows.findings if finding.column == "c")
    assert str(finding) == f"c: 11 cells are missing values: {mark} [columns.c.na_values = []]"
    values = [row[2] for row in coerce_rows([{"a": 1, "b": 2, "c": c} for c in (mark, None, "red")], rows.signature.inputs)]
    assert values == [None, None, "red"]


@pytest.mark.parametrize("options", [{"na_values": []}, {"categories": ["NA", "blue", "green", "red"]}])
def test_missing_marks_can_be_categories(options: dict[str, list[str]]) -> None:
    frame = base().assign(c=["NA", "blue", "green", "red"] * 75)
    rows = read(csv(frame), columns={"c": options})
    assert rows.signature.inputs[2].categories == ("NA", "blue", "green", "red") and not rows.findings


def test_the_setting_of_a_missing_mark_makes_it_a_category() -> None:
    frame = base().assign(flag=["true", "false", "NA"] * 100, answer=["yes", "no", "NA"] * 100)
    rows = read(csv(frame), columns={"answer": {"kind": "boolean"}})
    assert rows.inputs["flag"].isna().sum() == rows.inputs["answer"].isna().sum() == 100
    for finding in rows.findings:
        options = tomllib.loads(finding.setting)["columns"]
        column = next(column for column in read(csv(frame), columns=options).signature.inputs if column.name == finding.column)
        assert "NA" in column.categories and not column.nullable


def test_missing_marks_are_missing_in_booleans_and_texts() -> None:
    notes = [f"the note of row {n} is here" if n % 9 else "NA" for n in range(ROWS)]
    rows = read(csv(base().assign(c=["true", "false", "NA"] * 100, note=notes)))
    assert kinds(rows) == {**BASE_KINDS, "c": "boolean", "note": "text"}
    assert rows.inputs["c"].isna().sum() == 100 and rows.inputs["note"].isna().sum() == 34


def test_many_odd_cells_are_an_error_that_says_what_to_set() -> None:
    frame = base().astype({"a": object})
    frame.loc[: ROWS // 5, "a"] = "not measured"
    with pytest.raises(BadData, match=r"20% of its cells .not measured.*columns.a.na_values"):
        read(csv(frame))
    assert kinds(read(csv(frame), columns={"a": {"na_values": ["not measured"]}})) == BASE_KINDS


IDENTIFIERS = {
    "order_id": [f"{n * 7919 % 1_000_003}" for n in range(ROWS)],
    "tweet": [f"{1_234_567_890_123_456_789 + n * 7}" for n in range(ROWS)],
    "uuid": [f"123e4567-e89b-12d3-a456-{n:012d}" for n in range(ROWS)],
    "row": [str(n + 5) for n in range(ROWS)],
    "name": [f"Person {n}" for n in range(ROWS)],
    **{
        name: [str(n + 1001) for n in range(ROWS)]
        for name in ("employee no", "passengerid", "Kundennummer", "order number", "RechnungsNr", "CODE", "id of customer")
    },
}


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_identifiers_are_left_out_with_a_finding(name: str) -> None:
    rows = read(csv(base().assign(**{name: IDENTIFIERS[name]})))
    assert kinds(rows) == BASE_KINDS
    assert any(finding.column == name and "left out" in finding.message for finding in rows.findings)


def test_the_number_of_different_texts_is_told() -> None:
    rows = read(csv(base().assign(name=[f"Person {n % 180}" for n in range(ROWS)])))
    finding = next(finding for finding in rows.findings if finding.column == "name")
    assert str(finding) == 'name: left out: 180 different texts in 300 rows [columns.name.kind = "category"]'


def test_years_and_ranks_are_kept() -> None:
    ranks = np.random.default_rng(1).permutation(ROWS)
    frame = base().assign(year=np.arange(1700, 1700 + ROWS), rank=ranks + 1, number=ranks + 1001, nodes=np.arange(9, 9 + ROWS))
    assert {"year", "rank", "number", "nodes"} <= set(kinds(read(csv(frame))))


def test_a_column_of_pairs_does_not_set_the_decimal_mark() -> None:
    frame = base().assign(fuel=["1.459", "1.529", "1.389"] * 100, aisles=["1", "1,2", "3", "2,4"] * 75)
    assert read(csv(frame)).inputs["fuel"].max() == 1.529


def test_the_target_has_the_decimal_mark_of_the_table() -> None:
    frame = base().drop(columns="y").assign(y=[f"1.{n:03d}" for n in range(100, 100 + ROWS)])
    assert read(csv(frame, sep=";", decimal=",")).target.min() == 1100


def test_a_title_with_the_name_of_the_target_is_no_header() -> None:
    assert kinds(read(b"Results of the survey, y\n" + csv(base()))) == BASE_KINDS


def test_a_date_column_may_have_missing_marks_and_other_names_do_not_make_times() -> None:
    dates = [str(day.date()) for day in pd.date_range("2024-01-01", periods=ROWS)]
    dates[150] = "NA"
    frame = base().assign(date=dates, run_time=np.random.default_rng(1).integers(8 * 10**8, 2 * 10**9, ROWS))
    rows = read(csv(frame))
    assert kinds(rows)["date"] == "date" and kinds(rows)["run_time"] == "integer"


YEARS = {
    "births": (1940, 2005, 2035),
    "births of a year not long ago": (1950, 2020, 2035),
    "births of old people": (1925, 2009, 2024),
    "births before the war": (1936, 1939, 2035),
    "this century": (2001, 2034, 2035),
}


@pytest.mark.parametrize("case", YEARS)
def test_two_digit_years_are_those_of_the_column(case: str) -> None:
    first, last, newest = YEARS[case]
    days = pd.Series(pd.date_range(f"{first}-01-02", f"{last}-12-30", periods=ROWS))
    rows = read(csv(base().assign(born=days.dt.strftime("%m/%d/%y"))))
    assert rows.raw is not None
    column = next(column for column in rows.signature.inputs if column.name == "born")
    assert column.last_year == newest and (column.low, column.high) == tuple(
        (pd.Timestamp(day) - pd.Timestamp(0)).days for day in (f"{first}-01-02", f"{last}-12-30")
    )
    message = f"two-digit years are read as {newest - 99} to {newest}"
    assert ("born", message, f"columns.born.last_year = {newest}") in [
        (finding.column, finding.message, finding.setting) for finding in rows.findings
    ]
    assert json_cell(column)(cell := rows.raw["born"][0].as_py()) == text_cell(column)(cell) == rows.inputs["born"][0]
    other = read(csv(base().assign(born=days.dt.strftime("%m/%d/%y"))), columns={"born": {"last_year": 2135}})
    assert other.inputs["born"].min() >= 24_107


def test_a_category_that_is_nearly_numbers_is_reported() -> None:
    cells = [str(n % 10) if n % 12 else "see note" for n in range(ROWS)]
    rows = read(csv(base().assign(x=cells)))
    assert any(finding.column == "x" and "8% of its cells are not numbers" in finding.message for finding in rows.findings)


def test_problems_of_all_columns_are_reported_at_once() -> None:
    frame = base().astype({"a": object, "b": object})
    frame.loc[: ROWS // 5, ["a", "b"]] = "not measured"
    with pytest.raises(BadData) as caught:
        read(csv(frame))
    assert [problem.column for problem in caught.value.problems] == ["a", "b"]


TARGETS = {
    "spellings": (["yes", "yes", " YES ", "no", "no", "No"], ("no", "yes")),
    "booleans": (["TRUE", "TRUE", "true", "False", "False", "false", "0"], ("False", "TRUE")),
    "missing marks": (["yes", "no", "NA", ""], ("no", "yes")),
    "decimal commas": ([f"{n},5" for n in range(100, 400)], ()),
    "thousands": ([f"{n},000" for n in range(100, 400)], ()),
    "money": ([f"${n},000" for n in range(100, 400)], ()),
    "unbounded": ([*(f"{n}.5" for n in range(100, 390)), *(["inf"] * 10)], ()),
}


@pytest.mark.parametrize("form", TARGETS)
def test_the_target_is_read_as_carefully_as_the_inputs(form: str) -> None:
    cells, classes = TARGETS[form]
    shuffled = np.random.default_rng(1).permutation((cells * ROWS)[:ROWS])
    rows = read(csv(base().assign(y=shuffled)))
    assert rows.signature.target.classes == classes
    assert any(finding.column == "y" for finding in rows.findings)


@pytest.mark.parametrize("form", ["{}", "{}.0", "{}.5"])
def test_a_target_of_numbers_that_repeat_is_a_regression(form: str) -> None:
    numbers = np.random.default_rng(5).zipf(1.2, ROWS).clip(max=250)
    assert read(csv(base().assign(y=[form.format(n) for n in numbers]))).signature.target.task == "regression"


def test_rare_classes_are_left_out_by_name() -> None:
    rows = read(csv(base().assign(y=["A", "B", "C"] * 98 + ["A"] * 3 + ["D", "D", "E"])))
    assert rows.signature.target.classes == ("A", "B", "C")
    assert any("D (2), E (1)" in finding.message for finding in rows.findings)
    with pytest.raises(BadData, match=r"fewer than 5 rows: p \(1\)"):
        read(csv(base().assign(y=["n"] * 299 + ["p"])))


REFUSED = {
    "constant": (["x"] * ROWS, "single value"),
    "empty": ([""] * ROWS, "has no values"),
    "names": ([f"Person {n}" for n in range(ROWS)], "like a name"),
    "running number": ([str(n) for n in range(ROWS)], "running number"),
    "dates": ([str(day.date()) for day in pd.date_range("2024-01-01", periods=ROWS)], "is a date"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_an_unusable_target_is_refused_with_the_reason(form: str) -> None:
    cells, message = REFUSED[form]
    with pytest.raises(BadData, match=message):
        read(csv(base().assign(y=cells)))


def test_a_leak_is_reported() -> None:
    frame = base().assign(total=lambda f: f["a"] * 3 + 1)
    rows = read(csv(frame.drop(columns="y").assign(y=frame["a"] * 2)))
    assert {finding.column for finding in leakage_findings(rows)} == {"a", "total"}
    assert not leakage_findings(read(csv(base())))


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def test_nested_and_binary_parquet_columns_are_left_out_by_name() -> None:
    table = pa.Table.from_pandas(base(), preserve_index=False)
    table = table.append_column("tags", pa.array([["a", "b"]] * ROWS))
    table = table.append_column("point", pa.array([{"x": 1}] * ROWS))
    rows = read(parquet(table), "t.parquet")
    assert kinds(rows) == BASE_KINDS
    assert {finding.column for finding in rows.findings if "left out" in finding.message} == {"tags", "point"}


@pytest.mark.parametrize("data", [b"hello", parquet(pa.table({"a": [1], "y": [2]}))[:-9]])
def test_a_damaged_parquet_file_is_named(data: bytes) -> None:
    with pytest.raises(BadData, match=r"Parquet.* damaged.*; write it again"):
        read(data, "t.parquet")


@pytest.mark.skipif(not CASES.exists(), reason="the field cases are not beside the project")
@pytest.mark.parametrize("case", ["03", "04", "05", "07", "08", "09", "10", "11", "12", "16", "17"])
def test_field_cases_keep_their_columns(case: str) -> None:
    folder = next(CASES.glob(f"{case}-*"))
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.parquet")]):
        target = "price" if path.name in ("hp_thousands.csv", "int_area.csv") else "y"
        if path.name == "one_positive.csv":
            with pytest.raises(BadData, match="fewer than 5 rows"):
                read(path.read_bytes(), path.name, target)
            continue
        rows = read(path.read_bytes(), path.name, target)
        lost = {name for name in rows.signature.ignored if name != target}
        assert lost == {finding.column for finding in rows.findings if finding.message.startswith("left out:")} - {"l", "s"} | (
            lost & {"l", "s"}
        )
        assert lost <= {"tweet_id", "id", "Unnamed: 0"}, path.name
        if case == "03":
            assert rows.signature.target.task == "regression", path.name
        if case == "04":
            assert len(rows.signature.target.classes) == 2, path.name


def shop_rows(frequency: str, periods: int = 60) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=periods, freq=frequency)
    random = np.random.default_rng(2)
    shops = [
        pd.DataFrame({"shop": shop, "when": times, "sold": random.normal(100, 3, periods).round(2)}) for shop in (101, 102)
    ]
    return pd.concat(shops)


PANEL = {"panel": {"entity": "shop", "time": "when", "lags": 3}}


def read_panel(data: bytes, **options: object) -> LabeledRows:
    entries = {"name": "x", "data": "s3://podium/t.csv", "target": "sold", **PANEL, **options}
    project = Project.model_validate(entries)
    return prepare_panel(read_training_table(data, project, "t.csv"), project, None)


@pytest.mark.parametrize(
    ("frequency", "following"),
    [("h", "2024-01-03T12:00:00"), ("B", "2024-03-25"), ("W-SUN", "2025-03-02"), ("ME", "2029-01-31"), ("D", "2024-03-01")],
)
def test_a_forecast_is_dated_by_the_frequency(frequency: str, following: str) -> None:
    rows = read_panel(csv(shop_rows(frequency)))
    panel = rows.signature.panel
    assert panel is not None and len(rows.inputs) == 2 * 59
    typed = coerce_frame(read_training_table(csv(shop_rows(frequency)), PROJECT, "t.csv").table, panel.columns)
    ahead = key_table(windows(columns_of(typed), panel).keys, panel)
    assert ahead["when"].to_pylist()[60] == following
    assert any(finding.setting == f'panel.frequency = "{frequency}"' for finding in rows.findings) == (frequency != "D")


PROJECT = Project.model_validate({"name": "x", "data": "s3://podium/t.csv", "target": "sold"})


def test_rows_with_the_same_key_are_an_error_or_combined() -> None:
    frame = shop_rows("D")
    twice = csv(pd.concat([frame, frame.head(5).assign(sold=0)]))
    with pytest.raises(BadData, match=r"5 rows with the same shop and when.*panel.duplicates"):
        read_panel(twice)
    panel = {"panel": {**PANEL["panel"], "duplicates": "mean"}}
    rows = read_panel(twice, **panel)
    assert any("combined by their mean" in finding.message for finding in rows.findings)


@pytest.mark.skipif(not CASES.exists(), reason="the field cases are not beside the project")
@pytest.mark.parametrize(("case", "frequency"), [("02", "B"), ("18", "h")])
def test_field_panels_have_their_frequency(case: str, frequency: str) -> None:
    path = next(next(CASES.glob(f"{case}-*")).glob("*.csv"))
    rows = read_panel(path.read_bytes())
    assert rows.signature.panel is not None and rows.signature.panel.frequency == frequency
    assert len(rows.inputs) > 0.9 * (len(path.read_text().splitlines()) - 1)


def test_an_entity_may_be_called_na() -> None:
    rows = read_panel(csv(shop_rows("D").replace({"shop": {101: "NA"}})))
    assert set(rows.inputs["shop"]) == {"NA", "102"}


def test_free_text_becomes_features() -> None:
    random = np.random.default_rng(4)
    nouns, praise, blame = ["house", "garden", "kitchen", "view"], ["lovely", "great"], ["broken", "noisy"]
    good = random.random(ROWS) < 0.5
    texts = [
        f"The {random.choice(nouns)} number {n} was {random.choice(praise if is_good else blame)} and I said so"
        for n, is_good in enumerate(good)
    ]
    rows = read(csv(base().drop(columns="y").assign(review=texts, y=np.where(good, "yes", "no"))))
    assert kinds(rows)["review"] == "text"
    encoder = fit_encoder(rows.inputs, rows.signature.inputs, 20)
    assert {'review has "lovely"', 'review has "noisy"'} <= set(encoder.names)
    cells = [*frame_to_rows(rows.inputs), (1.0, 2.0, "red", None)]
    columns = [column.name for column in rows.signature.inputs]
    assert columns == ["a", "b", "c", "review"]
    frame = rows_to_frame(cells, rows.signature.inputs)
    assert np.array_equal(encoder.transform(frame), encoder.transform_rows(cells), equal_nan=True)


@pytest.mark.parametrize(
    "layout", [{"index": True}, {"index": False, "sep": "\t"}, {"index": False, "date_format": "%Y-%m-%dT%H:%M:%S"}]
)
def test_a_panel_upload_may_have_an_index_and_iso_times(layout: dict[str, object]) -> None:
    frame = shop_rows("D")
    signature = read_panel(csv(frame.assign(when=frame["when"].dt.strftime("%d/%m/%Y")))).signature
    table = read_typed(csv(frame, **layout), request_options(signature, DEFAULT_OPTIONS, REQUEST))
    typed = typed_panel(table, signature, DEFAULT_OPTIONS)
    assert len(typed["sold"]) == len(frame) and typed["when"].min() == 19723


def about(rows: LabeledRows, column: str) -> list[str]:
    return [str(finding) for finding in rows.findings if finding.column == column]


NUMBERS = np.random.default_rng(6).integers(0, 21, ROWS)
CODED = {
    "years of education": ([99 if n == 7 else n for n in NUMBERS], ["99"]),
    "ages up to 89": ([99 if n == 7 else n + 69 for n in NUMBERS], ["99"]),
    "decimals": ([f"{999 if n == 7 else n}.0" for n in NUMBERS], ["999"]),
    "two codes": ([98 if n == 7 else 99 if n == 8 else n for n in NUMBERS], ["98", "99"]),
    "answers from 1 to 5": ([-9 if n == 7 else n % 5 + 1 for n in NUMBERS], ["-9"]),
    "days, or none": ([-1 if n < 3 else n for n in NUMBERS], ["-1"]),
    "amounts with many sizes": ([round(1.6**n) for n in NUMBERS], []),
    "once": ([*[99] * 2, *NUMBERS[2:]], []),
    "numbers up to 100": ([5 * n - 1 for n in NUMBERS], []),
    "below zero": ([n - 9 for n in NUMBERS], []),
    "a score": ([n % 3 - 1 for n in NUMBERS], []),
}


@pytest.mark.parametrize("case", CODED)
def test_repeated_numbers_far_from_the_others_may_be_missing(case: str) -> None:
    cells, marks = CODED[case]
    lines = [line for line in about(read(csv(base().assign(x=cells))), "x") if "may mean a missing value" in line]
    assert lines == [
        f"x: {', '.join(marks)} may mean a missing value, far from the other values [{na_values_setting('x', marks)}]"
    ] * bool(marks)
    if marks:
        assert read(csv(base().assign(x=cells)), columns={"x": {"na_values": marks}}).inputs["x"].max() <= 89


def test_answers_and_codes_of_the_target_may_be_missing() -> None:
    answers = np.array(["yes", "no", "Don't know", "no answer"])[NUMBERS % 4]
    rows = read(csv(base().assign(y=answers)))
    assert sum("may mean a missing value" in line for line in about(rows, "y")) == 1
    setting = next(finding.setting for finding in rows.findings if finding.column == "y")
    assert read(csv(base().assign(y=answers)), **tomllib.loads(setting)).signature.target.classes == ("no", "yes")
    assert not about(read(csv(base().assign(y=np.where(NUMBERS > 9, "none", "mild")))), "y")
    amounts = [9999.0 if n == 7 else n / 7 for n in NUMBERS]
    assert 'target_na_values = ["9999.0"]' in str(about(read(csv(base().assign(y=amounts))), "y"))


UNITS = {
    "units": ([f"{n / 7:.2f} kg" if n % 3 else f"{n * 7} g" for n in range(ROWS)], "two units: kg and g", "quantity"),
    "currencies": ([f"€{n}.50" if n % 3 else f"${n}" for n in range(ROWS)], "two currencies: € and $", "money"),
    "more currencies": (
        [f"{n}.50 {('EUR', 'CHF', 'USD')[n % 3]}" for n in range(ROWS)],
        "3 currencies: EUR, CHF and USD",
        "money",
    ),
}


@pytest.mark.parametrize("case", UNITS)
@pytest.mark.parametrize("repeats", [1, 3])
def test_several_units_are_named(case: str, repeats: int) -> None:
    cells, units, number_format = UNITS[case]
    data = csv(base().assign(x=(cells[: ROWS // repeats] * repeats)))
    (line,) = about(read(data), "x")
    assert units in line
    options = {"columns": {"x": {"number_format": number_format}}}
    if number_format == "quantity":
        with pytest.raises(BadData, match=f'"x" has {units}; convert'):
            read(data, **options)
    else:
        assert number_format in line
        assert about(read(data, **options), "x") == [f"x: amounts in {units} are read as if they were one"]


def test_a_quantity_has_the_unit_of_its_cells() -> None:
    rows = read(csv(base().assign(x=[f"{n} kg" for n in range(ROWS)])), columns={"x": {"number_format": "quantity"}})
    assert rows.inputs["x"].max() == ROWS - 1
    assert not about(read(csv(base().assign(x=[f"{n}{('th', 'st')[n % 2]}" for n in range(100)] * 3))), "x")


def test_whole_numbers_unique_in_every_row_may_identify_it() -> None:
    random = np.random.default_rng(7)
    columns = {
        "respondent": random.permutation(ROWS) + 5_000,
        "income": random.choice(10**6, ROWS, replace=False),
        "docno": random.choice(10**9, ROWS, replace=False),
        "season": random.permutation(ROWS) + 1800,
        "hour": np.arange(ROWS) * 2 + 7,
    }
    rows = read(csv(base().assign(**columns)))
    assert {finding.column for finding in rows.findings if "an identifier?" in finding.message} == {"respondent", "docno"}


@pytest.mark.parametrize(
    ("name", "digits", "kind"),
    [
        ("paid_ts", 13, "date"),
        ("paidAt", 13, "date"),
        ("reading date", 16, "date"),
        ("what", 13, "integer"),
        ("paid_ts", 10, "integer"),
    ],
)
def test_long_times_since_1970_need_only_the_end_of_a_name(name: str, digits: int, kind: str) -> None:
    seconds = np.random.default_rng(8).integers(16 * 10**8, 17 * 10**8, ROWS)
    assert kinds(read(csv(base().assign(**{name: seconds * 10 ** (digits - 10)}))))[name] == kind


def test_rows_of_rare_classes_are_not_counted_as_rows_without_a_target() -> None:
    rows = read(csv(base().assign(y=["A", "B", "C"] * 98 + ["A"] * 2 + ["", "D", "D", "E"])))
    assert about(rows, "y")[-1] == "y: 1 row without a target left out: empty"
    assert "1 row without" not in str(about(read(csv(base().assign(y=["A", "B", "C"] * 99 + ["D", "D", "E"]))), "y"))


def test_missing_marks_are_counted_in_every_form_of_the_number() -> None:
    cells = [f"{n}.0" if n != 7 else "99.0" for n in NUMBERS]
    lines = about(read(csv(base().assign(x=cells)), columns={"x": {"na_values": ["99"]}}), "x")
    assert lines == [f'x: {cells.count("99.0")} cells are missing values: 99.0 [columns.x.na_values = ["99.0"]]']


def test_lines_before_the_header_are_counted_as_in_the_setting() -> None:
    rows = read(LAYOUTS["preamble"])
    assert ("3 lines before the header skipped", "reading.skip_rows = 3") in [(f.message, f.setting) for f in rows.findings]


def test_rows_without_a_target_are_reported_with_their_marks() -> None:
    rows = read(csv(base().assign(y=["A", "B", "C"] * 98 + ["N/A", "N/A", "N/A", "", "null", ""])))
    assert about(rows, "y") == ["y: 6 rows without a target left out: N/A 3, empty 2, null 1"]


def test_marks_that_the_project_sets_are_not_suggested_again() -> None:
    cells = ["see note"] * 3 + ["pending"] + [f"{number}.5" for number in range(296)]
    table = csv(base().assign(x=cells))
    (finding,) = (note for note in read(table).findings if note.column == "x")
    assert "see note" in finding.setting and "pending" not in finding.setting
    marks = {"columns": {"x": {"na_values": ["see note", "pending"]}}}
    (finding,) = (note for note in read(table, **marks).findings if note.column == "x")
    assert (finding.message, finding.setting) == ("4 cells are missing values: see note, pending", "")
