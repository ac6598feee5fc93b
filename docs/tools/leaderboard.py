"""Put all rows of the few-shot leaderboard into one table and one figure.

`python docs/tools/leaderboard.py` reads docs/results/omniglot_*/rows/*.json, which the leaderboard command wrote, and
writes docs/results/omniglot_leaderboard.csv, docs/images/omniglot_leaderboard.png and the tables of the seven systems
in README.md and docs/results.md.
"""

from __future__ import annotations

import csv
import json
import re
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

PAGES = {DOCS.parent / "README.md": 1, DOCS / "results.md": 2}
"""Pages with a table of the seven systems, and its decimals."""

TABLE_ENDS = ("<!-- the seven systems: written by docs/tools/leaderboard.py -->\n", "<!-- end of the seven systems -->")
"""The lines between which a page has the table of the seven systems."""

NAMES = {
    "prototypical": "Prototypical Networks",
    "maml": "MAML",
    "memory": "memory module",
    "neural-statistician": "Neural Statistician",
    "matching": "Matching Networks",
    "reptile": "Reptile + transduction",
    "platipus": "Probabilistic MAML",
}
SYSTEMS = tuple(NAMES)
SIZES = ((5, 1), (5, 5), (20, 1), (20, 5))
COLOUR_OF = dict(zip(SYSTEMS, (*COLOURS, "#000000"), strict=True))

NEW_ALPHABETS = "vinyals"
"""The split whose test characters are of alphabets that training has not seen."""

SPLIT_NAMES = {
    NEW_ALPHABETS: "new alphabets",
    "random-1200": "characters at random",
    "background-evaluation": "background/evaluation, by showings",
}

NOT_RUN = "not run yet"

PUBLISHED_ON = {
    "prototypical": NEW_ALPHABETS,
    "maml": "random-1200",
    "memory": "background-evaluation",
    "neural-statistician": "random-1200",
    "matching": NEW_ALPHABETS,
    "reptile": "random-1200",
}
"""The split that each system's number was published on; PLATIPUS has none on Omniglot."""


def rows(results: Path = RESULTS) -> list[Row]:
    """Every stored row, by split, size and accuracy; `reproduction` is what others reached, `folder` where it lies."""
    found = []
    for file in sorted(results.glob("omniglot_*/rows/*.json")):
        row = {"init_from": None} | json.loads(file.read_text(encoding="utf-8"))
        row["asked"] = ASKED_BEFORE | row["asked"]
        row.setdefault("training_seed", row["asked"]["seed"])  # one flag set both
        row["published"] = published(row)
        row["reproduction"] = FEW_SHOT_REPRODUCED.get((row["learner"], *size(row)))
        row["folder"] = file.parents[1].name
        found.append(row)
    return sorted(found, key=lambda row: (row["split"] != NEW_ALPHABETS, row["split"], size(row), -row["accuracy"]))


def size(row: Row) -> tuple[int, int]:
    return row["asked"]["ways"], row["asked"]["shots"]


def published(row: Row) -> float | None:
    """The published accuracy; Reptile's by whether the queries are normalised together."""
    if _is_as_published(row):
        return _published_level(row["learner"], size(row))
    return FEW_SHOT_PUBLISHED.get((row["learner"], *size(row)))


def _is_as_published(row: Row) -> bool:
    """Whether the row is of one of the seven systems: Reptile's has the queries normalised together."""
    return row["learner"] != "reptile" or row["norm"] == "batch"


def _published_level(system: str, of: tuple[int, int]) -> float | None:
    return REPTILE_TRANSDUCTIVE[of] if system == "reptile" else FEW_SHOT_PUBLISHED.get((system, *of))


def write_csv(stored: Iterable[Row], file: Path) -> None:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow([*COLUMNS, *ASKED, "reproduction", "folder"])
        for row in stored:
            asked = [row["asked"][name] for name in ASKED]
            writer.writerow([*(row[name] for name in COLUMNS), *asked, row["reproduction"], row["folder"]])


def systems_table(stored: Iterable[Row], digits: int) -> str:
    """A Markdown table of the seven systems: ours [%], and in brackets the published number where the split is that of
    the publication.

    Args:
        digits: decimals of the accuracies; with two, their 95 % intervals stand beside them.
    """
    stored = list(stored)
    lines = [["system", "test characters", *(f"{ways}-way {shots}-shot" for ways, shots in SIZES)], ["---"] * 6]
    for learner, name in NAMES.items():
        for split in dict.fromkeys((PUBLISHED_ON.get(learner, NEW_ALPHABETS), NEW_ALPHABETS)):
            cells = [_cell(best_row(stored, learner, split, each), digits) for each in SIZES]
            lines.append([name, SPLIT_NAMES[split], *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def best_row(stored: Iterable[Row], learner: str, split: str, of: tuple[int, int]) -> Row | None:
    """The row of a system on a split with the highest accuracy among those asked as its number was published: Reptile
    with the queries normalised together, and the memory module by showings on its authors' split."""
    by_showings = learner == "memory" and split == PUBLISHED_ON[learner]
    protocol = "showings" if by_showings else "support-query"
    found = [
        row
        for row in stored
        if (row["learner"], row["split"], size(row), row["asked"]["protocol"]) == (learner, split, of, protocol)
        and _is_as_published(row)
    ]
    return max(found, key=lambda row: row["accuracy"], default=None)


def _cell(row: Row | None, digits: int) -> str:
    if row is None:
        return NOT_RUN
    interval = f" ± {100 * row['ci95']:.{digits}f}" if digits > 1 else ""
    as_published = row["published"] is not None and row["split"] == PUBLISHED_ON[row["learner"]]
    beside = f" ({100 * row['published']:.1f})" if as_published else ""
    return f"{100 * row['accuracy']:.{digits}f}{interval}{beside}"


def with_table(page: str, table: str) -> str:
    """The page with the table in place of what stood between `TABLE_ENDS`."""
    first, last = TABLE_ENDS
    if page.count(first) != 1 or page.count(last) != 1:
        raise ValueError(f"the page must have the lines {first.strip()!r} and {last!r} once each")
    return re.sub(f"(?<={re.escape(first)}).*(?={re.escape(last)})", lambda _: table, page, flags=re.DOTALL)


def figure(stored: Iterable[Row]) -> Figure:
    """Accuracy of the seven systems against minutes of training, a panel for each size of episodes.

    Dots are rows of the table, lines their scores during training; the vertical axis is logarithmic in the error.
    """
    stored = [row for row in stored if row["learner"] in SYSTEMS and row["iterations"] and _is_as_published(row)]
    drawn = Figure(figsize=(10.0, 8.0), layout="constrained")
    places = dict(zip(SIZES, drawn.subplots(2, 2).flat, strict=True))
    for (ways, shots), place in places.items():
        here = [row for row in stored if size(row) == (ways, shots)]
        place.set_title(f"{ways}-way {shots}-shot", fontsize=10)
        for learner in dict.fromkeys(row["learner"] for row in here):
            level = _published_level(learner, (ways, shots))
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
    drawn.suptitle("Omniglot: accuracy against minutes of training on one core, or in part on a GPU", fontsize=11)
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
    for file, digits in PAGES.items():
        file.write_text(with_table(file.read_text(encoding="utf-8"), systems_table(stored, digits)), encoding="utf-8")


if __name__ == "__main__":
    main()
