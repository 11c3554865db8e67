"""Fields, records and problems are bounded in every form of input, and the work grows with its size and not faster."""

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

from podium.inference.panel import forecast_rows, forecast_table
from podium.inference.request_rows import (
    DEFAULT_OPTIONS,
    ParsedRows,
    ParseOptions,
    rows_from_form,
    rows_from_json,
    rows_from_table,
)
from podium.inference.result_tables import table_to_csv
from podium.schema.columns import Column, Panel, Signature, Target
from podium.schema.data_errors import MAX_REPORTED_BY_ROW, BadData, Problem
from podium.tables.frames import coerce_frame
from podium.tables.fuzzy_categories import nearest_text
from podium.tables.strict_json import decode_json

CITY = Column("c", "category", categories=("a", "b"))
SIGNATURE = Signature((Column("x", "number", low=0, high=1), CITY), Target("y", "binary", ("no", "yes")), {})
KEEP, BY_ROW = ParseOptions(keep_extra=True), ParseOptions(by_row=True)
MOST = 1_000_000
BOTH = ParseOptions(by_row=True, keep_extra=True)


@contextmanager
def quick(seconds: float = 5, megabytes: int = 300) -> Iterator[None]:
    """Fails when the block takes much longer on the processor, or much more memory than there was before."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes * 1_000


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


@pytest.mark.parametrize("asked", [DEFAULT_OPTIONS, KEEP, BOTH], ids=["plain", "keep", "both"])
@pytest.mark.parametrize("name", JSON)
def test_json_is_refused_in_little_time(name: str, asked: ParseOptions) -> None:
    with quick():
        try:
            inputs = rows_from_json(JSON[name], SIGNATURE, MOST, asked)
        except BadData as error:
            shown = json.dumps([problem.as_json() for problem in error.problems]) + str(error)
            assert len(shown) < 100_000
            assert "n" * 300 not in shown
        else:
            assert asked.by_row
            assert inputs.count == 0
            assert table_to_csv(inputs.as_table())


def test_brackets_in_texts_are_no_nesting_for_the_decoder() -> None:
    deep = b'["]",' * 400 + b"1" + b"]" * 400
    inputs = rows_from_json(b'{"x": 0.5, "c": "a", "more": ' + deep + b"}", SIGNATURE, MOST, KEEP)
    assert inputs.as_table()["more"].to_pylist()[0].startswith('["]"')
    with pytest.raises(BadData):
        decode_json(b'["]",' * 50_000 + b"1" + b"]" * 50_000)


def extra(count: int) -> bytes:
    names, cells = [f"e{place}" for place in range(count)], ["1"] * count
    return f"{','.join(['x', 'c', *names])}\n{','.join(['0.5', 'a', *cells])}\n".encode()


def test_columns_that_the_model_does_not_know_are_bounded() -> None:
    with quick():
        table = rows_from_table(extra(1_000), SIGNATURE, MOST, KEEP).as_table()
        assert table_to_csv(table).count(b",") == 2 * 1_001
        for count in (1_001, 8_000):
            with pytest.raises(BadData) as caught:
                rows_from_table(extra(count), SIGNATURE, MOST, KEEP)
            assert (caught.value.status, caught.value.code) == (413, "too-many-columns")
        with pytest.raises(BadData) as caught:
            rows_from_form(dict.fromkeys(FIELDS, "1"), SIGNATURE)
        assert len(caught.value.problems) == 100


def test_a_thousand_kept_fields_of_json_are_written_in_little_time() -> None:
    record = {"x": 0.5, "c": "a", **{f"e{place}": "=1" for place in range(1_000)}}
    with quick():
        assert table_to_csv(rows_from_json(json.dumps([record] * 50).encode(), SIGNATURE, MOST, KEEP).as_table())


def test_every_cell_may_be_wrong() -> None:
    rows = 500_000
    with quick(10):
        bad = rows_from_table(b"x,c\n" + b"z,\n" * rows, SIGNATURE, MOST, BY_ROW).bad
        assert (len(bad), len(bad[rows - 1]), rows in bad) == (rows, 1, False)
        assert sum(map(len, bad.values())) <= MAX_REPORTED_BY_ROW + rows
    few = rows_from_table(b"x,c\nz,\n1,a\n", SIGNATURE, MOST, BY_ROW).bad
    assert {place: [(each.row, each.column) for each in found] for place, found in few.items()} == {0: [(1, "x"), (1, "c")]}


def test_warnings_are_bounded_and_the_same_for_records_and_tables() -> None:
    rows = 50_000
    records = rows_from_json(json.dumps([{"x": 9, "c": "z"}] * rows).encode(), SIGNATURE, MOST)
    table = rows_from_table(b"x,c\n" + b"9,z\n" * rows, SIGNATURE, MOST)
    assert len(records.warnings) == 100
    assert records.warnings == table.warnings


def test_names_in_problems_are_short_and_can_be_written() -> None:
    assert len(Problem("x", "y", column="n" * 1_000_000).column or "") < 300
    assert Problem("x", "y", column="\ud800").column == "?"


def test_many_texts_that_are_no_category_take_little_time() -> None:
    generator = random.Random(1)
    words = ["".join(generator.choices(string.ascii_lowercase, k=8)) for _ in range(30_000)]
    for column in (
        Column("c", "category", categories=tuple(words[:50]), fuzzy="nearest"),
        Column("c", "category", categories=tuple(words[:20_000]), fuzzy="loose"),
    ):
        with quick():
            coerce_frame(pa.table({"c": words}), [column])
    strict = Signature((replace(CITY, categories=tuple(words[:20_000])),), Target("y", "regression"), {})
    with quick():
        rows_from_json(json.dumps([{"c": word} for word in reversed(words)]).encode(), strict, MOST)


LETTERS = st.text("ab", min_size=4, max_size=7)


@given(LETTERS, LETTERS)
def test_a_misspelling_is_found_wherever_its_mistake_is(one: str, other: str) -> None:
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
    return rows_from_table(b"coin,day,price\nz,2020-01-01,1\nz,2020-01-02,2\n", PANELS, MOST, BY_ROW)


def test_a_panel_without_a_known_entity_has_no_forecast() -> None:
    inputs = all_unknown()
    assert (inputs.count, inputs.total) == (0, 3)
    assert forecast_table(PANEL, inputs, {"m": []}).column("pred_price").to_pylist() == [None] * 3
    assert all(row["errors"] for row in forecast_rows(PANEL, inputs, {"m": []}))


def test_a_panel_whose_windows_are_too_many_is_refused() -> None:
    many = replace(PANELS, inputs=WINDOWS * 1_000_000)
    with pytest.raises(BadData) as caught:
        rows_from_table(b"coin,day,price\n" + b"a,2020-01-01,1\n" * 20, many, MOST)
    assert caught.value.code == "too-many-rows"
