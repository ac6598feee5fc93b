"""Draw the return of HalfCheetah-Vel after one gradient step against steps and minutes.

`python docs/tools/learning_figure.py` draws it. curves.csv of a results folder has a row for each checkpoint that was
scored on the published tasks; its minutes are the iteration times the seconds of one iteration alone on two cores.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from maml_rl.pictures.plots import COLOURS, GREY, clean, save_figure

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results"
PUBLISHED = -78.6
"""Return after one step of the published run, 76 million environment steps long (Finn et al. 2017, result files)."""
CURVES = {
    ("halfcheetah_vel_fast", "maml"): "MAML, --preset fast: mean and range of three seeds",
    ("halfcheetah_vel_fast", "promp"): "ProMP, --preset fast: three seeds",
    ("halfcheetah_vel_plain", "maml"): "MAML, every task the same step: three seeds",
}
"""Lines by results folder and learner."""


def main() -> None:
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    figure.suptitle("HalfCheetah-Vel, the published tasks: return after one gradient step", fontsize=11)
    for place, unit in zip(axes, ("million_steps", "minutes"), strict=True):
        for colour, ((folder, learner), label) in zip(COLOURS, CURVES.items(), strict=False):
            with open(RESULTS / folder / "curves.csv", newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["learner"] == learner]
            returns = defaultdict(list)
            for row in rows:
                returns[float(row[unit])].append(float(row["return_1"]))
            x = sorted(returns)
            place.plot(x, [np.mean(returns[each]) for each in x], "o-", color=colour, markersize=4, label=label)
            lowest, highest = ([function(returns[each]) for each in x] for function in (min, max))
            place.fill_between(x, lowest, highest, color=colour, alpha=0.2, linewidth=0)
        place.axhline(PUBLISHED, color=GREY, linestyle="--", label="published, after 76 million steps")
        place.set_xlim(left=0)
        clean(place)
    axes[0].set(xlabel="environment steps [million]", ylabel="return [reward per episode]")
    axes[1].set(xlabel="minutes on two cores")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, DOCS / "images" / "halfcheetah_vel_learning.png")


if __name__ == "__main__":
    main()
