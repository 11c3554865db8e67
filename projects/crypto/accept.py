"""Next open of coins: a given network in service, a history from daily files, and forecasters that learn from it."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from podium.local.acceptance import AcceptanceEnvironment, to_csv
from podium.settings import ROOT
from podium.storage.object_store import NotFound
from projects.crypto import scale, stand_in
from projects.crypto.market import COLUMNS, daily, market, names
from projects.crypto.page import COLUMNS as SHOWN
from projects.crypto.page import page, read

GIVEN = Path(os.environ.get("CRYPTO_GIVEN", ROOT.parent / "shared" / "data" / "crypto"))
SCALED = ["ANC", "BITS", "BTB", "BTC", "BTM", "CBX", "DGC", "FAIR", "FTC", "GLD", "IXC", "LTC", "NMC", "NVC", "PPC", "PXC",
          "TRC", "WDC", "XPM", "XRP"]  # fmt: skip
"""The symbols that the given scalers know."""
TEST, PRED = "drop/crypto.csv", "drop/crypto-predictions.csv"
SIZES = (2_500, 10_000)


def accept(scene: AcceptanceEnvironment) -> None:
    network, scalers, history = _given(scene)
    facts = scene.import_and_promote(
        network, "the network that was given", "--scalers", str(scalers), "--sample", str(history)
    )["data"]
    scene.check(
        facts["kind"] == "Keras" and facts["largest_difference"] < 1e-3,
        f"the network and its scalers, imported: as Keras 2's formulas on {facts['compared']} windows, to "
        f"{facts['largest_difference']:.1g}",
    )
    scene.serve()
    _dropped(scene, history)
    _fast(scene, history)
    _collected(scene, pd.read_csv(history, dtype=str, keep_default_na=False))
    _equal(scene)
    _weekly(scene)
    scene.record_summary(
        "44 coins, 29,998 days" if GIVEN.exists() else "made up, 44 coins", _last_days(market(["BTC"], 7, date(2018, 1, 1)))
    )
    _grown(scene)


def _given(scene: AcceptanceEnvironment) -> tuple[Path, Path, Path]:
    """The given files, or what stands in for them."""
    if GIVEN.exists():
        scene.figure("given", "model.h5, scaler.pkl, crypto-markets.csv as they came")
        return GIVEN / "model.h5", GIVEN / "scaler.pkl", GIVEN / "crypto-markets.csv"
    scene.figure("given", "not here: a network of the same form with made-up weights, and a made-up market")
    made = {"model.h5": stand_in.network(), "scaler.pkl": stand_in.scalers(SCALED)}
    made["crypto-markets.csv"] = market([*SCALED, *names(24)], 680, date(2017, 1, 1)).to_csv(index=False).encode()
    for name, data in made.items():
        (scene.folder / name).write_bytes(data)
    return scene.folder / "model.h5", scene.folder / "scaler.pkl", scene.folder / "crypto-markets.csv"


def _receipt(scene: AcceptanceEnvironment) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(scene.context.store.read(f"{PRED}.receipt.json").data)
    except NotFound:
        return {}
    return found


def _answered(scene: AcceptanceEnvironment, data: bytes) -> tuple[float, dict[str, Any]]:
    """Put a table at input_url; seconds until its receipt lies at output_url, and the receipt."""
    started = time.perf_counter()
    scene.put(TEST, data)
    state = scene.context.store.etag(TEST)
    scene.client.wait_until(lambda: _receipt(scene).get("etag") == state, 60)
    return time.perf_counter() - started, _receipt(scene)


def _dropped(scene: AcceptanceEnvironment, history: Path) -> None:
    """input_url to output_url, which a Bokeh page reads from S3."""
    seconds, receipt = _answered(scene, history.read_bytes())
    table = pd.read_csv(io.BytesIO(scene.context.store.read(PRED).data))
    scene.check(
        list(table.columns) == SHOWN, f"output_url holds {','.join(SHOWN)}: {len(table):,} rows {seconds:.2f} s after the put"
    )
    unknown = table[~table["symbol"].isin(SCALED)]
    scene.check(
        bool(unknown["pred_open"].isna().all()) and receipt["not_predicted"] == len(unknown),
        f"{unknown['symbol'].nunique()} symbols without scalers: no forecast, and the receipt says so",
    )
    known = table[table["symbol"].isin(SCALED)]
    ahead = known[known["val_open"].isna()]
    scene.check(
        bool(known["pred_open"].notna().all()) and len(ahead) == known["symbol"].nunique(),
        "every day of the others is forecast, and the one after their last",
    )
    for name, value in scene.cloud.variables.items():
        os.environ[name] = value
    html = page(read(f"s3://{scene.context.store.bucket}/{PRED}"), "Next open: predicted and actual")
    (scene.folder / "page.html").write_text(html)
    scene.check("pred_open" in html and "https://" not in html.split("<body")[0], f"a Bokeh page reads it: {len(html):,} bytes")


def _last_days(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON."""
    numbers = [name for name in COLUMNS if name not in ("slug", "symbol", "name", "date")]
    found: list[dict[str, Any]] = rows.assign(**{name: rows[name].astype(float) for name in numbers}).to_dict("records")
    return found


def _fast(scene: AcceptanceEnvironment, history: Path) -> None:
    """30,000 rows of symbols that the network knows, end to end; and the next open of one."""
    many = market(SCALED, 1_500, date(2014, 1, 1))
    body = many.to_csv(index=False).encode()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        answer = scene.client.post(f"{scene.path}.csv", body, {"content-type": "text/csv"})
        times.append(time.perf_counter() - started)
    lines = len(answer.body.splitlines()) - 1
    scene.figure("seconds_of_30000_rows", min(times))
    scene.check(
        lines == 30_020 and min(times) < 2,
        f"{len(many):,} rows of 20 symbols by HTTP: {lines:,} forecasts in {min(times):.2f} s",
    )
    rows = pd.read_csv(history)
    week = _last_days(rows[rows["symbol"] == "BTC"].tail(6))
    said = scene.client.post_json(scene.path, week).json()["predictions"]
    ms = scene.latency(week)
    scene.figure("milliseconds_of_one_symbols_next_open", ms)
    scene.check(
        said[-1]["actual"] is None and len(said) == 7, f"six days of BTC: the next open, {said[-1]['step']:.2f}, in {ms:.1f} ms"
    )


def _collected(scene: AcceptanceEnvironment, history: pd.DataFrame) -> None:
    """The history as one file, then a file a day: late, doubled and corrected ones."""
    days = pd.to_datetime(history["date"], format="%d/%m/%Y")
    cut = days.max() - pd.Timedelta(days=27)
    scene.put("raw/crypto/until.csv", history[days <= cut].to_csv(index=False).encode())
    files = list(daily(history[days > cut]))
    for day, data in [*files[:8], *files[9:]]:
        scene.put(f"raw/crypto/{day}.csv", data)
    scene.put(f"raw/crypto/{files[3][0]}-again.csv", files[3][1])
    scene.figure("collect_seconds", scene.train("Ingest"))
    scene.put(f"raw/crypto/{files[8][0]}.csv", files[8][1])  # late
    wrong = files[10][1].replace(b"BTC,", b"XBT,")  # corrected below
    scene.put(f"raw/crypto/{files[10][0]}.csv", wrong)
    scene.put("raw/crypto/broken.csv", b"symbol,date\nBTC,yesterday\n")
    scene.figure("collect_again_seconds", scene.train("Ingest"))
    scene.put(f"raw/crypto/{files[10][0]}.csv", files[10][1])
    scene.figure("pipeline_seconds", scene.train())
    manifest = scene.manifest()
    read_back = manifest["data"]["rows"]
    symbols = history["symbol"].nunique()
    scene.check(
        read_back == len(history) - symbols,
        f"{read_back:,} days with a day before, of {len(history):,} rows: late, doubled, corrected and broken files told apart",
    )
    board = pd.read_csv(io.BytesIO(scene.context.store.read(f"versions/crypto/{manifest['version']}/comparison.csv").data))
    ranking = ", ".join(f"{row.rank} {row.model} {-row.score_test:.4f}" for row in board.itertuples())
    scene.check(
        {"persistence"} < set(board["model"]) and bool(board["model"].str.contains("serves").any()),
        f"on the same {board['rows'].iloc[0]:,} days, mean absolute change missed: {ranking}",
    )
    scene.check(manifest["champion"] != "model", f"champion now: {manifest['champion']}, trained here")


def _equal(scene: AcceptanceEnvironment) -> None:
    """The same rows by CSV, JSON, form, one symbol by one, over Dask or not: the same forecasts."""
    scene.client.wait_until(
        lambda: scene.client.get("/projects/crypto/schema").json()["x-version"] == scene.manifest()["version"], 30
    )
    rows = market(["BTC", "LTC", "NEW"], 9, date(2018, 1, 1)).drop(columns=["slug", "name", "close_ratio", "spread", "ranknow"])
    texts = rows.astype(str).to_dict("records")
    headers = {"accept": "application/json"}

    def said(body: bytes, media: str) -> list[Any]:
        found: list[Any] = scene.client.post(f"{scene.path}?models=all", body, {"content-type": media, **headers}).json()[
            "predictions"
        ]
        return found

    numbers = [name for name in rows if name not in ("symbol", "date")]
    records = [{**row, **{name: float(row[name]) for name in numbers}} for row in texts]
    together = said(json.dumps(records).encode(), "application/json")
    by_csv = said(to_csv(texts), "text/csv")
    form = scene.client.post_form(f"{scene.path}.json?models=all", {"rows": to_csv(texts).decode()}).json()["predictions"]
    alone = [
        one
        for name in ("BTC", "LTC", "NEW")
        for one in said(to_csv([r for r in texts if r["symbol"] == name][-9:]), "text/csv")
    ]
    scene.check(
        together == by_csv == form == alone and len(together) == 30,
        "27 rows as JSON, CSV, form, together over Dask and symbol by symbol: the same bits, of a new symbol too",
    )


def _weekly(scene: AcceptanceEnvironment) -> None:
    """Weekly retraining as a range: each week a receipt; an older week never moves production back."""
    last = date.fromisoformat(scene.manifest()["data"]["until"])
    before = scene.manifest()["version"]
    start, stop = last - timedelta(days=20), last - timedelta(days=1)
    more = ["--of", "Retrain", "--of-params", json.dumps({"project": "crypto"}), "--start", str(start), "--stop", str(stop)]
    scene.figure("two_weeks_retrained_seconds", scene.luigi("RangeWeekly", *more))
    done = list(scene.context.store.keys("runs/crypto/retrains/"))
    outcomes = [json.loads(scene.context.store.read(key).data) for key in done]
    scene.check(
        2 <= len(done) <= 3 and not any(one["promoted"] for one in outcomes) and scene.manifest()["version"] == before,
        f"{len(done)} Sundays retrained, each with its version and receipt; the champion has learned from later days and stays",
    )
    again = scene.luigi("RangeWeekly", *more)
    scene.check(
        again < 20 and list(scene.context.store.keys("runs/crypto/retrains/")) == done, "asked again, nothing is repeated"
    )
    scene.train("PredictBatch", "--date", str(last))
    key = f"predictions/crypto/dt={last}/predictions.csv"
    rows = list(csv.reader(io.StringIO(scene.context.store.read(key).data.decode())))
    scene.check(rows[0] == SHOWN, f"a day's forecasts without a service: {len(rows) - 1:,} rows at {key}")


def _grown(scene: AcceptanceEnvironment) -> None:
    """Four times as many symbols may not take more than four times as long, but for the start of processes."""
    found = scale.report(scene, SIZES)
    (few_week, few_day), (week, day) = found[SIZES[0]], found[SIZES[1]]
    times = SIZES[1] / SIZES[0]
    linear = all(
        more.seconds < times * few.seconds and more.megabytes < times * few.megabytes
        for few, more in ((few_week, week), (few_day, day))
    )
    slower, larger = week.seconds / few_week.seconds, week.megabytes / few_week.megabytes
    scene.check(linear, f"{times:g} × the symbols: {slower:.1f} × the seconds and {larger:.1f} × the memory of a week")
