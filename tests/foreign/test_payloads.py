"""Malicious files: armed, as a careless loader shows, and yet nothing of them ever runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from podium.foreign.importing import Wish, turn, turn_in_a_child
from podium.foreign.refusal import Refusal
from tests.foreign.payloads import MAKERS, payloads


def markers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.timeout(120)
def test_every_payload_is_armed(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.foreign.payloads", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert markers(tmp_path) >= MAKERS.keys()
    assert len(MAKERS) > 50


@pytest.mark.parametrize("name", MAKERS)
def test_no_payload_runs(name: str, tmp_path: Path) -> None:
    """In this very process, without the child and its limits: the look through the names is enough."""
    data = MAKERS[name](str(tmp_path / name))
    before = markers(tmp_path)
    with pytest.raises(Refusal):
        turn(Wish(f"{name}.pkl", data, "m", "y"))
    assert markers(tmp_path) == before


def test_a_refusal_names_what_the_file_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"asks for posix\.system, which no list allows"):
        turn(Wish("x.pkl", payloads(tmp_path)["os-system"], "m", "y"))
    with pytest.raises(Refusal, match="the formula computes something"):
        turn(Wish("x.pkl", payloads(tmp_path)["statsmodels-formula"], "m", "y"))


@pytest.mark.timeout(120)
def test_even_what_an_operator_allowed_by_mistake_can_do_nothing(tmp_path: Path) -> None:
    """The second wall: a child that may not write, start programs or reach a network."""
    mistake = tmp_path / "allowed"
    mistake.write_text("posix system\nbuiltins exec\n_io open\nposix mkdir\n")
    folder = tmp_path / "markers"
    folder.mkdir()
    for name in ("os-system", "exec", "io-open", "mkdir"):
        with pytest.raises(Refusal):
            turn_in_a_child(Wish("x.pkl", MAKERS[name](str(folder / name)), "m", "y", allowed=mistake), 30)
    assert markers(folder) == set()


@pytest.mark.timeout(120)
def test_a_file_that_ends_its_process_is_refused(tmp_path: Path) -> None:
    mistake = tmp_path / "allowed"
    mistake.write_text("posix _exit\n")
    with pytest.raises(Refusal, match="ended without an answer"):
        turn_in_a_child(Wish("x.pkl", b"cposix\n_exit\n(I3\ntR.".replace(b"c", b"\x80\x02c", 1), "m", "y", allowed=mistake), 30)
