"""Put all rows of the few-shot leaderboard into one table and one figure.

`python docs/tools/leaderboard.py` reads docs/results/omniglot_*/rows/*.json, which the leaderboard command wrote, and
writes docs/results/omniglot_leaderboard.csv and docs/images/omniglot_leaderboard.png.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from maml_rl.commands.leaderboard import ASKED_BEFORE
from maml_rl.commands.leaderboard_table import ASKED, COLUMNS, Row
from maml_rl.experiments.published import FEW_SHOT_PUBLISHED, FEW_SHOT_REPRODUCED, REPTILE_TRANSDUCTIVE
from maml_rl.pictures.plots import COLOURS, GREY, clean, save_figure

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results"

SYSTEMS = ("prototypical", "maml", "memory", "neural-statistician", "matching", "reptile", "platipus")
SIZES = ((5, 1), (5, 5), (20, 1), (20, 5))
COLOUR_OF = dict(zip(SYSTEMS, (*COLOURS, "#000000"), strict=True))

NEW_ALPHABETS = "vinyals"
"""The split whose test characters are of alphabets that training has not seen."""


def rows(results: Path = RESULTS) -> list[Row]:
    """Every stored row, by split, size and accuracy; `reproduction` is what others reached, `folder` where it lies."""
    found = []
    for file in sorted(results.glob("omniglot_*/rows/*.json")):
        row = {"init_from": None} | json.loads(file.read_text(encoding="utf-8"))
        row["asked"] = ASKED_BEFORE | row["asked"]
        row["published"] = published(row)
        row["reproduction"] = FEW_SHOT_REPRODUCED.get((row["learner"], *size(row)))
        row["folder"] = file.parents[1].name
        found.append(row)
    return sorted(found, key=lambda row: (row["split"] != NEW_ALPHABETS, row["split"], size(row), -row["accuracy"]))


def size(row: Row) -> tuple[int, int]:
    return row["asked"]["ways"], row["asked"]["shots"]


def published(row: Row) -> float | None:
    """The published accuracy; Reptile's by whether the queries are normalised together."""
    is_together = row["learner"] == "reptile" and row["norm"] == "batch"
    return REPTILE_TRANSDUCTIVE[size(row)] if is_together else FEW_SHOT_PUBLISHED.get((row["learner"], *size(row)))


def write_csv(stored: Iterable[Row], file: Path) -> None:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow([*COLUMNS, *ASKED, "reproduction", "folder"])
        for row in stored:
            asked = [row["asked"][name] for name in ASKED]
            writer.writerow([*(row[name] for name in COLUMNS), *asked, row["reproduction"], row["folder"]])


def figure(stored: Iterable[Row]) -> Figure:
    """Accuracy of the seven systems against minutes of training, a panel for each size of episodes.

    Dots are rows of the table, lines their scores during training; the vertical axis is logarithmic in the error.
    """
    stored = [row for row in stored if row["learner"] in SYSTEMS and row["iterations"]]
    drawn = Figure(figsize=(10.0, 8.0), layout="constrained")
    places = dict(zip(SIZES, drawn.subplots(2, 2).flat, strict=True))
    for (ways, shots), place in places.items():
        here = [row for row in stored if size(row) == (ways, shots)]
        place.set_title(f"{ways}-way {shots}-shot", fontsize=10)
        for learner in {row["learner"] for row in here}:
            level = FEW_SHOT_PUBLISHED.get((learner, ways, shots))
            if level is not None:
                place.axhline(1.0 - level, color=COLOUR_OF[learner], linestyle="--", linewidth=1.0, alpha=0.7)
        for row in here:
            _draw(place, row)
        _scale(place)
    entries: list[Any] = [
        Line2D([], [], color=COLOUR_OF[name], marker="o", linestyle="none", label=name) for name in SYSTEMS
    ]
    entries += [
        Line2D([], [], color=GREY, marker="o", linestyle="none", label="new alphabets"),
        Line2D([], [], color=GREY, marker="o", linestyle="none", markerfacecolor="white", label="another split"),
        Line2D([], [], color=GREY, marker="D", linestyle="none", label="asked by showings"),
        Line2D([], [], color=GREY, linestyle="--", label="published"),
    ]
    drawn.suptitle("Omniglot: accuracy against minutes of training on one core", fontsize=11)
    drawn.legend(handles=entries, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return drawn


def _draw(place: Axes, row: Row) -> None:
    colour, is_new = COLOUR_OF[row["learner"]], row["split"] == NEW_ALPHABETS
    minutes = [at for at, _ in row["progress"]]
    place.plot(minutes, [1.0 - score for _, score in row["progress"]], color=colour, linewidth=0.8, alpha=0.4)
    place.errorbar(
        row["minutes"],
        1.0 - row["accuracy"],
        yerr=row["ci95"],
        color=colour,
        marker="D" if row["asked"]["protocol"] == "showings" else "o",
        markersize=5,
        markerfacecolor=colour if is_new else "white",
        linewidth=1.0,
        zorder=3,
    )


ERRORS = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def _scale(place: Axes) -> None:
    place.set(xscale="log", yscale="log", xlabel="minutes", ylabel="accuracy [%]", ylim=(0.3, 0.0008))
    place.set_xlim(left=1.0)
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    place.yaxis.set_major_locator(FixedLocator(ERRORS))
    place.yaxis.set_minor_locator(NullLocator())
    place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * (1 - value):g}"))
    clean(place)


def main() -> None:
    stored = rows()
    write_csv(stored, RESULTS / "omniglot_leaderboard.csv")
    save_figure(figure(stored), DOCS / "images" / "omniglot_leaderboard.png")


if __name__ == "__main__":
    main()
