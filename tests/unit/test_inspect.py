"""`podium projects inspect` shows how a table would be read and writes a project file that trains."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from moto import mock_aws

from podium.cli.check_project import header
from podium.cli.inspect_table import CHANGES, CONFIRMS, inspect_table
from podium.cli.main import podium
from podium.project import BadProject, Project, load_project, parse_project
from podium.storage.object_store import Store
from podium.training.preparation import prepare_table
from podium.training.reading import read_options, read_training_table
from tests.unit.training.test_field_tables import CASES, ROWS, base, csv, excel_german, shop_rows


def inspect(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(podium, ["projects", "inspect", *arguments])
    return result.exit_code, result.output


def test_a_table_is_described_with_its_findings(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(excel_german())
    status, text = inspect(str(path))
    assert status == 0
    for line in (
        "300 rows; binary of y: no (156), yes (144)",
        "number",
        "the delimiter is a semicolon",
        'reading.encoding = "windows-1252"',
    ):
        assert line in text


def test_a_project_file_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path / "projects"))
    path = tmp_path / "orders.csv"
    path.write_text(base().to_csv(index=False))
    assert inspect(str(path), "--target", "a", "--write", "orders")[0] == 0
    assert load_project(tmp_path / "projects", "orders").target == "a"
    status, text = inspect(str(path), "--write", "orders")
    assert status != 0 and "exists" in text


@pytest.mark.parametrize("name", ["../evil", "Two words", "größe", "", "a" * 65, "a\n"])
def test_an_invalid_name_is_refused_before_the_table_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path / "projects"))
    status, text = inspect(str(tmp_path / "absent.csv"), "--write", name)
    assert status == 1 and "lower-case letters, digits and hyphens, such as house-prices" in text
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadProject, match="lower-case letters"):
        load_project(tmp_path, name)


@pytest.mark.parametrize("target", ["y", 'the "y"\u2028\x7f\nseed = 1'])
def test_names_with_control_characters_break_neither_the_table_nor_the_file(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path / "projects"))
    name = "line\nseed = 7\x1b[31m\x7f\u202e"
    frame = base().rename(columns={"a": name, "y": target}).astype({name: object})
    frame.loc[[3, 4], name] = "n/a"
    frame["b"] = ["first\nsecond", "\x1b[31mred"] * (len(frame) // 2)
    path = tmp_path / "odd\nname.csv"
    path.write_text(frame.to_csv(index=False))
    status, text = inspect(str(path), "--target", target, "--write", "odd")
    assert status == 0 and not set(text) & set("\x1b\x7f\u202e\u2028")
    assert not [line for line in text.splitlines() if line.startswith("seed")]
    project = load_project(tmp_path / "projects", "odd")
    assert (project.seed, project.target, project.columns) == (0, target, {})
    file = tmp_path / "projects" / "odd" / "project.toml"
    file.write_text(file.read_text().replace("# columns.", "columns."))
    assert name in load_project(tmp_path / "projects", "odd").columns


def test_settings_that_a_project_has_are_not_offered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path / "projects"))
    path = tmp_path / "orders.csv"
    frame = base().assign(paid=[["yes", "No", "TRUE", "0"][n % 4] for n in range(ROWS)])
    frame["a"] = ["n/a", "once", *frame["a"][2:]]
    path.write_text(frame.to_csv(index=False, sep=";", decimal=","))
    status, text = inspect(str(path), "--target", "y", "--write", "orders")
    assert (status, "read as true (true, yes) or false (0, no)" in text, "paid  boolean" in text) == (0, True, True)
    file = tmp_path / "projects" / "orders" / "project.toml"
    settings = re.sub("(?m)^# (?=[a-z.]+ =)|^# (?=columns)", "", file.read_text())
    file.write_text(
        "\n".join(line for line in settings.splitlines() if ".kind" not in line) + '\ncolumns.paid.kind = "boolean"\n'
    )
    status, text = inspect(str(path), "--project", "orders")
    assert (status, text.strip().splitlines()[-1]) == (0, "Nothing to add to project.toml"), text


def test_without_the_store_the_way_to_read_a_copy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "project.toml").write_text('data = "s3://podium/orders.csv"\ntarget = "y"\n')
    for arguments in (["inspect"], ["check"]):
        result = CliRunner().invoke(podium, ["projects", *arguments, "orders"])
        assert "podium projects inspect FILE --project orders" in result.output


def noisy() -> pd.DataFrame:
    """Return a table with something to say about every column."""
    frame, numbers = base(), np.random.default_rng(3).permutation(ROWS)
    days = pd.Series(pd.date_range("2026-01-01", periods=12).repeat(ROWS // 12))
    frame["user id"] = numbers + 1000
    frame["email"] = [f"person{n}@example.org" for n in numbers]
    frame["big"] = [f"{1_234_567_890_123_456_789 + n * 7}" for n in numbers]
    frame["row"] = range(ROWS)
    frame["mostly"] = ["", *["5"] * 3, *[""] * (ROWS - 4)]
    frame["dash"] = [*["n/a"] * 20, "see note", *numbers[21:]]
    frame["grouped"] = [f"{n % 9 + 1},{n % 900 + 100}" for n in numbers]
    frame["price"] = [f"${n:,}.50" for n in numbers]
    frame["cost"] = [*["on request"] * 3, *(f"€{n}" for n in numbers[3:])]
    frame["share"] = [f"{n % 100}%" for n in numbers]
    frame["weight"] = [f"{n} kg" for n in numbers]
    frame["salary"] = [f"{n}k" for n in numbers]
    frame["comma"] = [f"{n},5" for n in numbers]
    frame["when"] = ["unknown", "about May", *days.dt.strftime("%m/%d/%Y")[2:]]
    frame["day"] = (days + pd.Timedelta(days=20)).dt.strftime("%d.%m.%Y").to_list()
    frame["odd"] = ["see note" if n % 9 == 0 else "once" if n == 1 else str(n % 10) for n in range(ROWS)]
    frame["city"] = [["Rome", "rome", "Oslo", "OSLO "][n % 4] for n in numbers]
    frame["review"] = [f"a long text about number {n} and some more words" for n in numbers]
    return frame


SUGGESTING = {
    "inputs": csv(noisy()),
    "a semicolon": csv(noisy().drop(columns="price"), sep=";"),
    "decimal commas": csv(noisy(), sep=";", decimal=","),
    "windows-1252 and lines before the header": "Verkäufe;;;\n\nJahr;2026;;\n".encode("windows-1252") + excel_german(),
    "a target of whole numbers": csv(base().assign(y=range(ROWS)).assign(y=lambda frame: frame["y"] % 7)),
    "a target of amounts": csv(base().assign(y=[f"{n % 9 + 1},{n + 100}" for n in range(ROWS)])),
    "rare classes": csv(base().assign(y=["A", "B", "C"] * 98 + ["D"] * 3 + ["E", "E", "F"])),
    "classes of one row": csv(base().assign(y=["A", "B", "C"] * 99 + ["D", "E", "F"])),
    "spellings of classes": csv(base().assign(y=["yes", "Yes", "no"] * 100)),
    "only a text": csv(noisy()[["review", "y"]]),
    "a sep line": b"sep=^\n" + csv(base(), sep="^"),
}


@pytest.mark.parametrize("table", SUGGESTING)
def test_every_suggested_setting_works_when_pasted(table: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(SUGGESTING[table])
    file = inspect_table(str(path), "y").project_file
    lines = file.splitlines()
    suggested = [number for number, line in enumerate(lines) if re.match(r"# [a-z_]+(\.[^ ]+)* = ", line)]
    assert suggested
    for number in suggested:
        pasted = "\n".join(line.removeprefix("# ") if place == number else line for place, line in enumerate(lines))
        project = parse_project({"name": "t", **tomllib.loads(pasted)}, "project.toml")
        prepare_table(read_training_table(path.read_bytes(), project, "t.csv"), project)
    everything = "\n".join(line.removeprefix("# ") if place in suggested else line for place, line in enumerate(lines))
    tomllib.loads(everything)


def test_a_suggestion_changes_how_the_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(csv(noisy()))
    file = inspect_table(str(path), "y").project_file
    for setting in (
        'columns."user id".kind = "integer"',
        'columns.email.kind = "category"',
        "cleaning.max_missing_fraction = 1",
        'columns.dash.na_values = ["n/a"]',
        'columns.cost.na_values = ["on request"]',
        'reading.decimal = ","',
        'columns.share.number_format = "percent"',
        'columns.salary.number_format = "quantity"',
        'columns.when.date_format = "%d/%m/%Y"',
        'columns.odd.na_values = ["see note"]',
        'columns.city.fuzzy = "exact"',
    ):
        assert f"\n# {setting}  # " in file, file


def test_the_written_project_names_the_bucket_and_a_guessed_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_BUCKET", "ours")
    path = tmp_path / "t.csv"
    path.write_bytes(csv(base()))
    _, guessed = inspect(str(path))
    assert "The target is a guess" in guessed and '\ntarget = "y"  # a guess\n' in guessed
    assert '\ndata = "s3://ours/raw/t.csv"  # upload t.csv to this URL\n' in guessed
    assert "\nNothing was changed or left out\n" in guessed
    _, given = inspect(str(path), "--target", "y")
    assert "guess" not in given


def test_all_counts_are_those_of_the_rows_that_are_used(tmp_path: Path) -> None:
    frame = base().astype({"a": object})
    frame.loc[[3, 4, 5], "a"] = "n/a"
    frame.loc[[4, 5], "y"] = ""
    frame.loc[5, "c"], frame.loc[4, "b"] = "violet", 1_000_000
    (tmp_path / "t.csv").write_text(frame.to_csv(index=False))
    inspection = inspect_table(str(tmp_path / "t.csv"), "y")
    facts = {str(column["name"]): column for column in inspection.columns}
    assert (inspection.rows, facts["a"]["missing"]) == (298, round(1 / 298, 6))
    assert "violet" not in str(facts["c"]["values"]) and facts["c"]["distinct"] == base()["c"].nunique()
    assert "1e+06" not in str(facts["b"]["values"])
    assert "1 cell is a missing value: n/a" in [finding.message for finding in inspection.findings]


def test_problems_of_all_columns_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path))
    frame = base().astype({"a": object, "b": object})
    frame.loc[:60, ["a", "b"]] = "not measured"
    (tmp_path / "t.csv").write_text(frame.to_csv(index=False))
    path = str(tmp_path / "t.csv")
    status, text = inspect(path, "--target", "y", "--write", "measured")
    assert status == 3 and 'columns.a.kind = "category"' in text and 'columns.b.kind = "category"' in text
    assert re.search(r"\na +number +20\.3%", text) and re.search(r"\nc +category", text)
    assert '\ncolumns.a.na_values = ["not measured"]  # a: is numbers, except for 20% of its cells' in text
    assert load_project(tmp_path, "measured").columns["b"].na_values == ("not measured",)
    assert inspect(path, "--project", "measured")[0] == 0
    assert inspect(str(tmp_path / "absent.csv"))[0] != 0


def test_columns_are_shown_although_the_target_cannot_be_predicted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv(base().assign(name=[f"Person {n}" for n in range(ROWS)])))
    status, text = inspect(str(tmp_path / "t.csv"), "--target", "name")
    assert status == 3 and "like a name" in text and re.search(r"\nb +integer", text)


def test_settings_that_confirm_are_apart_from_those_that_change(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(csv(noisy().assign(leak=lambda f: np.where(f["y"] == "yes", f["b"] + 0.5, 0))))
    start, _, rest = inspect_table(str(path), "y").project_file.partition(CHANGES)
    changes, _, confirms = rest.partition(CONFIRMS)
    assert "columns." not in start
    for setting in ('email.kind = "category"', 'when.date_format = "%d/%m/%Y"', 'city.fuzzy = "exact"', "leak.ignore = true"):
        assert f"# columns.{setting}" in changes
    for setting in (
        'share.number_format = "percent"',
        'day.date_format = "%d.%m.%Y"',
        'dash.na_values = ["n/a"]',
        'review.kind = "text"',
    ):
        assert f"# columns.{setting}" in confirms


PANEL = 'data = "s3://podium/raw/shops.csv"\ntarget = "sold"\npanel = { entity = "shop", time = "when", lags = 3 }\n'


def test_a_project_is_inspected_and_checked_as_it_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    frame = base().astype({"a": object})
    frame.loc[:60, "a"] = "not measured"
    tables = {"shops.csv": csv(shop_rows("D")), "t.csv": csv(frame)}
    files = {"shops": PANEL, "t": 'data = "s3://podium/raw/t.csv"\ntarget = "y"\n'}
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "project.toml").write_text(text)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="podium")
        for name, data in tables.items():
            client.put_object(Bucket="podium", Key=f"raw/{name}", Body=data)
        status, text = inspect("shops")
        assert status == 0 and "forecast of sold" in text and re.search(r"\nwhen +date", text)
        status, text = inspect("t")
        assert status == 3 and 'columns.a.na_values = ["not measured"]' in text
        result = CliRunner().invoke(podium, ["projects", "check", "t", "shops"])
        assert result.exit_code == 1 and '"a" is numbers, except for 20%' in result.output and "shops: valid\n" in result.output
        assert CliRunner().invoke(podium, ["projects", "check"]).exit_code == 0
        assert inspect("t", "--write", "other")[0] == inspect("t", "--target", "a")[0] == 2


def test_json_has_the_same_content(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(excel_german())
    status, text = inspect(str(tmp_path / "t.csv"), "--json")
    document = json.loads(text)
    assert status == 0 and document["rows"] == 300
    assert [column["name"] for column in document["columns"]] == ["a", "b", "c"]
    assert document["columns"][0]["missing"] == 0 and document["target_is_guessed"]
    assert document["findings"][0]["setting"] == 'reading.encoding = "windows-1252"'


def test_each_project_is_reported_with_its_own_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("PODIUM_PROJECTS", str(tmp_path))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "project.toml").write_text(f'data = "s3://podium/raw/{name}.csv"\ntarget = "y"\n')
    lines = CliRunner().invoke(podium, ["projects", "check"]).output.splitlines()
    for name, line in zip(("one", "two"), lines, strict=True):
        assert f"s3://podium/raw/{name}.csv: Unable to locate credentials" in line


def test_a_url_without_a_key_is_refused_in_words() -> None:
    status, text = inspect("s3://podium")
    assert status == 1 and "an s3:// URL has a bucket and a key" in text


@pytest.mark.skipif(not CASES.exists(), reason="the field cases are not beside the project")
@pytest.mark.parametrize("name", ["excel_na.csv", "units.csv", "semicolon_decimal_comma.csv", "big_id.csv", "pq_list.parquet"])
def test_field_cases_are_described(name: str) -> None:
    status, text = inspect(str(next(CASES.glob(f"*/{name}"))))
    assert status == 0 and "What was read, changed and left out" in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "windows-1252"])
def test_the_header_of_a_long_table_is_read_from_its_start(encoding: str) -> None:
    text = "größe,y\n" + "ü,1\n" * 1_000_000
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="podium")
        client.put_object(Bucket="podium", Key="t.csv", Body=text.encode(encoding))
        project = Project(name="x", data="s3://podium/t.csv", target="y")
        assert header(Store(client, "podium"), "t.csv", read_options(project, "t.csv")) == ["größe", "y"]
