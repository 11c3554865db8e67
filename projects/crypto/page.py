"""Draw forecasts as one self-contained page: `python -m projects.crypto.page s3://bucket/predictions.csv page.html`.

The table has the columns `symbol,index,date,pred_open,val_open`.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pandas as pd
from bokeh.embed import file_html
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, CustomJS, HoverTool
from bokeh.models.widgets import Div, Select
from bokeh.plotting import figure
from bokeh.resources import INLINE

from podium.storage.datasets import split_url
from podium.storage.object_store import Store, s3_client

COLUMNS = ["symbol", "index", "date", "pred_open", "val_open"]


def read(url: str) -> pd.DataFrame:
    """Read the forecasts at a URL. Raises ValueError for other columns, StoreError."""
    bucket, key = split_url(url)
    table = pd.read_csv(io.BytesIO(Store(s3_client(), bucket).read(key).data), parse_dates=["date"])
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{url} has the columns {', '.join(table.columns)}, not {', '.join(COLUMNS)}")
    return table


def page(table: pd.DataFrame, title: str) -> str:
    """Return a chart with a choice of symbols; the last day has no actual price."""
    known = table.dropna(subset=["pred_open"])
    symbols = sorted(known["symbol"].unique())
    all_rows = ColumnDataSource(known.assign(date=known["date"]))
    shown = ColumnDataSource(known[known["symbol"] == symbols[0]])
    plot = figure(x_axis_type="datetime", height=420, sizing_mode="stretch_width", y_axis_label="open", title=symbols[0])
    plot.line("date", "val_open", source=shown, color="#64748b", line_width=2, legend_label="val_open")
    plot.line("date", "pred_open", source=shown, color="#2563eb", line_width=2, legend_label="pred_open")
    tooltips = [("date", "@date{%F}"), *((name, f"@{name}") for name in ("index", "pred_open", "val_open"))]
    plot.add_tools(HoverTool(tooltips=tooltips, formatters={"@date": "datetime"}, mode="vline"))
    plot.legend.location, plot.legend.click_policy = "top_left", "hide"
    choice = Select(title="symbol", value=symbols[0], options=symbols)
    names = ", ".join(f"{name}: []" for name in COLUMNS)
    choice.js_on_change("value", CustomJS(args={"whole": all_rows, "shown": shown, "plot": plot}, code=f"""
        const all = whole.data, some = {{{names}}};
        for (let row = 0; row < all.symbol.length; row++)
            if (all.symbol[row] === cb_obj.value) for (const name in some) some[name].push(all[name][row]);
        shown.data = some; plot.title.text = cb_obj.value;"""))  # fmt: skip
    return file_html(column(Div(text=f"<h1>{title}</h1>"), choice, plot, sizing_mode="stretch_width"), INLINE, title)


if __name__ == "__main__":
    url, target = sys.argv[1:]
    Path(target).write_text(page(read(url), "Next open: predicted and actual"))
