"""Pictures of numbers: each function turns values into a matplotlib Figure and touches nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Told apart by people with any kind of colour vision, and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6B6B6B"
METRIC_LABELS = {"return": "return [reward per episode]", "mse": "mean squared error", "accuracy": "accuracy"}


class LabelledCurve(NamedTuple):
    """One line of `adaptation_plot`: scores after 0, 1, ... gradient steps."""

    label: str
    mean: list[float]
    ci95: list[float] | None  # half widths of the 95 % intervals, if known
    reference: bool  # numbers from elsewhere: drawn dashed and grey, without a band


def adaptation_plot(curves: Sequence[LabelledCurve], metric: str, title: str) -> Figure:
    """Scores over gradient steps, one line per curve, intervals as bands.

    Args:
        metric: "return", "mse", ...: names the vertical axis.
    Raises:
        ValueError: if there is no curve, or one has no score or not one interval per score.
    """
    if not curves:
        raise ValueError("adaptation_plot needs at least one curve, got none")
    figure, axes = _figure(title)
    own = 0
    dashes = [(0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2))]
    for place, curve in enumerate(curves):
        steps = range(len(curve.mean))
        if not curve.mean or (curve.ci95 is not None and len(curve.ci95) != len(curve.mean)):
            raise ValueError(f"curve {curve.label!r} needs a score per step and as many intervals, got {curve}")
        if curve.reference:
            style = dashes[(place - own) % len(dashes)]
            axes.plot(steps, curve.mean, color=GREY, linestyle=style, marker="s", markersize=4, label=curve.label)
            continue
        colour = COLOURS[own % len(COLOURS)]
        own += 1
        axes.plot(steps, curve.mean, color=colour, marker="o", label=curve.label, zorder=3)
        if curve.ci95 is not None:
            _band(axes, steps, curve.mean, curve.ci95, colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("gradient steps on the task")
    _label_scores(axes, metric, any(curve.ci95 is not None and not curve.reference for curve in curves))
    return figure


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
    _clean(axes)
    axes.set_title(title, fontsize=11)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _label_scores(axes: Axes, metric: str, has_bands: bool) -> None:
    axes.set_ylabel(METRIC_LABELS.get(metric, metric))
    axes.legend(
        frameon=False,
        handlelength=3.5,
        title="bands: 95 % interval of the mean" if has_bands else None,
        title_fontsize=9,
    )


def _band(axes: Axes, x: Sequence[float], mean: Sequence[float], half: Sequence[float], colour: str) -> None:
    centre, width = np.asarray(mean), np.asarray(half)
    axes.fill_between(x, centre - width, centre + width, color=colour, alpha=0.18, linewidth=0)
