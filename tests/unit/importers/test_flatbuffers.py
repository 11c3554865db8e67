"""FlatBuffers are read within their bounds."""

from __future__ import annotations

import struct

import pytest

from podium.importers.flatbuffers import FlatBuffer


def test_a_table_that_is_shared_too_often_is_refused() -> None:
    """A short list of offsets to one long vector would be a large model."""
    vector = struct.pack("<I", 1000) + b"\0" * 1000
    table = struct.pack("<HHHH", 6, 8, 4, 0) + struct.pack("<iI", 8, 4) + vector
    offsets = struct.pack("<I", 500) + b"".join(struct.pack("<I", 4 * (500 - number) + 8) for number in range(500))
    data = struct.pack("<I", 16) + struct.pack("<HHHH", 6, 8, 4, 0) + b"\0" * 4 + struct.pack("<iI", 12, 4) + offsets + table
    tables = FlatBuffer(data).root().tables(0)
    assert len(tables) == 500
    assert tables[0].text(0) == "\0" * 1000
    with pytest.raises(ValueError, match="the buffer is damaged"):
        for shared in tables:
            shared.text(0)


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, struct.pack("<Ii", 4, 1000), struct.pack("<Ii", 4, -(2**31))])
def test_positions_outside_of_the_buffer_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="the buffer is damaged"):
        FlatBuffer(data).root().text(0)


def test_absent_fields_are_empty() -> None:
    table = FlatBuffer(struct.pack("<IHHi", 8, 4, 4, 4)).root()
    assert (table.text(3), table.tables(0), table.texts(1), table.number(9, "i", -1)) == ("", [], [], -1)
    with pytest.raises(ValueError, match="a table is missing"):
        table.table(0)
