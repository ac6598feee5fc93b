"""Pictures of numbers: each function turns values into a matplotlib Figure and touches nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# Distinct for people with any kind of colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6B6B6B"
MOST_TICKS = 12
MOST_INSIDE = 4  # curves whose legend fits among them; the legend of more is put beside the axes
METRIC_LABELS = {
    "return": "return [reward per episode]",
    "mse": "mean squared error",
    "accuracy": "accuracy",
    "log_density": "log-density of a new number [nats]",
}


class LabelledCurve(NamedTuple):
    """One line of `adaptation_plot`: scores after 0, 1, ... gradient steps."""

    label: str
    mean: list[float]
    ci95: list[float] | None  # half widths of the 95 % intervals, if known; nan where one is not
    reference: bool  # numbers from elsewhere: drawn dashed and grey, without a band
    steps: Sequence[int] = ()  # the numbers of gradient steps, if not 0, 1, ...
    used: Sequence[int] = ()  # episodes or examples that each score has cost, if known


def adaptation_plot(curves: Sequence[LabelledCurve], metric: str, title: str) -> Figure:
    """Scores over gradient steps, one line per curve, intervals as bands.

    Args:
        metric: "return", "mse", ...: names the vertical axis.
    Raises:
        ValueError: if there is no curve, or one has no score or not one interval per score.
    """
    if not curves:
        raise ValueError("adaptation_plot needs at least one curve, got none")
    is_crowded = len(curves) > MOST_INSIDE
    figure, axes = _figure(title, width=8.5 if is_crowded else 6.0)
    own = 0
    dashes = [(0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1))]
    for place, curve in enumerate(curves):
        steps = curve.steps or range(len(curve.mean))
        if not curve.mean or (curve.ci95 is not None and len(curve.ci95) != len(curve.mean)):
            raise ValueError(f"curve {curve.label!r} needs a score per step and as many intervals, got {curve}")
        if curve.reference:
            style = dashes[(place - own) % len(dashes)]
            axes.plot(steps, curve.mean, color=GREY, linestyle=style, marker="s", markersize=4, label=curve.label)
            continue
        colour = COLOURS[own % len(COLOURS)]
        own += 1
        axes.plot(steps, curve.mean, color=colour, marker="o", label=curve.label, zorder=3)
        if curve.ci95 is not None and _has_band(curve):
            _band(axes, steps, curve.mean, curve.ci95, colour)
    _label_cost(axes, curves, "episodes" if metric in ("return", "success") else "examples")
    _label_scores(axes, metric, any(_has_band(curve) for curve in curves), is_crowded)
    return figure


def _label_cost(axes: Axes, curves: Sequence[LabelledCurve], unit: str) -> None:
    """Name what a score costs: its episodes or examples, gradient steps below them."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    costs = {step: used for curve in curves for step, used in zip(curve.steps, curve.used, strict=False)}
    if not costs:
        axes.set_xlabel("gradient steps on the task")
        return
    shown = [step for step in costs if step in axes.get_xticks() or len(costs) < MOST_TICKS]
    axes.set_xticks(shown, [f"{costs[step]}\n({step})" for step in shown])
    axes.set_xlabel(f"{unit} of the task (gradient steps)")


class History(NamedTuple):
    """A number over the iterations of training."""

    label: str
    iterations: list[int]
    values: list[float]
    ci95: list[float] | None
    """Half widths, nan where unknown, of numbers that are seldom measured; these are drawn as points."""


def learning_plot(histories: Sequence[History], metric: str, title: str, window: int) -> Figure:
    """Scores over iterations of training.

    Args:
        window: iterations that the thick lines are averages over; the numbers themselves are drawn faintly.
    """
    figure, axes = _figure(title)
    for history, colour in zip(histories, COLOURS, strict=False):
        x, y = np.asarray(history.iterations), np.asarray(history.values)
        if history.ci95 is not None:
            style: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "elinewidth": 1.0, "capsize": 0, "alpha": 0.9}
            axes.errorbar(x, y, history.ci95, color=colour, label=history.label, zorder=3, **style)
            continue
        if window > 1 and len(y) > window:
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
            kernel = np.ones(window) / window
            x, y = x[window - 1 :], np.convolve(y, kernel, mode="valid")
        axes.plot(x, y, color=colour, label=history.label, zorder=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iterations of meta-training" + (f" (lines: mean of the last {window})" if window > 1 else ""))
    axes.set_ylabel(METRIC_LABELS.get(metric, metric))
    axes.legend(frameon=False)
    return figure


class Progress(NamedTuple):
    """A learner's scores over the time of its training."""

    label: str
    minutes: list[float]
    values: list[float]  # measured during training
    final: tuple[float, float, float]  # minutes, score and half of its 95 % interval, of the finished learner


def progress_plot(learners: Sequence[Progress], metric: str, title: str) -> Figure:
    """Scores over the time of training: lines during training, points with intervals at its end.

    A learner that is not trained is a level dotted line.
    """
    figure, axes = _figure(title, width=8.5)
    for place, learner in enumerate(learners):
        colour = COLOURS[place % len(COLOURS)]
        end, score, half = learner.final
        if end == 0.0:
            axes.axhline(score, linestyle=":", color=colour, label=learner.label)
            continue
        x, y, dash = [*learner.minutes, end], [*learner.values, score], "-" if place < len(COLOURS) else "--"
        axes.plot(x, y, linestyle=dash, linewidth=1.2, color=colour, label=learner.label)
        axes.errorbar([end], [score], [half], fmt="o", markersize=5, color=colour, zorder=3)
    axes.set_xlabel("minutes of training")
    _label_scores(axes, metric, has_bands=False, is_crowded=True)
    return figure


class Journey(NamedTuple):
    """The paths of one task's episodes in the plane. [m]"""

    task: str
    goal: tuple[float, float]
    paths: list[NDArray[np.float64]]  # one episode each [steps + 1, 2] after 0, 1, ... gradient steps


def paths_plot(journeys: Sequence[Journey], title: str) -> Figure:
    """Paths before and after each gradient step, a pair of axes per task: dots where they end, a star for the goal."""
    figure, all_axes = _panels(title, len(journeys), size=3.1)
    for axes, journey in zip(all_axes, journeys, strict=True):
        for phase, path in enumerate(journey.paths):
            colour = _progress_colour(phase, len(journey.paths))
            axes.plot(*path.T, color=colour, linewidth=1.0, alpha=0.75, label=_steps_in_words(phase))
            axes.plot(*path[-1], "o", color=colour, markeredgecolor="white", markersize=7, zorder=3)
        axes.plot(*journey.paths[0][0], "o", color="black", markersize=5, label="start", zorder=3)
        style: dict[str, Any] = {"color": "#F0C000", "markeredgecolor": "black", "markersize": 13, "linestyle": "none"}
        axes.plot(*journey.goal, "*", label="goal", zorder=4, **style)
        axes.set_title(journey.task, fontsize=10)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("x [m]")
    all_axes[0].set_ylabel("y [m]")
    _shared_legend(figure, all_axes[0])
    return figure


class Regression(NamedTuple):
    """A function, the examples that a network adapted to, and what it predicts."""

    task: str
    inputs: NDArray[np.float64]  # [points]
    targets: NDArray[np.float64]  # [points]
    examples: tuple[NDArray[np.float64], NDArray[np.float64]]  # inputs and targets, [K] each
    predictions: dict[int, NDArray[np.float64]]  # gradient steps -> [points]


def regression_plot(regressions: Sequence[Regression], title: str) -> Figure:
    """Predicted functions after some numbers of gradient steps, one pair of axes per task."""
    figure, all_axes = _panels(title, len(regressions), size=3.1)
    for axes, regression in zip(all_axes, regressions, strict=True):
        axes.plot(regression.inputs, regression.targets, color="black", linewidth=1.6, label="target")
        for place, (steps, values) in enumerate(regression.predictions.items()):
            colour = _progress_colour(place, len(regression.predictions))
            axes.plot(regression.inputs, values, color=colour, linewidth=1.4, label=_steps_in_words(steps))
        style: dict[str, Any] = {"color": "#6A3D9A", "markersize": 6, "linestyle": "none", "zorder": 4}
        axes.plot(*regression.examples, "^", label="examples to adapt to", **style)
        axes.set_title(regression.task, fontsize=10)
        axes.set_xlabel("x")
    all_axes[0].set_ylabel("y")
    _shared_legend(figure, all_axes[0])
    return figure


def iteration_plot(iterations: Sequence[tuple[str, dict[str, float]]]) -> Figure:
    """The time that each part of an iteration takes: a stacked bar for each, its parts in the same order. [s]"""
    figure, axes = _figure(
        "Seconds of one meta-iteration, by what they are spent on", width=8.5, height=1.6 + len(iterations)
    )
    colours = ("#404040", *COLOURS)
    starts = np.zeros(len(iterations))
    for place, part in enumerate(iterations[0][1]):
        widths = np.array([parts[part] for _, parts in iterations])
        axes.barh(
            range(len(iterations)), widths, left=starts, color=colours[place % len(colours)], label=part, height=0.6
        )
        starts += widths
    axes.set_yticks(range(len(iterations)), [name for name, _ in iterations])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def cost_plot(num_tasks: Sequence[int], seconds_per_task: Sequence[float]) -> Figure:
    """The time per task in an iteration, for iterations of more and more tasks. [s]"""
    figure, axes = _figure("Cost of a task in one meta-iteration")
    axes.plot(num_tasks, seconds_per_task, color=COLOURS[0], marker="o")
    axes.set_xscale("log")
    axes.set_xticks(num_tasks, [str(count) for count in num_tasks])
    axes.minorticks_off()
    axes.set_ylim(0.0, 1.25 * max(seconds_per_task))
    axes.set_xlabel("tasks in an iteration")
    axes.set_ylabel("seconds per task")
    return figure


def _steps_in_words(steps: int) -> str:
    return "before" if steps == 0 else f"{steps} step{'s' if steps > 1 else ''}"


def _progress_colour(place: int, count: int) -> tuple[float, float, float, float] | str:
    """Grey before adaptation, then from orange to blue."""
    if place == 0:
        return "#9A9A9A"
    return colormaps["plasma"](0.75 - 0.75 * (place - 1) / max(1, count - 2))


def _panels(title: str, count: int, size: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(size * count, 2 * size), size + 0.9), layout="constrained")
    all_axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axes in all_axes:
        clean(axes)
    figure.suptitle(title, fontsize=11)
    return figure, all_axes


def _shared_legend(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=9)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as `path`'s ending says; it is there whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    aside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        figure.savefig(aside, dpi=150)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _figure(title: str, width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """One set of axes in a clean frame. [inches]"""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    clean(axes)
    axes.set_title(title, fontsize=11)
    return figure, axes


def clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _label_scores(axes: Axes, metric: str, has_bands: bool, is_crowded: bool) -> None:
    axes.set_ylabel(METRIC_LABELS.get(metric, metric))
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if is_crowded else {}
    axes.legend(
        **beside,
        frameon=False,
        handlelength=3.5,
        title="bands: 95 % interval of the mean" if has_bands else None,
        title_fontsize=9,
    )


def _has_band(curve: LabelledCurve) -> bool:
    return not curve.reference and curve.ci95 is not None and not np.isnan(curve.ci95).all()


def _band(axes: Axes, x: Sequence[float], mean: Sequence[float], half: Sequence[float], colour: str) -> None:
    centre, width = np.asarray(mean), np.asarray(half)
    axes.fill_between(x, centre - width, centre + width, color=colour, alpha=0.18, linewidth=0)
