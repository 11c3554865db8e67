"""Fields, records and problems are bounded in every input format, and the work grows linearly with the size."""

from __future__ import annotations

import json
import random
import resource
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.inference.json_rows import rows_from_json
from podium.inference.panel import forecast_rows, forecast_table
from podium.inference.parsed_rows import DEFAULT_OPTIONS, ParsedRows, ParseOptions
from podium.inference.result_tables import table_to_csv
from podium.inference.table_rows import rows_from_form, rows_from_table
from podium.schema.columns import Column, Panel, Signature, Target
from podium.schema.data_errors import MAX_REPORTED_BY_ROW, BadData, Problem
from podium.tables.frames import coerce_frame
from podium.tables.fuzzy_categories import nearest_text
from podium.tables.strict_json import decode_json

CITY = Column("c", "category", categories=("a", "b"))
SIGNATURE = Signature((Column("x", "number", low=0, high=1), CITY), Target("y", "binary", ("no", "yes")), {})
KEEP, BY_ROW = ParseOptions(keep_extra=True), ParseOptions(by_row=True)
MAX_ROWS = 1_000_000
BOTH = ParseOptions(by_row=True, keep_extra=True)


@contextmanager
def bounded(seconds: float = 5, megabytes: int = 300) -> Iterator[None]:
    """Fail if the block takes more CPU time or additional memory."""
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < megabytes * 1_000


FIELDS = {f"e{place}": 1 for place in range(20_000)}
JSON = {
    "20,000 fields": json.dumps({"x": 0.5, "c": "a", **FIELDS}).encode(),
    "a million fields": b"{" + b",".join(b'"%d":1' % place for place in range(1_000_000)) + b"}",
    "other fields in every record": json.dumps([{"x": 0.5, "c": "a", f"e{n}": 1} for n in range(50_000)]).encode(),
    "20 MB of empty lists": b"[" + b"[]," * 6_666_666 + b"[]]",
    "6 MB of empty lists": b"[" + b"[]," * 2_000_000 + b"[]]",
    "empty records": b"[" + b"{}," * 2_000_000 + b"{}]",
    "numbers": b"[" + b"1," * 3_000_000 + b"1]",
    "texts": b"[" + b'"ab",' * 3_000_000 + b'"ab"]',
    "a long array": json.dumps([[1] * 100_000]).encode(),
    "the same field": b"{" + b'"x":1,' * 100_000 + b'"x":1}',
    "deep lists": b"[" * 10_000_000,
    "deep records": b'{"a":' * 1_000_000,
    "deep lists after closing brackets in a text": b'["' + b"]" * 200_000 + b'",' + b"[" * 100_000 + b"]" * 100_001,
    "deep lists between texts": b'["]",' * 100_000 + b"]" * 100_000,
    "long integers": b"[" + b",".join([b"9" * 4_000] * 1_000) + b"]",
    "a name of a megabyte": json.dumps({"x": 0.5, "c": "a", "n" * 1_000_000: 1}).encode(),
    "names of wrong letters": json.dumps({"x": 0.5, "c": "a", "\ud800": 1, "\0": 1}).encode(),
    "a text of ten megabytes": json.dumps({"x": 0.5, "c": "a" * 10_000_000}).encode(),
}


@pytest.mark.parametrize("options", [DEFAULT_OPTIONS, KEEP, BOTH], ids=["plain", "keep", "both"])
@pytest.mark.parametrize("name", JSON)
def test_too_large_json_is_rejected_quickly(name: str, options: ParseOptions) -> None:
    with bounded():
        try:
            inputs = rows_from_json(JSON[name], SIGNATURE, MAX_ROWS, options)
        except BadData as error:
            shown = json.dumps([problem.as_json() for problem in error.problems]) + str(error)
            assert len(shown) < 100_000
            assert "n" * 300 not in shown
        else:
            assert options.by_row
            assert inputs.count == 0
            assert table_to_csv(inputs.as_table())


def test_brackets_in_strings_do_not_count_as_nesting() -> None:
    deep = b'["]",' * 400 + b"1" + b"]" * 400
    inputs = rows_from_json(b'{"x": 0.5, "c": "a", "more": ' + deep + b"}", SIGNATURE, MAX_ROWS, KEEP)
    assert inputs.as_table()["more"].to_pylist()[0].startswith('["]"')
    with pytest.raises(BadData):
        decode_json(b'["]",' * 50_000 + b"1" + b"]" * 50_000)


def extra(count: int) -> bytes:
    names, cells = [f"e{place}" for place in range(count)], ["1"] * count
    return f"{','.join(['x', 'c', *names])}\n{','.join(['0.5', 'a', *cells])}\n".encode()


def test_the_number_of_unknown_columns_is_bounded() -> None:
    with bounded():
        table = rows_from_table(extra(1_000), SIGNATURE, MAX_ROWS, KEEP).as_table()
        assert table_to_csv(table).count(b",") == 2 * 1_001
        for count in (1_001, 8_000):
            with pytest.raises(BadData) as caught:
                rows_from_table(extra(count), SIGNATURE, MAX_ROWS, KEEP)
            assert (caught.value.status, caught.value.code) == (413, "too-many-columns")
        with pytest.raises(BadData) as caught:
            rows_from_form(dict.fromkeys(FIELDS, "1"), SIGNATURE)
        assert len(caught.value.problems) == 100


def test_a_thousand_extra_json_fields_are_written_quickly() -> None:
    record = {"x": 0.5, "c": "a", **{f"e{place}": "=1" for place in range(1_000)}}
    with bounded():
        assert table_to_csv(rows_from_json(json.dumps([record] * 50).encode(), SIGNATURE, MAX_ROWS, KEEP).as_table())


def test_problems_are_bounded_if_every_cell_is_invalid() -> None:
    rows = 500_000
    with bounded(10):
        invalid = rows_from_table(b"x,c\n" + b"z,\n" * rows, SIGNATURE, MAX_ROWS, BY_ROW).invalid_rows
        assert (len(invalid), len(invalid[rows - 1]), rows in invalid) == (rows, 1, False)
        assert sum(map(len, invalid.values())) <= MAX_REPORTED_BY_ROW + rows
    few = rows_from_table(b"x,c\nz,\n1,a\n", SIGNATURE, MAX_ROWS, BY_ROW).invalid_rows
    assert {index: [(problem.row, problem.column) for problem in problems] for index, problems in few.items()} == {
        0: [(1, "x"), (1, "c")]
    }


def test_warnings_are_bounded_and_equal_for_records_and_tables() -> None:
    rows = 50_000
    records = rows_from_json(json.dumps([{"x": 9, "c": "z"}] * rows).encode(), SIGNATURE, MAX_ROWS)
    table = rows_from_table(b"x,c\n" + b"9,z\n" * rows, SIGNATURE, MAX_ROWS)
    assert len(records.warnings) == 100
    assert records.warnings == table.warnings


def test_names_in_problems_are_shortened_and_encodable() -> None:
    assert len(Problem("x", "y", column="n" * 1_000_000).column or "") < 300
    assert Problem("x", "y", column="\ud800").column == "?"


def test_many_unknown_categories_are_handled_quickly() -> None:
    generator = random.Random(1)
    words = ["".join(generator.choices(string.ascii_lowercase, k=8)) for _ in range(30_000)]
    for column in (
        Column("c", "category", categories=tuple(words[:50]), fuzzy="nearest"),
        Column("c", "category", categories=tuple(words[:20_000]), fuzzy="loose"),
    ):
        with bounded():
            coerce_frame(pa.table({"c": words}), [column])
    strict = Signature((replace(CITY, categories=tuple(words[:20_000])),), Target("y", "regression"), {})
    with bounded():
        rows_from_json(json.dumps([{"c": word} for word in reversed(words)]).encode(), strict, MAX_ROWS)


LETTERS = st.text("ab", min_size=4, max_size=7)


@given(LETTERS, LETTERS)
def test_a_misspelling_is_found_wherever_the_edit_is(one: str, other: str) -> None:
    edits = {one[:place] + one[place + 1 :] for place in range(len(one))}
    edits |= {one[:place] + letter + one[place:] for place in range(len(one) + 1) for letter in "ab"}
    edits |= {one[:place] + letter + one[place + 1 :] for place in range(len(one)) for letter in "ab"}
    edits |= {one[:place] + one[place + 1] + one[place] + one[place + 2 :] for place in range(len(one) - 1)}
    assert (nearest_text(one, [other], {other: other}) == other) == (other in edits - {one})


PANEL = Panel(
    "coin",
    "day",
    "price",
    2,
    (Column("coin", "category", categories=("a",), handle_unknown="reject"), Column("day", "date"), Column("price", "number")),
)
WINDOWS = tuple(Column(f"price {step} before", "number", nullable=True) for step in (1, 2, 3))
PANELS = Signature(WINDOWS, Target("price", "forecast"), {}, PANEL)


def all_unknown() -> ParsedRows:
    return rows_from_table(b"coin,day,price\nz,2020-01-01,1\nz,2020-01-02,2\n", PANELS, MAX_ROWS, BY_ROW)


def test_a_panel_without_known_entities_has_no_forecast() -> None:
    inputs = all_unknown()
    assert (inputs.count, inputs.total) == (0, 3)
    assert forecast_table(PANEL, inputs, {"m": []}).column("pred_price").to_pylist() == [None] * 3
    assert all(row["errors"] for row in forecast_rows(PANEL, inputs, {"m": []}))


def test_a_panel_with_too_many_windows_is_rejected() -> None:
    many = replace(PANELS, inputs=WINDOWS * 1_000_000)
    with pytest.raises(BadData) as caught:
        rows_from_table(b"coin,day,price\n" + b"a,2020-01-01,1\n" * 20, many, MAX_ROWS)
    assert caught.value.code == "too-many-rows"
