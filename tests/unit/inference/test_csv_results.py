"""Results as CSV: quotes where needed, no formulas, every kind of column, and tables of any size."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest

from podium.inference import result_tables
from podium.inference.result_tables import table_to_csv


def test_quotes_are_only_around_cells_that_need_them() -> None:
    table = pa.table({'a "b"': ["1", "x,y", None], "n": [1.5, None, 2.0], "t": ['say "hi"', "two\nlines", ""]})
    assert table_to_csv(table).decode() == '"a ""b""",n,t\n1,1.5,"say ""hi"""\n"x,y",,"two\nlines"\n,2,\n'


def test_formulas_are_escaped_unless_raw() -> None:
    table = pa.table({"=a": ["=1+1", "-5", "@x"]})
    assert table_to_csv(table).decode() == "'=a\n'=1+1\n-5\n'@x\n"
    assert table_to_csv(table, raw=True).decode() == "=a\n=1+1\n-5\n@x\n"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_every_kind_of_text_is_escaped_and_quoted(kind: pa.DataType) -> None:
    assert table_to_csv(pa.table({"a": pa.array(["=1,2"]).cast(kind)})).decode() == 'a\n"\'=1,2"\n'


def test_a_number_with_line_breaks_around_it_is_quoted() -> None:
    assert table_to_csv(pa.table({"a": ["1\n", "2"]}), numbers={"a"}).decode() == 'a\n"1\n"\n2\n'


def test_long_tables_are_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_tables, "ROWS_AT_A_TIME", 7)
    table = pa.concat_tables(
        [pa.table({"a": [f"{start + row},x" for row in range(5)], "b": list(range(5))}) for start in range(9)]
    )
    rows = list(csv.reader(io.StringIO(table_to_csv(table).decode())))
    assert rows == [["a", "b"], *([text, str(number)] for text, number in zip(*table.to_pydict().values(), strict=True))]
