"""The given network's features and forecasts against a slow reference implementation of the same rules."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from podium.importers.conversion import convert
from podium.importers.errors import ImportRefused
from podium.importers.import_request import ImportRequest
from podium.inference.panel import forecast_rows
from podium.inference.parsed_rows import ParseOptions
from podium.inference.table_rows import rows_from_text
from podium.models.golden_rows import GOLDEN, verified_fast_path, verify_golden_rows
from podium.models.model import Model
from podium.models.serialization import load
from podium.project import load_project
from podium.registry.versions import GOLDEN_FILE, model_file
from podium.settings import ROOT
from podium.tables.frames import frame_of
from podium.tables.panel import INDEX
from podium.tables.readers import read_table
from projects.crypto import stand_in
from tests.unit.importers import slow_panel as slow

Rows = list[dict[str, str]]
HEAD = next(csv.reader(["slug,symbol,name,date,ranknow,open,high,low,close,volume,market,close_ratio,spread"]))
PROJECT = load_project(ROOT / "projects", "crypto")


@dataclass(frozen=True, slots=True)
class Given:
    network: bytes
    scalers: bytes
    model: Model


def imported(network: bytes, scalers: bytes, sample: bytes) -> Given:
    result = convert(ImportRequest("model.h5", network, "network", "open", sample, project=PROJECT, scalers=scalers))
    model = load(result.files[model_file("network")])
    golden = GOLDEN.validate_json(result.files[GOLDEN_FILE])
    assert verify_golden_rows(model, golden) <= 1e-4
    assert verified_fast_path(model, golden)
    return Given(network, scalers, model)


@pytest.fixture(scope="module")
def given(shared_data: Path) -> Given:
    folder = shared_data / "crypto"
    return imported(*((folder / name).read_bytes() for name in ("model.h5", "scaler.pkl", "crypto-markets.csv")))


@pytest.fixture(scope="module")
def synthetic() -> Given:
    """A network of the same structure with other weights, for checkouts without the shared data."""
    return imported(stand_in.network(), stand_in.scalers(["BTC", "LTC", "ONE"]), text(walk("BTC", 60) + walk("LTC", 40)))


def walk(symbol: str, days: int, seed: int = 0, start: int = 1) -> Rows:
    """Return a random walk of prices over consecutive days of 2017."""
    generator = random.Random(f"{symbol}{seed}")
    rows, price = [], 100.0
    for day in range(start, start + days):
        low, high = price * generator.uniform(0.9, 1), price * generator.uniform(1, 1.1)
        close = generator.uniform(low, high)
        date = f"{(day - 1) % 28 + 1}/{(day - 1) // 28 + 1}/2017"
        cells = [symbol.lower(), symbol, symbol, date, 1, price, high, low, close, 1000, close * 1e6, 0.5, 1.0]
        rows.append(dict(zip(HEAD, map(str, cells), strict=True)))
        price = close
    return rows


def text(rows: Sequence[dict[str, str]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, HEAD, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def changed(rows: Rows, index: int, **cells: str) -> Rows:
    return [{**row, **cells} if number == index else row for number, row in enumerate(rows)]


BTC, LTC = walk("BTC", 12), walk("LTC", 9)
EDGES: dict[str, Rows] = {
    "plain": BTC + LTC,
    "high = low": changed(BTC, 4, high=BTC[4]["close"], low=BTC[4]["close"]),
    "close = 0": changed(BTC, 4, close="0"),
    "zero market": changed(BTC, 4, market="0"),
    "zero prices": changed(BTC, 4, open="0", high="0", low="0", close="0", market="0"),
    "one day of history": walk("ONE", 1) + BTC,
    "two days of history": walk("ONE", 2),
    "unsorted": [row for pair in zip(BTC[::-1], LTC + BTC[:3], strict=True) for row in pair],
    "a day twice, the last one counts": [*BTC, {**BTC[5], "open": "3", "close": "4"}],
    "gaps": BTC[:3] + BTC[7:],
    "an unknown symbol": walk("NEW", 8) + BTC,
}


def forecasts(given: Given, rows: Rows) -> list[tuple[str, int, str, float, float | None]]:
    """Return the forecasts of the service, without unknown symbols."""
    table = read_table(text(rows))
    inputs = rows_from_text(table, given.model.signature, table.num_rows, ParseOptions(by_row=True, keep_extra=False))
    panel = given.model.signature.panel
    assert panel
    rows_out = forecast_rows(panel, inputs, {"network": given.model.scores(inputs.as_frame())})
    return [(r["symbol"], r["index"], r["date"], r["prediction"], r["actual"]) for r in rows_out if "errors" not in r]


def check(given: Given, rows: Rows) -> None:
    """Compare features to float64 precision and forecasts to float32 precision."""
    expected_windows = slow.windows(rows, given.scalers)
    table = read_table(text(rows))
    inputs = rows_from_text(table, given.model.signature, table.num_rows, ParseOptions(by_row=True))
    assert inputs.keys is not None
    known = frame_of(inputs.keys).drop(index=list(inputs.invalid_rows)).reset_index(drop=True)
    matrix = given.model.encoder.transform(inputs.as_frame())[:, :-2]
    assert [*zip(known["symbol"], known[INDEX], strict=True)] == [*expected_windows]
    expected = np.array([np.ravel(window) for window in expected_windows.values()]).reshape(len(matrix), -1)
    assert np.allclose(matrix, expected, rtol=1e-12, atol=1e-9)
    actual, expected_rows = forecasts(given, rows), slow.predictions(rows, given.scalers, given.network)
    assert [row[:3] + row[4:] for row in actual] == [row[:3] + row[4:] for row in expected_rows]
    scale = max(abs(row[3]) for row in expected_rows)
    assert np.allclose([row[3] for row in actual], [row[3] for row in expected_rows], rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_match_the_reference(edge: str, synthetic: Given) -> None:
    check(synthetic, EDGES[edge])


@pytest.mark.slow
def test_the_given_network_matches_the_reference_on_real_rows(given: Given, shared_data: Path) -> None:
    with (shared_data / "crypto" / "crypto-markets.csv").open() as file:
        rows = list(csv.DictReader(file))
    check(given, rows)


def test_a_single_row_is_scored_to_the_same_bits_as_a_table(synthetic: Given) -> None:
    fast = synthetic.model.compiled()
    table = read_table(text(EDGES["plain"] + EDGES["zero prices"]))
    inputs = rows_from_text(table, synthetic.model.signature, table.num_rows)
    assert [list(fast(row)) for row in inputs.as_rows()] == synthetic.model.scores(inputs.as_frame()).tolist()


def test_no_forecast_depends_on_its_own_day_or_later_days(synthetic: Given) -> None:
    panel = synthetic.model.signature.panel
    assert panel
    rows = walk("BTC", 20)
    for day in range(1, 20):
        other = changed(rows, day, open="999", high="999", low="999", close="999", market="1")
        before, after = (forecasts(synthetic, version)[: day + 1] for version in (rows, other))
        assert [row[3] for row in before] == [row[3] for row in after]


def test_scalers_that_do_not_fit_are_refused(synthetic: Given) -> None:
    sample = text(walk("BTC", 60))
    with pytest.raises(ImportRefused, match="--scalers"):
        convert(ImportRequest("model.h5", synthetic.network, "network", "open", sample, project=PROJECT))
    with pytest.raises(ImportRefused, match="needs two days of an entity"):
        request = ImportRequest(
            "model.h5", synthetic.network, "network", "open", sample, project=PROJECT, scalers=stand_in.scalers(["XYZ"])
        )
        convert(request)
    with pytest.raises(ImportRefused, match="wrong structure"):
        convert(
            ImportRequest("model.h5", synthetic.network, "network", "open", sample, project=PROJECT, scalers=b"\x80\x02}q\x00.")
        )
