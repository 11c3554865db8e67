"""Training rows to figures and facts: what a person looks at before believing a model."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator

from podium.schema.columns import Column, Panel
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import lag_name
from podium.training.panel import unscaled_columns

MAX_PANELS = 24
MAX_BARS = 12
MAX_SERIES = 8
INK, FIRST, SECOND = "#64748b", "#2563eb", "#f59e0b"
PALETTE = [FIRST, SECOND, "#10b981", "#ef4444", "#8b5cf6", "#06b6d4", "#ec4899", "#84cc16"]


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A figure as PNG in base64 with its title and a sentence on how to read it."""

    title: str
    caption: str
    png: str


@dataclass(frozen=True, slots=True)
class DataReport:
    """Everything that the report shows."""

    rows: int
    target: str
    task: str
    columns: list[dict[str, object]]
    notes: tuple[str, ...]
    pictures: list[ReportFigure]


def build_data_report(data: LabeledRows) -> DataReport:
    """Describe every column and draw the target, the distributions, the missing cells and the correlations."""
    target, panel = data.signature.target, data.signature.panel
    series = [_series(data, panel)] if panel else []
    if panel:
        data = _day_before(data)
    facts = [_facts(column, data.inputs[column.name]) for column in data.signature.inputs]
    pictures = [_target(data), *series, *_distributions(data)]
    if data.inputs.isna().to_numpy().any():
        pictures.append(_missing(data))
    if sum(not column.is_text for column in data.signature.inputs) > 1:
        pictures.append(_correlations(data))
    return DataReport(len(data.inputs), target.name, target.task, facts, data.notes, pictures)


def report_html(project: str, title: str, exploration: DataReport, templates: Path) -> str:
    """One self-contained page; its one link is to the page of the project, beside which it is served."""
    pages = Environment(loader=FileSystemLoader(templates), autoescape=True, undefined=StrictUndefined)
    return pages.get_template("report.html").render(project=project, title=title, report=exploration)


def _facts(column: Column, cells: pd.Series) -> dict[str, object]:
    present = cells.dropna()
    facts: dict[str, object] = {
        "name": column.name,
        "kind": column.display_kind,
        "unit": column.unit,
        "missing": f"{cells.isna().mean():.1%}",
        "distinct": int(present.nunique()),
    }
    if column.is_text or not len(present):
        counts = present.value_counts()
        facts["summary"] = ", ".join(f"{level} {count / len(cells):.0%}" for level, count in counts.head(4).items())
    else:
        facts["summary"] = " … ".join(column.format_value(at, 4) for at in np.quantile(present.astype(float), [0, 0.5, 1]))
    return facts


def _figure(figure: Figure, title: str, caption: str) -> ReportFigure:
    file = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_color(INK)
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", transparent=True)
    return ReportFigure(title, caption, base64.b64encode(file.getvalue()).decode())


def _plain(text: object, longest: int) -> str:
    """A text as it is, which matplotlib would read as a formula between dollars."""
    return str(text)[:longest].replace("$", r"\$")


def _without_warnings(axes: Axes, title: str = "") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    if title:
        axes.set_title(_plain(title, 32), fontsize=9, color=INK)


def _target(data: LabeledRows) -> ReportFigure:
    figure = Figure(figsize=(6, 2.6))
    axes = figure.subplots()
    target = data.signature.target
    if target.classes:
        counts = data.target.value_counts().sort_index()
        names = [_plain(target.classes[int(code)], 20) for code in counts.index]
        bars = axes.bar(range(len(names)), counts.to_numpy(), color=[PALETTE[i % len(PALETTE)] for i in range(len(names))])
        axes.set_xticks(range(len(names)), names)
        axes.bar_label(bars, fontsize=8)
    else:
        axes.hist(data.target.to_numpy(), bins=40, color=FIRST)
    axes.set_xlabel(_plain(target.name, 40) + (", change in units of the day before" if data.signature.panel else ""))
    axes.set_ylabel("rows")
    _without_warnings(axes)
    rare = " Rare classes are hard to learn and easy to miss." if target.classes else ""
    return _figure(figure, "The target", f"How often each value comes.{rare}")


def _groups(data: LabeledRows) -> list[tuple[str, np.ndarray]]:
    """Rows by class, or by the lower and the upper half of a number."""
    target = data.signature.target
    codes = data.target.to_numpy()
    if target.classes and len(target.classes) <= len(PALETTE):
        return [(_plain(name, 30), codes == code) for code, name in enumerate(target.classes)]
    middle = np.median(codes)
    return [("lower half", codes <= middle), ("upper half", codes > middle)]


def _distributions(data: LabeledRows) -> list[ReportFigure]:
    columns = [column for column in data.signature.inputs if data.inputs[column.name].notna().any()]
    pictures = []
    groups = _groups(data)
    for start in range(0, min(len(columns), MAX_PANELS * 2), MAX_PANELS):
        some = columns[start : start + MAX_PANELS]
        rows = -(-len(some) // 4)
        figure = Figure(figsize=(11, 2.1 * rows), layout="constrained")
        panels = figure.subplots(rows, 4, squeeze=False).ravel()
        for axes, column in zip(panels, some, strict=False):
            (_bars if column.is_text else _histogram)(axes, data.inputs[column.name], groups)
            if column.kind == "date":
                _date_axis(axes)
            _without_warnings(axes, column.name)
        for axes in panels[len(some) :]:
            axes.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(groups), fontsize=9, frameon=False)
        caption = "Each column by target. Where the colours part, the column says something about the target."
        title = "The columns" if len(columns) <= MAX_PANELS else f"Columns {start + 1} to {start + len(some)}"
        pictures.append(_figure(figure, title, caption))
    return pictures


def _histogram(axes: Axes, cells: pd.Series, groups: Sequence[tuple[str, np.ndarray]]) -> None:
    numbers = cells.to_numpy(dtype=float)
    low, high = np.nanquantile(numbers, [0.005, 0.995])
    bins = np.linspace(low, high if high > low else low + 1, 25)
    for place, (name, mask) in enumerate(groups):
        axes.hist(numbers[mask], bins=bins.tolist(), density=True, alpha=0.55, color=PALETTE[place], label=name)
    axes.set_yticks([])


def _date_axis(axes: Axes) -> None:
    """Days as dates, few enough to stand beside each other."""
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda day, _: str(np.datetime64(int(day), "D")))


def _bars(axes: Axes, cells: pd.Series, groups: Sequence[tuple[str, np.ndarray]]) -> None:
    levels = cells.value_counts().index[:MAX_BARS]
    width = 0.8 / len(groups)
    for place, (name, mask) in enumerate(groups):
        shares = cells[mask].value_counts(normalize=True).reindex(levels, fill_value=0)
        axes.bar(np.arange(len(levels)) + place * width, shares.to_numpy(), width, color=PALETTE[place], label=name)
    axes.set_xticks(np.arange(len(levels)) + 0.4 - width / 2, [_plain(level, 10) for level in levels], rotation=45, ha="right")
    axes.set_yticks([])


def _day_before(data: LabeledRows) -> LabeledRows:
    """What there is to look at: the last relative change of each number, or as it was on the day before."""
    panel = data.signature.panel
    assert panel is not None
    plain = unscaled_columns(panel, data.inputs)
    columns, cells = [data.signature.inputs[0]], {panel.entity: data.inputs[panel.entity]}
    for name in panel.numeric_columns:
        last, earlier = data.inputs[lag_name(name, 1)], data.inputs[lag_name(name, 2)]
        own = name if name in plain else f"{name}, last change"
        with np.errstate(all="ignore"):
            cells[own] = last if name in plain else (last - earlier) / (last.abs() + earlier.abs())
        columns.append(Column(own, "number", nullable=True))
    signature = replace(data.signature, inputs=tuple(columns))
    return replace(data, inputs=pd.DataFrame(cells), signature=signature)


def _series(data: LabeledRows, panel: Panel) -> ReportFigure:
    """The target of some entities over time, each beside its first value."""
    assert data.order is not None
    known = data.inputs[panel.entity].value_counts()
    last = data.inputs[lag_name(panel.target, 1)].to_numpy()
    figure = Figure(figsize=(11, 3.2))
    axes = figure.subplots()
    for name in known.index[:MAX_SERIES]:
        rows = np.flatnonzero((data.inputs[panel.entity] == name).to_numpy() & (last > 0))
        rows = rows[np.argsort(data.order.to_numpy()[rows])]
        if len(rows):
            axes.plot(data.order.to_numpy()[rows], last[rows] / last[rows[0]], linewidth=1, label=_plain(name, 20))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    if panel.time_column.kind == "date":
        _date_axis(axes)
    axes.legend(fontsize=8, frameon=False, ncols=MAX_SERIES)
    _without_warnings(axes)
    caption = f"The {min(len(known), MAX_SERIES)} longest histories of {len(known)}, each in units of its first value."
    return _figure(figure, "Over time", caption)


def _missing(data: LabeledRows) -> ReportFigure:
    shares = data.inputs.isna().mean()
    shares = shares[shares > 0].sort_values()[-30:]
    figure = Figure(figsize=(6, 0.5 + 0.25 * len(shares)))
    axes = figure.subplots()
    axes.barh(range(len(shares)), shares.to_numpy(), color=SECOND)
    axes.set_yticks(range(len(shares)), [_plain(name, 30) for name in shares.index])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    _without_warnings(axes)
    return _figure(
        figure, "Missing cells", "Share of the rows without a value. A feature of its own says where one is missing."
    )


def _correlations(data: LabeledRows) -> ReportFigure:
    names = [column.name for column in data.signature.inputs if not column.is_text][:40]
    table = data.inputs[names].assign(**{f"→ {data.signature.target.name}": data.target}).rank().corr()
    size = max(4.0, 0.28 * len(table))
    figure = Figure(figsize=(size + 1, size))
    axes = figure.subplots()
    image = axes.imshow(table.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    ticks = [_plain(name, 22) for name in table.columns]
    axes.set_xticks(range(len(table)), ticks, rotation=90, fontsize=7)
    axes.set_yticks(range(len(table)), ticks, fontsize=7)
    figure.colorbar(image, shrink=0.6)
    caption = "Spearman's rank correlation; the last row is the target. Strong blocks off the diagonal say the same twice."
    return _figure(figure, "Correlations", caption)
