"""Pictures of what a model of sets believes: drawings that it imagines, summaries of sets, and contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from maml_rl.pictures.plots import COLOURS, GREY

CELL = 0.55  # side of a drawing [inches]
GAP = 0.5  # between what is given and what is imagined, in cells
MARGIN = 0.08  # around a drawing, in cells


class Imagined(NamedTuple):
    """A set, and new members of it; drawings are in [0, 1], as drawn."""

    name: str
    given: NDArray[np.float64]  # [K, H, W]
    new: NDArray[np.float64]  # [M, H, W]


class Summarised(NamedTuple):
    """A set, and the members that tell most about it."""

    name: str
    members: NDArray[np.float64]  # [K, H, W]
    chosen: Sequence[int]  # places among the members, the most telling first
    divergences: Sequence[float]  # from the whole set, with 1, 2, ... of the chosen
    at_random: Sequence[float]  # the same for members drawn at random, on average


class Believed(NamedTuple):
    """A set of numbers by its shape, its moments and the mean of what is believed about it."""

    shape: str
    mean: float
    variance: float
    context: NDArray[np.float64]  # [C]


class Predicted(NamedTuple):
    """A density and its prediction from numbers that were seen."""

    name: str
    at: NDArray[np.float64]  # [A]
    true: NDArray[np.float64]  # [A]
    predicted: NDArray[np.float64]  # [A]
    seen: NDArray[np.float64]  # [K]


def imagined_sheet(rows: Sequence[Imagined], title: str) -> Figure:
    """A set in each row: the drawings given, then those imagined."""
    shots, new = len(rows[0].given), len(rows[0].new)
    figure, axes = _sheet(title, shots + GAP + new, len(rows))
    for place, row in enumerate(rows):
        for column, drawing in enumerate(row.given):
            _drawing(axes, drawing, column, place, COLOURS[0])
        for column, drawing in enumerate(row.new):
            _drawing(axes, drawing, shots + GAP + column, place)
        _label(axes, row.name, place)
    axes.text(shots / 2, -0.2, "given", ha="center", fontsize=9)
    axes.text(shots + GAP + new / 2, -0.2, "imagined", ha="center", fontsize=9)
    return figure


def summary_sheet(rows: Sequence[Summarised], title: str) -> Figure:
    """A set in each row: all of its members, those of the summary framed and numbered in the order of their choice; and
    how far what is believed from the summary is from what is believed from all."""
    size = len(rows[0].members)
    figure, axes = _sheet(title, size, len(rows), beside=3.2)
    for place, row in enumerate(rows):
        for column, drawing in enumerate(row.members):
            is_chosen = column in row.chosen
            _drawing(axes, drawing, column, place, COLOURS[1] if is_chosen else None)
            if is_chosen:
                number = str(list(row.chosen).index(column) + 1)
                axes.text(column + 0.86, place + 0.9, number, ha="right", fontsize=7, color=COLOURS[1], weight="bold")
        _label(axes, row.name, place)
    curves = figure.axes[1]
    for label, colour, style, values in (
        ("summary", COLOURS[1], "-", [row.divergences for row in rows]),
        ("at random", GREY, "--", [row.at_random for row in rows]),
    ):
        lines = np.asarray(values)
        counts = np.arange(1, lines.shape[1] + 1)
        curves.plot(counts, lines.T, color=colour, linestyle=style, alpha=0.3, linewidth=0.8)
        curves.plot(counts, lines.mean(axis=0), color=colour, linestyle=style, marker="o", markersize=4, label=label)
    curves.set_xticks(counts)
    curves.set_xlabel("drawings", fontsize=9)
    curves.set_ylabel("KL from all drawings [nats]", fontsize=9)
    curves.set_yscale("log")
    curves.spines[["top", "right"]].set_visible(False)
    curves.legend(frameon=False, fontsize=8)
    return figure


def context_plot(sets: Sequence[Believed], title: str) -> Figure:
    """The mean contexts of sets of numbers in the plane in which they vary most, by shape, mean and variance."""
    figure = Figure(figsize=(12.0, 4.2), layout="constrained")
    panels = list(figure.subplots(1, 3))
    places = _principal(np.stack([each.context for each in sets]))
    shapes = [each.shape for each in sets]
    for colour, shape in zip(COLOURS, sorted(set(shapes)), strict=False):
        rows = places[[each == shape for each in shapes]]
        panels[0].scatter(*rows.T, s=14, color=colour, label=shape, alpha=0.8, linewidths=0)
    panels[0].legend(
        frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.06), handletextpad=0.0
    )
    panels[0].set_title("by shape", fontsize=10)
    for axes, name in zip(panels[1:], ("mean", "variance"), strict=True):
        values = [getattr(each, name) for each in sets]
        points = axes.scatter(*places.T, s=14, c=values, cmap="viridis", linewidths=0)
        figure.colorbar(points, ax=axes)
        axes.set_title(f"by {name}", fontsize=10)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("first principal direction of the context", fontsize=9)
    panels[0].set_ylabel("second", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def density_plot(plots: Sequence[Predicted], title: str) -> Figure:
    """True and predicted densities, with the numbers seen as ticks."""
    figure = Figure(figsize=(3.4 * len(plots), 3.2), layout="constrained")
    for axes, plot in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        axes.plot(plot.at, plot.true, color=GREY, linestyle="--", label="true")
        axes.plot(plot.at, plot.predicted, color=COLOURS[0], label="predicted")
        axes.plot(plot.seen, np.full_like(plot.seen, -0.02), "|", color=COLOURS[1], markersize=6, alpha=0.4)
        axes.set_title(plot.name, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("density", fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _sheet(title: str, columns: float, rows: int, beside: float = 0.0) -> tuple[Figure, Axes]:
    """Axes for drawings in columns and rows; with `beside` inches on the right for further axes."""
    width, height = CELL * columns + 1.7, CELL * rows + 0.8
    figure = Figure(figsize=(width + beside, max(height, 3.0 if beside else 0.0)), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=[width, beside])[0] if beside else figure.add_subplot()
    axes.set_xlim(-1.7 / CELL, columns)
    axes.set_ylim(rows, -0.6)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.suptitle(title, fontsize=11)
    return figure, axes


def _drawing(axes: Axes, drawing: NDArray[np.float64], left: float, top: float, colour: str | None = None) -> None:
    low, high = MARGIN, 1.0 - MARGIN
    extent = (left + low, left + high, top + high, top + low)
    axes.imshow(drawing, cmap="gray", vmin=0.0, vmax=1.0, extent=extent, interpolation="nearest")
    corner, side, width = (left + low, top + low), high - low, 1.5 if colour else 0.5
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour or "#C0C0C0", linewidth=width))


def _label(axes: Axes, name: str, row: int) -> None:
    axes.text(-0.1, row + 0.5, name, ha="right", va="center", fontsize=7, parse_math=False)


def _principal(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points [N, C] in the plane in which they vary most: [N, 2]; with C = 1 the second place is 0."""
    centred = points - points.mean(axis=0)
    found = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
