"""Figures of a report: each function turns values into what plotly.js draws, and touches nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from maml_rl.evaluation.statistics import Estimate
from maml_rl.pictures.plots import METRIC_LABELS
from maml_rl.pictures.report.blocks import Figure

COLOURS = ("c0", "c1", "c2", "c3", "c4", "c5")
"""Names of colours of the page, in both themes."""
MOST_TICKS = 12


def colour_of(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


class Line(NamedTuple):
    """Numbers over a common abscissa."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    low: Sequence[float] = ()  # of a band or, for points, of intervals; nan where unknown
    high: Sequence[float] = ()
    kind: Literal["line", "dashed", "points", "faint", "both"] = "line"
    notes: Sequence[str] = ()  # of each point, shown beside it


def lines_figure(
    lines: Sequence[Line], abscissa: str, metric: str, title: str, caption: str, ticks: Mapping[int, str] | None = None
) -> Figure:
    """Lines with their bands; those in grey are references.

    Args:
        metric: "return", "mse", ...: names the vertical axis.
        ticks: labels of the abscissa by place, if not plotly's.
    """
    layout = _axes(abscissa, metric_label(metric)) | {"height": 400}
    if ticks and len(ticks) <= MOST_TICKS:
        layout["xaxis"] |= {"tickvals": list(ticks), "ticktext": list(ticks.values())}
    return Figure([trace for line in lines for trace in _traces(line)], layout, title, caption)


def _traces(line: Line) -> list[dict[str, Any]]:
    colour, label = f"@{line.colour}", plain(line.label)
    text = [f"<br>{plain(note)}" for note in line.notes] or [""] * len(line.x)
    own: dict[str, Any] = {"x": _finite(line.x), "y": _finite(line.y), "name": label, "text": text, "type": "scatter"}
    own["hovertemplate"] = "%{x}: <b>%{y:.4g}</b>%{text}<extra>%{fullData.name}</extra>"
    if line.kind == "faint":
        return [
            own | _of_line(f"{colour}/0.25", 1.0) | {"hoverinfo": "skip", "hovertemplate": None, "showlegend": False}
        ]
    if line.kind == "points":
        if line.low:
            up, down = ([abs(a - b) for a, b in zip(ends, line.y, strict=True)] for ends in (line.high, line.low))
            errors = {"array": _finite(up), "arrayminus": _finite(down), "thickness": 1, "width": 0, "color": colour}
            own["error_y"] = {"type": "data", "symmetric": False} | errors
        return [own | {"mode": "markers", "marker": {"color": colour, "size": 6}}]
    own |= _of_line(colour, 1.6 if line.kind == "dashed" else 2.4)
    if line.kind == "dashed":
        own["line"]["dash"] = "dash"
    if line.kind != "line":
        own |= {"mode": "lines+markers", "marker": {"color": colour, "size": 7 if line.kind == "both" else 6}}
    if not line.low or all(map(math.isnan, line.low)):
        return [own]
    band = {"x": [*_finite(line.x), *_finite(line.x)[::-1]], "y": [*_finite(line.high), *_finite(line.low)[::-1]]}
    style = {"fill": "toself", "fillcolor": f"{colour}/0.16", "line": {"width": 0}, "mode": "lines", "type": "scatter"}
    return [
        band | style | {"hoverinfo": "skip", "showlegend": False, "legendgroup": label},
        own | {"legendgroup": label},
    ]


def metric_label(metric: str) -> str:
    return METRIC_LABELS.get(metric, metric)


def _axes(abscissa: str, ordinate: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": plain(abscissa)}}, "yaxis": {"title": {"text": plain(ordinate)}}}


def _of_line(colour: str, width: float) -> dict[str, Any]:
    return {"mode": "lines", "line": {"color": colour, "width": width}}


class TaskScores(NamedTuple):
    """The scores of N tasks before and after adaptation; of learners that are scored once, both are equal."""

    label: str
    names: Sequence[str]
    before: Sequence[float]
    after: Sequence[float]
    is_worse: Sequence[bool]


def gains_figure(scored: Sequence[TaskScores], metric: str, caption: str) -> Figure:
    """Each task's score after adaptation over its score before; on the diagonal, adaptation has changed nothing."""
    ends = [value for each in scored for value in (*each.before, *each.after) if math.isfinite(value)] or [0.0]
    diagonal = _finite([min(ends), max(ends)])
    line = _of_line("@grey", 1.4) | {"x": diagonal, "y": diagonal, "name": "no change", "hoverinfo": "skip"}
    line["line"]["dash"] = "dot"
    data: list[dict[str, Any]] = [line | {"type": "scatter"}]
    for place, each in enumerate(scored):
        colours = ["@worse" if worse else f"@{colour_of(place)}" for worse in each.is_worse]
        symbols = ["x" if worse else "circle" for worse in each.is_worse]
        data.append(
            {
                "x": _finite(each.before),
                "y": _finite(each.after),
                "text": [plain(name) for name in each.names],
                "hovertemplate": "%{text}<br>before %{x:.4g}<br>after <b>%{y:.4g}</b><extra>%{fullData.name}</extra>",
                "mode": "markers",
                "marker": {"color": colours, "symbol": symbols, "size": 8, "opacity": 0.8},
                "name": plain(each.label),
                "type": "scatter",
            }
        )
    layout = _axes(f"{metric_label(metric)}, before", f"{metric_label(metric)}, after") | {"height": 420}
    return Figure(data, layout, "Each task before and after adaptation", caption)


def by_value_figure(
    scored: Sequence[TaskScores], field: str, values: Sequence[float], metric: str, caption: str
) -> Figure:
    """Each task's scores over the number that the task is."""
    order = sorted(range(len(values)), key=values.__getitem__)
    x, is_alone = [values[i] for i in order], len(scored) == 1
    lines = []
    for place, each in enumerate(scored):
        colour, name = colour_of(place), "" if is_alone else f"{each.label}, "
        before, after = ([rows[i] for i in order] for rows in (each.before, each.after))
        if is_alone:
            lines.append(Line("before", x, before, "grey", kind="dashed"))
        lines.append(Line(f"{name}after", x, after, colour, kind="both"))
        worse = [i for i in order if each.is_worse[i]]
        if worse:
            at, scores = [values[i] for i in worse], [each.after[i] for i in worse]
            lines.append(Line(f"{name}made worse", at, scores, "worse", kind="points"))
    return lines_figure(lines, field, metric, f"Each task by its {field}", caption)


def spread_figure(scored: Sequence[TaskScores], metric: str, caption: str) -> Figure:
    """How often each score occurs among the tasks, for learners that are scored once."""
    data = [
        {
            "x": _finite(each.after),
            "type": "histogram",
            "nbinsx": 30,
            "opacity": 0.75,
            "name": plain(each.label),
            "marker": {"color": f"@{colour_of(place)}"},
            "hovertemplate": "%{x}: %{y} tasks<extra>%{fullData.name}</extra>",
        }
        for place, each in enumerate(scored)
    ]
    layout = _axes(metric_label(metric), "tasks") | {"barmode": "overlay", "height": 380}
    values = {value for each in scored for value in each.after if math.isfinite(value)}
    if len(values) == 1:  # plotly.js would make it a bar of width 1
        (value,) = values
        width = max(abs(value), 1.0) / 50.0
        layout["xaxis"] |= {"range": [value - 10.0 * width, value + 10.0 * width]}
        data = [each | {"xbins": {"start": value - width / 2.0, "size": width}} for each in data]
    return Figure(data, layout, "Scores of the tasks", caption)


def time_figure(runs: Sequence[tuple[str, Mapping[str, float]]]) -> Figure:
    """The time that each part of training took: a stacked bar for each run. [s]"""
    names = list(dict.fromkeys(name for _, parts in runs for name in parts))
    most = max([sum(parts.values()) for _, parts in runs], default=0.0)
    unit, seconds = ("hours", 3600.0) if most > 7200 else ("minutes", 60.0) if most > 120 else ("seconds", 1.0)
    data = [
        {
            "y": [plain(label) for label, _ in runs],
            "x": [parts.get(name, 0.0) / seconds for _, parts in runs],
            "customdata": [parts.get(name, 0.0) / max(sum(parts.values()), 1e-9) for _, parts in runs],
            "name": name,
            "type": "bar",
            "orientation": "h",
            "marker": {"color": f"@{colour_of(place)}"},
            "hovertemplate": f"{name}: <b>%{{x:.3g}} {unit}</b>, %{{customdata:.0%}}<extra>%{{y}}</extra>",
        }
        for place, name in enumerate(names)
    ]
    layout: dict[str, Any] = {"barmode": "stack", "xaxis": {"title": {"text": unit}}, "height": 150 + 46 * len(runs)}
    layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    layout["yaxis"] = {"autorange": "reversed", "ticklabelstandoff": 6}
    return Figure(data, layout, "Training time by what it was spent on")


def improvement_figure(pairs: Sequence[tuple[str, Estimate]]) -> Figure:
    """The probability that a run of one entry beats a run of another on a task, with 95 % intervals."""
    rows = [each for _, each in pairs]
    up, down = [each.high - each.value for each in rows], [each.value - each.low for each in rows]
    data = [
        {
            "x": [each.value for each in rows],
            "y": [plain(label) for label, _ in pairs],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": _finite(up),
                "arrayminus": _finite(down),
                "color": "@c0",
            },
            "mode": "markers",
            "marker": {"color": "@c0", "size": 10},
            "type": "scatter",
            "hovertemplate": "%{y}: <b>%{x:.3f}</b><extra></extra>",
            "showlegend": False,
        }
    ]
    half = {"type": "line", "x0": 0.5, "x1": 0.5, "yref": "paper", "y0": 0, "y1": 1}
    layout: dict[str, Any] = {"shapes": [half | {"line": {"color": "@grey", "dash": "dot", "width": 1.4}}]}
    layout |= {"xaxis": {"title": {"text": "probability"}, "range": [-0.02, 1.02]}, "height": 130 + 40 * len(pairs)}
    layout["yaxis"] = {"autorange": "reversed"}
    caption = (
        "How likely a run of the first is to score better than a run of the second on a task that both have met, ties "
        "counting half; 95 % intervals by bootstrap over runs and tasks (Agarwal et al. 2021, section 4.3)."
    )
    return Figure(data, layout, "Probability of improvement", caption)


def plain(text: str) -> str:
    """Text that plotly does not read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _finite(values: Sequence[float]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
