from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from podium.prediction_log import journal
from podium.prediction_log.journal import SEALED, Journal, JournalFull, finished_segments, read_segment

VERSION = ("p", "v1", "0" * 64, 3)


def append(log: Journal, cell: object = 1.5) -> str:
    return log.append(VERSION, "ann", b"digest", {"linear": [[0.25, 0.75]]}, [[cell, None, "a"]])


def test_entries_are_read_as_they_were_written_and_ids_name_them(tmp_path: Path) -> None:
    log = Journal(tmp_path, 1 << 30)
    ids = [append(log, float(number)) for number in range(20)]
    assert list(finished_segments(tmp_path)) == []
    log.seal()
    (path,) = finished_segments(tmp_path)
    entries = read_segment(path)
    assert [f"{path.stem}-{entry.number:x}" for entry in entries] == ids
    assert [entry.rows for entry in entries] == [[[float(number), None, "a"]] for number in range(20)]
    assert entries[0].version == VERSION and entries[0].scores == {"linear": [[0.25, 0.75]]}
    assert len(set(ids)) == 20


def test_a_file_is_not_finished_before_its_process_has_locked_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, finished = fcntl.flock, list[Path]()

    def look_first(file: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            finished.extend(finished_segments(tmp_path))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", look_first)
    log = Journal(tmp_path, 1 << 30)
    append(log)
    assert finished == [] and list(finished_segments(tmp_path)) == []
    log.seal()
    assert len(list(finished_segments(tmp_path))) == 1


def test_a_full_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1000)
    log = Journal(tmp_path, 1 << 30)
    ids = [append(log) for _ in range(30)] + [append(log, "x" * 5000)]
    log.seal()
    paths = list(finished_segments(tmp_path))
    assert len(paths) > 2
    assert {f"{path.stem}-{entry.number:x}" for path in paths for entry in read_segment(path)} == set(ids)


def test_a_journal_without_entries_leaves_no_file(tmp_path: Path) -> None:
    log = Journal(tmp_path, 1 << 30)
    log.seal()
    append(log)
    log.seal()
    log.seal()
    assert [path.suffix for path in tmp_path.iterdir()] == [SEALED]


def test_a_process_that_is_killed_leaves_all_its_entries(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from tests.unit.prediction_log.test_journal import *\n"
        f"log = Journal(Path({str(tmp_path)!r}), 1 << 30)\n"
        "for number in range(500): print(append(log, float(number)), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == -9
    (path,) = finished_segments(tmp_path)
    assert path.suffix == journal.OPEN
    assert [f"{path.stem}-{entry.number:x}" for entry in read_segment(path)] == result.stdout.split()


def test_an_entry_that_was_not_completed_is_left_out(tmp_path: Path) -> None:
    log = Journal(tmp_path, 1 << 30)
    for _ in range(3):
        append(log)
    log.seal()
    (path,) = finished_segments(tmp_path)
    data = path.read_bytes()
    for cut in (data[:-1], data[:-20], data[:-3] + b"xyz", data + b"\0" * 100):
        path.write_bytes(cut)
        assert len(read_segment(path)) == (3 if len(cut) > len(data) else 2)


def test_the_limit_of_all_files_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 10_000)
    log = Journal(tmp_path, 25_000)
    with pytest.raises(JournalFull, match="bytes wait"):
        for _ in range(1000):
            append(log)
    for path in finished_segments(tmp_path):
        path.unlink()
    assert append(log)  # there is room again


def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(JournalFull, match="No space left"):
        append(Journal(tmp_path, 1 << 30))
    assert list(tmp_path.iterdir()) == []
