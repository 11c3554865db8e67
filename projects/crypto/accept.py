"""Acceptance run: a given network, its history in daily files, and models trained on it."""

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
from projects.crypto.page import COLUMNS as RESULT_COLUMNS
from projects.crypto.page import page, read

GIVEN_FILES = Path(os.environ.get("CRYPTO_GIVEN", ROOT.parent / "shared" / "data" / "crypto"))
SCALED = ["ANC", "BITS", "BTB", "BTC", "BTM", "CBX", "DGC", "FAIR", "FTC", "GLD", "IXC", "LTC", "NMC", "NVC", "PPC", "PXC",
          "TRC", "WDC", "XPM", "XRP"]  # fmt: skip
"""Symbols with scalers."""
INPUT_KEY, OUTPUT_KEY = "drop/crypto.csv", "drop/crypto-predictions.csv"
SIZES = (2_500, 10_000)


def accept(env: AcceptanceEnvironment) -> None:
    network, scalers, history = _given_files(env)
    facts = env.import_and_promote(network, "the given network", "--scalers", str(scalers), "--sample", str(history))["data"]
    env.check(
        facts["kind"] == "Keras" and facts["largest_difference"] < 1e-3,
        f"network and scalers imported: equal to Keras 2's formulas on {facts['compared']} windows, to "
        f"{facts['largest_difference']:.1g}",
    )
    env.serve()
    _check_inbox(env, history)
    _check_speed(env, history)
    _check_daily_files(env, pd.read_csv(history, dtype=str, keep_default_na=False))
    _check_input_formats(env)
    _check_weekly_retraining(env)
    env.record_summary(
        "44 coins, 29,998 days" if GIVEN_FILES.exists() else "generated, 44 coins",
        _last_days(market(["BTC"], 7, date(2018, 1, 1))),
    )
    _check_scaling(env)


def _given_files(env: AcceptanceEnvironment) -> tuple[Path, Path, Path]:
    """Return the given files, or generated ones of the same structure."""
    if GIVEN_FILES.exists():
        env.figure("given", "model.h5, scaler.pkl and crypto-markets.csv, unchanged")
        return GIVEN_FILES / "model.h5", GIVEN_FILES / "scaler.pkl", GIVEN_FILES / "crypto-markets.csv"
    env.figure("given", "not available: a network of the same structure with random weights, and a generated market")
    generated = {"model.h5": stand_in.network(), "scaler.pkl": stand_in.scalers(SCALED)}
    generated["crypto-markets.csv"] = market([*SCALED, *names(24)], 680, date(2017, 1, 1)).to_csv(index=False).encode()
    for name, data in generated.items():
        (env.folder / name).write_bytes(data)
    return env.folder / "model.h5", env.folder / "scaler.pkl", env.folder / "crypto-markets.csv"


def _receipt(env: AcceptanceEnvironment) -> dict[str, Any]:
    try:
        receipt: dict[str, Any] = json.loads(env.context.store.read(f"{OUTPUT_KEY}.receipt.json").data)
    except NotFound:
        return {}
    return receipt


def _put_and_wait(env: AcceptanceEnvironment, data: bytes) -> tuple[float, dict[str, Any]]:
    """Put a table at input_url; return the seconds until its receipt exists, and the receipt."""
    started = time.perf_counter()
    env.put(INPUT_KEY, data)
    state = env.context.store.etag(INPUT_KEY)
    env.client.wait_until(lambda: _receipt(env).get("etag") == state, 60)
    return time.perf_counter() - started, _receipt(env)


def _check_inbox(env: AcceptanceEnvironment, history: Path) -> None:
    """Predict input_url to output_url, which a Bokeh page reads from S3."""
    seconds, receipt = _put_and_wait(env, history.read_bytes())
    table = pd.read_csv(io.BytesIO(env.context.store.read(OUTPUT_KEY).data))
    env.check(
        list(table.columns) == RESULT_COLUMNS,
        f"output_url has {','.join(RESULT_COLUMNS)}: {len(table):,} rows {seconds:.2f} s after the put",
    )
    unknown = table[~table["symbol"].isin(SCALED)]
    env.check(
        bool(unknown["pred_open"].isna().all()) and receipt["not_predicted"] == len(unknown),
        f"{unknown['symbol'].nunique()} symbols without scalers: no forecast, as counted in the receipt",
    )
    known = table[table["symbol"].isin(SCALED)]
    ahead = known[known["val_open"].isna()]
    env.check(
        bool(known["pred_open"].notna().all()) and len(ahead) == known["symbol"].nunique(),
        "every day of the others has a forecast, and so has the day after the last",
    )
    for name, value in env.cloud.variables.items():
        os.environ[name] = value
    html = page(read(f"s3://{env.context.store.bucket}/{OUTPUT_KEY}"), "Next open: predicted and actual")
    (env.folder / "page.html").write_text(html)
    env.check("pred_open" in html and "https://" not in html.split("<body")[0], f"a Bokeh page reads it: {len(html):,} bytes")


def _last_days(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON."""
    numbers = [name for name in COLUMNS if name not in ("slug", "symbol", "name", "date")]
    records: list[dict[str, Any]] = rows.assign(**{name: rows[name].astype(float) for name in numbers}).to_dict("records")
    return records


def _check_speed(env: AcceptanceEnvironment, history: Path) -> None:
    """Time 30,000 rows of known symbols end to end, and the next open of one symbol."""
    many = market(SCALED, 1_500, date(2014, 1, 1))
    body = many.to_csv(index=False).encode()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        response = env.client.post(f"{env.path}.csv", body, {"content-type": "text/csv"})
        times.append(time.perf_counter() - started)
    lines = len(response.body.splitlines()) - 1
    env.figure("seconds_of_30000_rows", min(times))
    env.check(
        lines == 30_020 and min(times) < 2,
        f"{len(many):,} rows of 20 symbols by HTTP: {lines:,} forecasts in {min(times):.2f} s",
    )
    rows = pd.read_csv(history)
    week = _last_days(rows[rows["symbol"] == "BTC"].tail(6))
    forecasts = env.client.post_json(env.path, week).json()["predictions"]
    ms = env.latency(week)
    env.figure("milliseconds_of_one_symbols_next_open", ms)
    env.check(
        forecasts[-1]["actual"] is None and len(forecasts) == 7,
        f"six days of BTC: the next open, {forecasts[-1]['step']:.2f}, in {ms:.1f} ms",
    )


def _check_daily_files(env: AcceptanceEnvironment, history: pd.DataFrame) -> None:
    """Ingest the history as one file, then daily files: late, repeated, corrected and broken ones."""
    days = pd.to_datetime(history["date"], format="%d/%m/%Y")
    cut = days.max() - pd.Timedelta(days=27)
    env.put("raw/crypto/until.csv", history[days <= cut].to_csv(index=False).encode())
    files = list(daily(history[days > cut]))
    for day, data in [*files[:8], *files[9:]]:
        env.put(f"raw/crypto/{day}.csv", data)
    env.put(f"raw/crypto/{files[3][0]}-again.csv", files[3][1])
    env.figure("collect_seconds", env.train("Ingest"))
    env.put(f"raw/crypto/{files[8][0]}.csv", files[8][1])  # late
    wrong = files[10][1].replace(b"BTC,", b"XBT,")  # corrected below
    env.put(f"raw/crypto/{files[10][0]}.csv", wrong)
    env.put("raw/crypto/broken.csv", b"symbol,date\nBTC,yesterday\n")
    env.figure("collect_again_seconds", env.train("Ingest"))
    env.put(f"raw/crypto/{files[10][0]}.csv", files[10][1])
    env.figure("pipeline_seconds", env.train())
    manifest = env.manifest()
    read_back = manifest["data"]["rows"]
    symbols = history["symbol"].nunique()
    env.check(
        read_back == len(history) - symbols,
        f"{read_back:,} days with a previous day, of {len(history):,} rows: late, repeated, corrected and broken files handled",
    )
    board = pd.read_csv(io.BytesIO(env.context.store.read(f"versions/crypto/{manifest['version']}/comparison.csv").data))
    ranking = ", ".join(f"{row.rank} {row.model} {-row.score_test:.4f}" for row in board.itertuples())
    env.check(
        {"persistence"} < set(board["model"]) and bool(board["model"].str.endswith(")").any()),
        f"mean absolute error of the change on the same {board['rows'].iloc[0]:,} days: {ranking}",
    )
    env.check(manifest["champion"] != "model", f"champion now: {manifest['champion']}, trained here")


def _check_input_formats(env: AcceptanceEnvironment) -> None:
    """Compare the forecasts of the same rows as CSV, JSON and form, together and symbol by symbol."""
    env.client.wait_until(
        lambda: env.client.get("/projects/crypto/schema").json()["x-version"] == env.manifest()["version"], 30
    )
    rows = market(["BTC", "LTC", "NEW"], 9, date(2018, 1, 1)).drop(columns=["slug", "name", "close_ratio", "spread", "ranknow"])
    texts = rows.astype(str).to_dict("records")
    headers = {"accept": "application/json"}

    def predict(body: bytes, media: str) -> list[Any]:
        predictions: list[Any] = env.client.post(f"{env.path}?models=all", body, {"content-type": media, **headers}).json()[
            "predictions"
        ]
        return predictions

    numbers = [name for name in rows if name not in ("symbol", "date")]
    records = [{**row, **{name: float(row[name]) for name in numbers}} for row in texts]
    together = predict(json.dumps(records).encode(), "application/json")
    by_csv = predict(to_csv(texts), "text/csv")
    form = env.client.post_form(f"{env.path}.json?models=all", {"rows": to_csv(texts).decode()}).json()["predictions"]
    alone = [
        prediction
        for name in ("BTC", "LTC", "NEW")
        for prediction in predict(to_csv([r for r in texts if r["symbol"] == name][-9:]), "text/csv")
    ]
    env.check(
        together == by_csv == form == alone and len(together) == 30,
        "27 rows as JSON, CSV and form, together over Dask and symbol by symbol: the same bits, also for a new symbol",
    )


def _check_weekly_retraining(env: AcceptanceEnvironment) -> None:
    """Retrain a range of weeks: one receipt per week, and an older week never replaces the champion."""
    last = date.fromisoformat(env.manifest()["data"]["until"])
    before = env.manifest()["version"]
    start, stop = last - timedelta(days=20), last - timedelta(days=1)
    arguments = [
        "--of",
        "Retrain",
        "--of-params",
        json.dumps({"project": "crypto"}),
        "--start",
        str(start),
        "--stop",
        str(stop),
    ]
    env.figure("two_weeks_retrained_seconds", env.luigi("RangeWeekly", *arguments))
    done = [info.key for info in env.context.store.list_objects("runs/crypto/retrains/")]
    outcomes = [json.loads(env.context.store.read(key).data) for key in done]
    env.check(
        2 <= len(done) <= 3
        and not any(outcome["decision"] == "promoted" for outcome in outcomes)
        and env.manifest()["version"] == before,
        f"{len(done)} Sundays retrained, each with a version and a receipt; the champion was trained on later days and stays",
    )
    again = env.luigi("RangeWeekly", *arguments)
    env.check(
        again < 20 and [info.key for info in env.context.store.list_objects("runs/crypto/retrains/")] == done,
        "a second run repeats nothing",
    )
    env.train("PredictBatch", "--date", str(last))
    key = f"predictions/crypto/dt={last}/predictions.csv"
    rows = list(csv.reader(io.StringIO(env.context.store.read(key).data.decode())))
    env.check(rows[0] == RESULT_COLUMNS, f"a day's forecasts without a service: {len(rows) - 1:,} rows at {key}")


def _check_scaling(env: AcceptanceEnvironment) -> None:
    """Require that time and memory grow at most linearly with the number of symbols."""
    costs = scale.report(env, SIZES)
    (few_week, few_day), (week, day) = costs[SIZES[0]], costs[SIZES[1]]
    times = SIZES[1] / SIZES[0]
    linear = all(
        more.seconds < times * few.seconds and more.megabytes < times * few.megabytes
        for few, more in ((few_week, week), (few_day, day))
    )
    slower, larger = week.seconds / few_week.seconds, week.megabytes / few_week.megabytes
    env.check(linear, f"{times:g} × the symbols: {slower:.1f} × the seconds and {larger:.1f} × the memory of a week")
