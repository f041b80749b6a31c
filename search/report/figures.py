"""The report's figures: front, convergence, sensitivity, each as an HTML fragment that needs plotly.js."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from math import ceil
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.outcome import Outcome
from search.report.baseline_vs_pick import budget
from search.report.group_and_silence_notes import GroupRow
from search.trial import Trial

# Okabe and Ito's palette, distinguishable with any colour vision
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#9A9A9A"
PANELS_PER_ROW = 4
VIEW_ABOVE_LIMIT = 2.5
"""Figures open at WERs up to this multiple of the limit: hopeless recipes must not squeeze the front."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A cost that a figure can show on its x axis."""

    label: str
    value: Callable[[Trial], float | None]


LATENCY = "Latency (ms)"
AXES = (
    Axis(label="Objective", value=lambda trial: trial.objective),
    Axis(label="Size (MB)", value=lambda trial: trial.costs.size_mb),
    Axis(label="FLOPs (G)", value=lambda trial: trial.costs.flops_g),
    Axis(label=LATENCY, value=lambda trial: trial.costs.latency_ms),
)


def front_figure(outcome: Outcome) -> str:
    """WER against the objective, or another cost by its buttons; the step line belongs to the objective only."""
    figure = go.Figure()
    groups = _groups(outcome)
    for group in groups:
        figure.add_trace(group.trace())
    figure.add_hline(
        y=100 * outcome.wer_limit.wer,
        line={"color": VERMILLION, "dash": "dash", "width": 1.5},
        annotation={"text": escape(f"budget {budget(outcome)}"), "font": {"color": VERMILLION}},
        annotation_position="top right",
    )
    figure.update_layout(updatemenus=[_buttons([_show(axis, groups, outcome) for axis in AXES])], height=560)
    figure.update_xaxes(title=AXES[0].label)
    figure.update_yaxes(title="WER (%)", range=[0, wer_view(outcome)])
    return _html(figure, "front")


def convergence_figure(outcome: Outcome) -> str:
    """The best feasible objective so far, over trials or over seconds of work."""
    trials = sorted(outcome.trials, key=lambda trial: trial.number)
    minutes = [seconds / 60 for seconds in accumulate(trial.seconds for trial in trials)]
    points = [(t, at) for t, at in zip(trials, minutes, strict=True) if t.feasible]
    best = list(accumulate((trial.objective for trial, _ in points), min))
    by_trial: list[list[float]] = [[trial.number for trial, _ in points]]
    by_time = [[at for _, at in points]]
    if points:  # the line goes on to the end of the run
        best.append(best[-1])
        by_trial.append([*by_trial[0], trials[-1].number])
        by_time.append([*by_time[0], minutes[-1]])
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=by_trial[0],
            y=[trial.objective for trial, _ in points],
            mode="markers",
            name="within every limit",
            marker={"color": BLUE, "size": 6, "opacity": 0.55},
            text=[_hover(trial) for trial, _ in points],
            hoverinfo="text",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=by_trial[-1],
            y=best,
            mode="lines",
            name="best so far",
            line={"color": GREEN, "width": 2.5, "shape": "hv"},
            hovertemplate="%{y:.4f}<extra>best so far</extra>",
        )
    )
    shown = (("Trial", [by_trial[0], by_trial[-1]]), ("Minutes of work", [by_time[0], by_time[-1]]))
    buttons = [
        {"label": label, "method": "update", "args": [{"x": x}, {"xaxis.title.text": label}]} for label, x in shown
    ]
    figure.update_layout(updatemenus=[_buttons(buttons)], height=360)
    figure.update_xaxes(title="Trial")
    figure.update_yaxes(title="Objective")
    return _html(figure, "convergence")


def sensitivity_figure(outcome: Outcome, genes: pd.DataFrame) -> str:
    """WER against each gene over the complete trials; `genes` has a column `wer` and one per gene that varies.

    Panels are in the order of the columns, with Spearman's rank correlation.
    """
    names = [name for name in genes.columns if name != "wer"]
    ranks = genes.rank().corr()["wer"]
    rows = ceil(len(names) / PANELS_PER_ROW)
    titles = [f"{name}, ρ = {ranks[name]:+.2f}" for name in names]
    figure = make_subplots(
        rows=rows, cols=PANELS_PER_ROW, shared_yaxes=True, subplot_titles=titles, vertical_spacing=0.3 / rows
    )
    for index, name in enumerate(names):
        figure.add_trace(
            go.Scatter(
                x=genes[name].tolist(),
                y=(100 * genes["wer"]).tolist(),
                mode="markers",
                marker={"color": BLUE, "size": 5, "opacity": 0.5},
                hovertemplate="%{x:g}: %{y:.2f} %<extra></extra>",
            ),
            row=index // PANELS_PER_ROW + 1,
            col=index % PANELS_PER_ROW + 1,
        )
    figure.add_hline(y=100 * outcome.wer_limit.wer, line={"color": VERMILLION, "dash": "dash", "width": 1})
    figure.update_yaxes(range=[0, wer_view(outcome)])
    figure.update_yaxes(title="WER (%)", col=1)
    figure.update_annotations(font_size=13)
    figure.update_layout(height=90 + 210 * rows, showlegend=False)
    return _html(figure, "sensitivity")


def groups_figure(rows: Sequence[GroupRow], pick: Trial) -> str:
    """WER of the original and of the pick in each group, with 95 % intervals; a dash is the group's limit."""
    figure = go.Figure()
    series = (
        ("baseline", ORANGE, "diamond", -0.13, [row.original for row in rows]),
        (f"trial {pick.number}", GREEN, "circle", 0.13, [row.found for row in rows]),
    )
    for name, color, symbol, shift, found in series:
        shown = [(place + shift, group, group.rate) for place, group in enumerate(found) if group]
        figure.add_trace(
            go.Scatter(
                x=[100 * rate.wer for _, _, rate in shown],
                y=[place for place, _, _ in shown],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (rate.high - rate.wer) for _, _, rate in shown],
                    "arrayminus": [100 * (rate.wer - rate.low) for _, _, rate in shown],
                    "thickness": 1.5,
                },
                mode="markers",
                name=name,
                marker={"color": color, "symbol": symbol, "size": 9},
                text=[
                    f"{escape(group.key.label)}, {rate.errors} errors in {rate.words} words" for _, group, rate in shown
                ],
                hovertemplate="%{text}: %{x:.2f} %<extra></extra>",
            )
        )
    limits = [(place, 100 * row.limit) for place, row in enumerate(rows) if row.limit is not None]
    if limits:
        figure.add_trace(
            go.Scatter(
                x=[limit for _, limit in limits],
                y=[place for place, _ in limits],
                mode="markers",
                name="limit",
                marker={
                    "color": VERMILLION,
                    "symbol": "line-ns",
                    "size": 22,
                    "line": {"color": VERMILLION, "width": 2},
                },
                hovertemplate="limit %{x:.2f} %<extra></extra>",
            )
        )
    labels = [escape(row.original.key.label) for row in rows]
    figure.update_layout(height=170 + 42 * len(rows))
    figure.update_xaxes(title="WER (%)", rangemode="tozero")
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, autorange="reversed", automargin=True)
    return _html(figure, "groups")


def wer_view(outcome: Outcome) -> float:
    """The top of the WER axes in percent: above the budget, the baseline and the whole front with its intervals."""
    shown = [*outcome.front, outcome.baseline]
    highs = [trial.accuracy.rate.high for trial in shown if trial.accuracy]
    return 100 * max([VIEW_ABOVE_LIMIT * outcome.wer_limit.wer, *(1.1 * high for high in highs), 0.01])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Trials that share one look in the front's figure."""

    name: str
    trials: Sequence[Trial]
    style: dict[str, Any]
    with_intervals: bool = False

    def x(self, axis: Axis) -> list[float | None]:
        return [axis.value(trial) for trial in self.trials]

    def trace(self) -> go.Scatter:
        scored = [trial.accuracy.rate for trial in self.trials if trial.accuracy]
        intervals = {
            "type": "data",
            "array": [100 * (rate.high - rate.wer) for rate in scored],
            "arrayminus": [100 * (rate.wer - rate.low) for rate in scored],
            "thickness": 1,
            "width": 3,
            "color": BLUE,
        }
        return go.Scatter(
            x=self.x(AXES[0]),
            y=[100 * rate.wer for rate in scored],
            name=self.name,
            text=[_hover(trial) for trial in self.trials],
            hoverinfo="text",
            error_y=intervals if self.with_intervals else None,
            **({"mode": "markers"} | self.style),
        )


def _groups(outcome: Outcome) -> list[_Group]:
    scored = [trial for trial in outcome.trials if trial.accuracy]
    chosen = {trial.number for trial in outcome.front} | {outcome.baseline.number}
    others = [trial for trial in scored if trial.state == "complete" and trial.number not in chosen]
    groups = [
        _Group(
            name="stopped early, WER so far",
            trials=[trial for trial in scored if trial.state == "stopped"],
            style={"marker": {"color": GREY, "symbol": "circle-open", "size": 6}},
        ),
        _Group(
            name="over a limit",
            trials=[trial for trial in others if not trial.feasible],
            style={"marker": {"color": GREY, "size": 6, "symbol": "x-thin", "line": {"color": GREY, "width": 1.5}}},
        ),
        _Group(
            name="within every limit",
            trials=[trial for trial in others if trial.feasible],
            style={"marker": {"color": BLUE, "size": 6, "opacity": 0.45}},
        ),
        _Group(
            name="front",
            trials=outcome.front,
            with_intervals=True,
            style={
                "mode": "lines+markers",
                "marker": {"color": BLUE, "size": 9},
                "line": {"color": BLUE, "shape": "hv"},
            },
        ),
        _Group(
            name="baseline",
            trials=[outcome.baseline] if outcome.baseline.accuracy else [],
            style={
                "marker": {"color": ORANGE, "size": 12, "symbol": "diamond", "line": {"color": "white", "width": 1}}
            },
        ),
        _Group(
            name="nearest to the limits",
            trials=[outcome.least_violating] if outcome.least_violating and not outcome.recommended else [],
            style={"marker": {"color": VERMILLION, "size": 15, "symbol": "star"}},
        ),
        _Group(
            name="pick",
            trials=[outcome.recommended] if outcome.recommended else [],
            style={"marker": {"color": GREEN, "size": 17, "symbol": "star", "line": {"color": "white", "width": 1}}},
        ),
    ]
    return [group for group in groups if group.trials]


def _show(axis: Axis, groups: Sequence[_Group], outcome: Outcome) -> dict[str, Any]:
    """The button that puts a cost on the x axis."""
    is_objective = axis is AXES[0]
    widths = [2 if group.name == "front" and is_objective else 0 for group in groups]
    data = {"x": [group.x(axis) for group in groups], "line.width": widths}
    title = f"Latency (ms), {outcome.baseline.costs.source}" if axis.label == LATENCY else axis.label
    return {"label": axis.label, "method": "update", "args": [data, {"xaxis.title.text": title}]}


def _buttons(buttons: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "pad": {"b": 4},
        "bgcolor": "white",
        "font": {"size": 12},
    }


def _hover(trial: Trial) -> str:
    costs, accuracy = trial.costs, trial.accuracy
    latency = "no latency" if costs.latency_ms is None else f"{costs.latency_ms:,.0f} ms ({costs.source})"
    lines = [
        f"<b>trial {trial.number}</b>, {trial.state}",
        f"WER {100 * accuracy.wer:.2f} %" if accuracy else "",
        f"objective {trial.objective:.4f}",
        f"{costs.size_mb:,.1f} MB, {costs.flops_g:,.2f} GFLOPs, {latency}",
        *(escape(part) for part in trial.recipe.summary().split(" | ")),
        escape(trial.note),
    ]
    return "<br>".join(filter(None, lines))


def _html(figure: go.Figure, name: str) -> str:
    figure.update_layout(
        template="simple_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222"},
        margin={"l": 60, "r": 20, "t": 60, "b": 85},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0.5, "xanchor": "center"},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(showgrid=True, gridcolor="#eee")
    figure.update_yaxes(showgrid=True, gridcolor="#eee")
    config = {"displaylogo": False, "responsive": True}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{name}", config=config)
    return html
