"""The data report: figures and column statistics of the training rows."""

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
from podium.schema.reading import Finding
from podium.tables.labeled_rows import LabeledRows
from podium.tables.panel import lag_name
from podium.training.findings import leakage_findings
from podium.training.panel import unscaled_columns

MAX_PLOTS = 24
"""Maximum number of plots per distribution figure; there are at most two such figures."""
MAX_BARS = 12
MAX_ENTITIES = 8
TEXT_COLOR, FIRST, SECOND = "#64748b", "#2563eb", "#f59e0b"
PALETTE = [FIRST, SECOND, "#10b981", "#ef4444", "#8b5cf6", "#06b6d4", "#ec4899", "#84cc16"]
Group = tuple[str, np.ndarray]
"""A label and the mask of its rows."""


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A base64-encoded PNG with its title and caption."""

    title: str
    caption: str
    png: str


@dataclass(frozen=True, slots=True)
class DataReport:
    """The content of the report page."""

    rows: int
    target: str
    task: str
    columns: list[dict[str, object]]
    findings: tuple[Finding, ...]
    figures: list[ReportFigure]


def build_data_report(data: LabeledRows) -> DataReport:
    """Summarize every column; plot the target, distributions, missing values and correlations."""
    target, panel = data.signature.target, data.signature.panel
    over_time = [_over_time(data, panel)] if panel else []
    if panel:
        data = _last_changes(data, panel)
    figures = [_target(data), *over_time, *_distributions(data)]
    if data.inputs.isna().to_numpy().any():
        figures.append(_missing_values(data))
    if sum(not column.is_text for column in data.signature.inputs) > 1:
        figures.append(_correlations(data))
    summaries = [_column_summary(column, data.inputs[column.name]) for column in data.signature.inputs]
    return DataReport(len(data.inputs), target.name, target.task, summaries, (*data.findings, *leakage_findings(data)), figures)


def report_html(project: str, title: str, report: DataReport, templates: Path) -> str:
    """Render a self-contained page whose only link goes to the project page."""
    pages = Environment(loader=FileSystemLoader(templates), autoescape=True, undefined=StrictUndefined)
    return pages.get_template("report.html").render(project=project, title=title, report=report)


def _column_summary(column: Column, cells: pd.Series) -> dict[str, object]:
    present = cells.dropna()
    if column.is_text or not len(present):
        counts = present.value_counts().head(4)
        summary = ", ".join(f"{category} {count / len(cells):.0%}" for category, count in counts.items())
    else:
        quantiles = np.quantile(present.astype(float), [0, 0.5, 1])
        summary = " · ".join(column.format_value(value, 4) for value in quantiles)
    return {
        "name": column.name,
        "kind": column.display_kind,
        "unit": column.unit,
        "missing": f"{cells.isna().mean():.1%}",
        "unique": int(present.nunique()),
        "summary": summary,
    }


def _report_figure(figure: Figure, title: str, caption: str) -> ReportFigure:
    file = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_color(TEXT_COLOR)
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", transparent=True)
    return ReportFigure(title, caption, base64.b64encode(file.getvalue()).decode())


def _label(text: object, max_length: int) -> str:
    """Truncate the text and escape dollar signs, which matplotlib would read as formula delimiters."""
    return str(text)[:max_length].replace("$", r"\$")


def _style(axes: Axes, title: str = "") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=TEXT_COLOR)
    if title:
        axes.set_title(_label(title, 32), fontsize=9, color=TEXT_COLOR)


def _target(data: LabeledRows) -> ReportFigure:
    figure = Figure(figsize=(6, 2.6))
    axes = figure.subplots()
    target = data.signature.target
    if target.classes:
        counts = data.target.value_counts().sort_index()
        names = [_label(target.classes[int(code)], 20) for code in counts.index]
        bars = axes.bar(range(len(names)), counts.to_numpy(), color=[PALETTE[i % len(PALETTE)] for i in range(len(names))])
        axes.set_xticks(range(len(names)), names)
        axes.bar_label(bars, fontsize=8)
        caption = "Class distribution. Rare classes are harder to predict."
    else:
        axes.hist(data.target.to_numpy(), bins=40, color=FIRST)
        caption = "Distribution of the target."
    axes.set_xlabel(_label(target.name, 40) + (" (relative change since the previous day)" if data.signature.panel else ""))
    axes.set_ylabel("rows")
    _style(axes)
    return _report_figure(figure, "Target", caption)


def _groups(data: LabeledRows) -> list[Group]:
    """Rows by class, or by the lower and upper half of a numeric target."""
    target = data.signature.target
    codes = data.target.to_numpy()
    if target.classes and len(target.classes) <= len(PALETTE):
        return [(_label(name, 30), codes == code) for code, name in enumerate(target.classes)]
    median = np.median(codes)
    return [("lower half", codes <= median), ("upper half", codes > median)]


def _distributions(data: LabeledRows) -> list[ReportFigure]:
    columns = [column for column in data.signature.inputs if data.inputs[column.name].notna().any()]
    groups, figures = _groups(data), []
    for start in range(0, min(len(columns), MAX_PLOTS * 2), MAX_PLOTS):
        shown = columns[start : start + MAX_PLOTS]
        title = "Columns" if len(columns) <= MAX_PLOTS else f"Columns {start + 1} to {start + len(shown)}"
        caption = "Distribution of each column by target. The more the colors separate, the more informative the column."
        figures.append(_report_figure(_plot_columns(data, shown, groups), title, caption))
    return figures


def _plot_columns(data: LabeledRows, columns: Sequence[Column], groups: Sequence[Group]) -> Figure:
    rows = -(-len(columns) // 4)
    figure = Figure(figsize=(11, 2.1 * rows), layout="constrained")
    plots = figure.subplots(rows, 4, squeeze=False).ravel()
    for axes, column in zip(plots, columns, strict=False):
        (_bars if column.is_text else _histogram)(axes, data.inputs[column.name], groups)
        if column.kind == "date":
            _date_axis(axes)
        _style(axes, column.name)
    for axes in plots[len(columns) :]:
        axes.set_visible(False)
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(groups), fontsize=9, frameon=False)
    return figure


def _histogram(axes: Axes, cells: pd.Series, groups: Sequence[Group]) -> None:
    numbers = cells.to_numpy(dtype=float)
    low, high = np.nanquantile(numbers, [0.005, 0.995])
    bins = np.linspace(low, high if high > low else low + 1, 25)
    for (name, mask), color in zip(groups, PALETTE, strict=False):
        axes.hist(numbers[mask], bins=bins.tolist(), density=True, alpha=0.55, color=color, label=name)
    axes.set_yticks([])


def _date_axis(axes: Axes) -> None:
    """Label days as dates, with few enough labels that they do not overlap."""
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda day, _: str(np.datetime64(int(day), "D")))


def _bars(axes: Axes, cells: pd.Series, groups: Sequence[Group]) -> None:
    categories = cells.value_counts().index[:MAX_BARS]
    width = 0.8 / len(groups)
    for index, (name, mask) in enumerate(groups):
        shares = cells[mask].value_counts(normalize=True).reindex(categories, fill_value=0)
        axes.bar(np.arange(len(categories)) + index * width, shares.to_numpy(), width, color=PALETTE[index], label=name)
    labels = [_label(category, 10) for category in categories]
    axes.set_xticks(np.arange(len(categories)) + 0.4 - width / 2, labels, rotation=45, ha="right")
    axes.set_yticks([])


def _last_changes(data: LabeledRows, panel: Panel) -> LabeledRows:
    """Replace the windows with the last relative change of each number, or with its last value if it is not scaled."""
    unscaled = unscaled_columns(panel, data.inputs)
    columns, cells = [data.signature.inputs[0]], {panel.entity: data.inputs[panel.entity]}
    for name in panel.numeric_columns:
        last, previous = data.inputs[lag_name(name, 1)], data.inputs[lag_name(name, 2)]
        label = name if name in unscaled else f"{name}, last change"
        with np.errstate(all="ignore"):
            cells[label] = last if name in unscaled else (last - previous) / (last.abs() + previous.abs())
        columns.append(Column(label, "number", nullable=True))
    signature = replace(data.signature, inputs=tuple(columns))
    return replace(data, inputs=pd.DataFrame(cells), signature=signature)


def _over_time(data: LabeledRows, panel: Panel) -> ReportFigure:
    """Plot the target of the entities with the most days, relative to its first value."""
    assert data.order is not None
    counts = data.inputs[panel.entity].value_counts()
    last = data.inputs[lag_name(panel.target, 1)].to_numpy()
    figure = Figure(figsize=(11, 3.2))
    axes = figure.subplots()
    for name in counts.index[:MAX_ENTITIES]:
        rows = np.flatnonzero((data.inputs[panel.entity] == name).to_numpy() & (last > 0))
        rows = rows[np.argsort(data.order.to_numpy()[rows])]
        if len(rows):
            axes.plot(data.order.to_numpy()[rows], last[rows] / last[rows[0]], linewidth=1, label=_label(name, 20))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    if panel.time_column.kind == "date":
        _date_axis(axes)
    axes.legend(fontsize=8, frameon=False, ncols=MAX_ENTITIES)
    _style(axes)
    caption = f"The {min(len(counts), MAX_ENTITIES)} longest of {len(counts)} series, relative to the first value of each."
    return _report_figure(figure, "Target over time", caption)


def _missing_values(data: LabeledRows) -> ReportFigure:
    shares = data.inputs.isna().mean()
    shares = shares[shares > 0].sort_values()[-30:]
    figure = Figure(figsize=(6, 0.5 + 0.25 * len(shares)))
    axes = figure.subplots()
    axes.barh(range(len(shares)), shares.to_numpy(), color=SECOND)
    axes.set_yticks(range(len(shares)), [_label(name, 30) for name in shares.index])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    _style(axes)
    caption = "Share of missing values. A missing-value indicator is added as a feature."
    return _report_figure(figure, "Missing values", caption)


def _correlations(data: LabeledRows) -> ReportFigure:
    names = [column.name for column in data.signature.inputs if not column.is_text][:40]
    table = data.inputs[names].assign(**{f"→ {data.signature.target.name}": data.target}).rank().corr()
    size = max(4.0, 0.28 * len(table))
    figure = Figure(figsize=(size + 1, size))
    axes = figure.subplots()
    image = axes.imshow(table.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    labels = [_label(name, 22) for name in table.columns]
    axes.set_xticks(range(len(table)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(table)), labels, fontsize=7)
    figure.colorbar(image, shrink=0.6)
    caption = "Spearman's rank correlation; the last row is the target. Strong off-diagonal blocks mark redundant columns."
    return _report_figure(figure, "Correlations", caption)
