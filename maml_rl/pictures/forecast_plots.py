"""Pictures of predicted distributions: functions drawn from a posterior, and how reliable probabilities are."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maml_rl.pictures.plots import COLOURS, GREY, clean


class Functions(NamedTuple):
    """Functions drawn from the posterior that some examples of one task give."""

    task: str
    inputs: NDArray[np.float64]  # [points]
    targets: NDArray[np.float64]  # [points]
    examples: tuple[NDArray[np.float64], NDArray[np.float64]]  # inputs and targets, [K] each
    drawn: list[NDArray[np.float64]]  # [points] each


def functions_plot(rows: Sequence[Sequence[Functions]], title: str) -> Figure:
    """A grid of panels: a row for each task, a column for each number of examples."""
    width, height = 3.1 * len(rows[0]), 2.5 * len(rows) + 0.9
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey="row")
    style: dict[str, Any] = {"color": "#6A3D9A", "markersize": 6, "linestyle": "none", "zorder": 4}
    for all_axes, row in zip(grid, rows, strict=True):
        for axes, panel in zip(all_axes, row, strict=True):
            clean(axes)
            for place, values in enumerate(panel.drawn):
                label = None if place else "drawn"
                axes.plot(panel.inputs, values, color=COLOURS[1], linewidth=1.0, alpha=0.7, label=label)
            axes.plot(panel.inputs, panel.targets, color="black", linewidth=1.6, label="truth")
            axes.plot(*panel.examples, "^", label="examples", **style)
            count = len(panel.examples[0])
            axes.set_title(f"{panel.task}, {count} example{'' if count == 1 else 's'}", fontsize=10)
        all_axes[0].set_ylabel("y")
        spread = np.ptp(row[0].targets)  # before much is known draws may lie far from all else
        all_axes[0].set_ylim(row[0].targets.min() - spread, row[0].targets.max() + spread)
    for axes in grid[-1]:
        axes.set_xlabel("x")
    figure.suptitle(title, fontsize=11)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def reliability_plot(
    lines: Mapping[str, Sequence[tuple[float, float, float]]], errors: Mapping[str, float], title: str
) -> Figure:
    """How often events came true against the probability that was predicted, with the share of events in each bin.

    Args:
        lines: label -> (mean probability, share that came true, share of all events) of each bin.
        errors: label -> expected calibration error.
    """
    figure = Figure(figsize=(5.0, 5.4), layout="constrained")
    axes, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.0, label="perfectly calibrated")
    for (label, rows), colour in zip(lines.items(), COLOURS, strict=False):
        predicted, happened, share = (np.array(column) for column in zip(*rows, strict=True))
        axes.plot(predicted, happened, "o-", color=colour, clip_on=False, label=f"{label}: error {errors[label]:.3f}")
        shares.plot(predicted, share, "o-", color=colour, markersize=4, clip_on=False)
    for each in (axes, shares):
        clean(each)
        each.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share that came true")
    shares.set_ylabel("share of events")
    shares.set_ylim(bottom=0)
    shares.set_xlabel("predicted probability")
    figure.suptitle(textwrap.fill(title, 50), fontsize=11)
    axes.legend(frameon=False)
    return figure


class Readings(NamedTuple):
    """An episode with two readings, and how several draws read it."""

    pictures: list[NDArray[np.float32]]  # [H, W] each: the two that were shown, and one that was asked about
    shares: list[float]  # each draw's probability that the last is of the first one's class


def readings_plot(episodes: Sequence[Readings], title: str) -> Figure:
    """A row for each episode: its pictures, and a histogram of the probabilities that draws give to one class."""
    figure = Figure(figsize=(8.0, 1.15 * len(episodes) + 1.0), layout="constrained")
    grid = figure.subplots(len(episodes), 4, squeeze=False, width_ratios=(1, 1, 1, 4))
    names = ("shown: class 1", "shown: class 2", "asked", "draws by their probability of class 1")
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    for row, episode in zip(grid, episodes, strict=True):
        for axes, picture in zip(row, episode.pictures, strict=False):
            axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
            axes.set_xticks([])
            axes.set_yticks([])
        clean(row[-1])
        row[-1].hist(episode.shares, bins=np.linspace(0.0, 1.0, 21), color=COLOURS[0])
        row[-1].set_xlim(0.0, 1.0)
        row[-1].set_ylabel("draws", fontsize=8)
    grid[-1][-1].set_xlabel("probability of class 1")
    figure.suptitle(title, fontsize=11)
    return figure
