"""Episodes of few-shot classification as a picture: what was learned from, what was asked, what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from maml_rl.pictures.plots import COLOURS

MOST_SHOWN = 5  # pictures of a class to learn from, and as many to be asked about
MOST_LETTERS = 24  # of a class's name; of longer ones the end is shown
RIGHT, WRONG = COLOURS[2], COLOURS[1]
CELL = 0.62  # width of a picture with what surrounds it [inches]
ROW = 1.25  # height of a picture with its answer below, in cells
BETWEEN = 0.4  # support and query, in cells
LETTER = 0.115  # width of a letter of a class's name, in cells


class Sheet(NamedTuple):
    """One episode. Classes are numbered 1, 2, ... in the order of the rows; pictures are in [0, 1], as drawn."""

    support: NDArray[np.float32]  # [ways, K, H, W, C], C being 1 for grey ones and 3 for colour
    query: NDArray[np.float32]  # [ways, Q, H, W, C]
    probabilities: NDArray[np.float64]  # [ways, Q, ways]: of each class, for each query
    names: Sequence[str] = ()  # of the classes, if they have any

    @property
    def labels(self) -> list[str]:
        """[ways]: what stands before each row, the number and the name."""
        numbers = [str(row + 1) for row in range(len(self.support))]
        if not self.names:
            return numbers
        return [f"{number}  {_shortened(name)}" for number, name in zip(numbers, self.names, strict=True)]

    @property
    def answers(self) -> NDArray[np.int64]:
        """[ways, Q]: the most probable class, from 0."""
        return self.probabilities.argmax(axis=-1)

    @property
    def is_right(self) -> NDArray[np.bool_]:
        return self.answers == np.arange(len(self.query))[:, None]


def episode_sheet(sheets: Sequence[Sheet], title: str) -> Figure:
    """The episodes side by side, a class in each row: its support, its queries with each answer's probability.

    A right answer has a full frame and a tick, a wrong one a dashed frame and the class that was answered.
    """
    widths = [_margin(sheet) + _shown(sheet.support) + BETWEEN + _shown(sheet.query) for sheet in sheets]
    most_ways = max(len(sheet.support) for sheet in sheets)
    size = CELL * (sum(widths) + 1.5 * len(sheets)), CELL * ROW * most_ways + 1.2
    figure = Figure(figsize=(max(6.0, size[0]), size[1]), layout="constrained")
    all_axes = figure.subplots(1, len(sheets), squeeze=False, width_ratios=widths)[0]
    for axes, sheet in zip(all_axes, sheets, strict=True):
        _draw(axes, sheet)
    figure.suptitle(title, fontsize=11)
    return figure


def _draw(axes: Axes, sheet: Sheet) -> None:
    ways, shots, queries = len(sheet.support), _shown(sheet.support), _shown(sheet.query)
    first_query = shots + BETWEEN
    for row, label in enumerate(sheet.labels):
        top = row * ROW
        axes.text(-0.15, top + 0.5, label, ha="right", va="center", fontsize=9, parse_math=False)
        for column in range(shots):
            _picture(axes, sheet.support[row, column], column, top)
        for column in range(queries):
            left = first_query + column
            _picture(axes, sheet.query[row, column], left, top)
            _answer(axes, sheet, row, column, left, top)
    axes.set_xlim(-_margin(sheet), first_query + queries)
    axes.set_ylim(ways * ROW, -0.55)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(shots / 2, -0.15, _heading("support", sheet.support), ha="center", fontsize=9)
    axes.text(first_query + queries / 2, -0.15, _heading("queries", sheet.query), ha="center", fontsize=9)
    axes.set_title(f"{sheet.is_right.sum()} of {sheet.is_right.size} right", fontsize=10)


def _picture(axes: Axes, picture: NDArray[np.float32], left: float, top: float) -> None:
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    extent = (left + 0.05, left + 0.95, top + 0.95, top + 0.05)
    axes.imshow(pixels, cmap="gray", vmin=0.0, vmax=1.0, extent=extent, interpolation="nearest")
    axes.add_patch(Rectangle((left + 0.05, top + 0.05), 0.9, 0.9, fill=False, edgecolor="#C0C0C0", linewidth=0.6))


def _answer(axes: Axes, sheet: Sheet, row: int, column: int, left: float, top: float) -> None:
    is_right, answer = sheet.is_right[row, column], sheet.answers[row, column]
    colour, line = (RIGHT, "-") if is_right else (WRONG, "--")
    frame = Rectangle((left + 0.05, top + 0.05), 0.9, 0.9, fill=False, edgecolor=colour, linestyle=line, linewidth=1.6)
    axes.add_patch(frame)
    share = f"{sheet.probabilities[row, column, answer]:.0%}"
    text = f"\N{CHECK MARK} {share}" if is_right else f"{answer + 1}? {share}"
    axes.text(left + 0.5, top + 1.0, text, ha="center", va="top", fontsize=6.5, color=colour)


def _shortened(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{name[1 - MOST_LETTERS :]}"


def _margin(sheet: Sheet) -> float:
    """Room for the labels, in cells."""
    return 0.385 + LETTER * max(map(len, sheet.labels))


def _heading(name: str, pictures: NDArray[np.float32]) -> str:
    count = pictures.shape[1]
    return name if count <= MOST_SHOWN else f"{name}, the first {MOST_SHOWN} of {count}"


def _shown(pictures: NDArray[np.float32]) -> int:
    return min(MOST_SHOWN, pictures.shape[1])
