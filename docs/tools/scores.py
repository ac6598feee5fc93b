"""Tables of all stored results, read from docs/results."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import code, table

RESULTS = Path(__file__).parents[1] / "results"


def evaluations() -> str:
    """A table of each stored evaluation of a run, or of several seeds."""
    return "\n".join(_evaluation(path, data) for path, data in _stored() if isinstance(data.get("mean"), list))


def comparisons() -> str:
    """A table of each stored comparison of methods, with the published numbers."""
    return "\n".join(_comparison(path, data) for path, data in _stored() if "methods" in data)


def classifiers() -> str:
    """The few-shot leaderboard."""
    with open(RESULTS / "omniglot_leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        [
            f"{row['ways']}-way {row['shots']}-shot",
            row["split"],
            code(row["learner"]) + (" from " + Path(row["init_from"]).name if row["init_from"] else ""),
            f"{100 * float(row['accuracy']):.2f} +- {100 * float(row['ci95']):.2f}",
            f"{100 * float(row['published']):.1f}" if row["published"] else "",
            row["iterations"],
            f"{float(row['minutes']):.0f}",
            code(row["commit"][:7]),
        ]
        for row in rows
    ]
    header = ["task", "split", "learner", "accuracy [%]", "published [%]", "iterations", "minutes", "commit"]
    return table(header, lines)


def _stored() -> list[tuple[Path, dict[str, Any]]]:
    found = [path for path in sorted(RESULTS.glob("*/*.json")) if path.name not in ("config.json", "leaderboard.json")]
    return [(path, data) for path in found if isinstance(data := json.loads(path.read_text()), dict)]


def _evaluation(path: Path, data: dict[str, Any]) -> str:
    halves = [_interval(data, i) for i in range(len(data["mean"]))]
    rows: list[Sequence[object]] = [
        [data["metric"], *map(_number, data["mean"])],
        ["95 % interval", *halves],
        ["gain", *map(_number, data["gain"])],
        ["tasks made worse", *(f"{share:.0%}" for share in data["share_worse"])],
    ]
    if iqm := data.get("interquartile_mean"):
        rows.insert(2, ["interquartile mean", *map(_number, iqm)])
    if published := data.get("published"):
        rows.append(["published", *map(_number, published)])
    tasks = data.get("tasks") or {}
    source = tasks.get("source") if tasks.get("name") == "published" else None
    about = [f"{data['env']}, {data['num_tasks']} {'published' if source else 'fresh'} tasks", data["episodes"]]
    if seeds := data.get("seeds"):
        about.append(f"training seeds {', '.join(map(str, seeds))}")
    header = ["gradient steps", *data["steps"]]
    name = path.relative_to(RESULTS).with_suffix("")
    return f"### {name}\n\n{'; '.join(about)}.\n\n{table(header, rows)}"


def _interval(data: dict[str, Any], index: int) -> str:
    if interval := data.get("mean_interval"):
        return f"{_number(interval[index][0])} to {_number(interval[index][1])}"
    half = data["ci95"][index]
    return "" if half is None else f"+- {_number(half)}"


def _comparison(path: Path, data: dict[str, Any]) -> str:
    number = max(len(each["mean"]) for each in data["methods"].values())
    rows: list[Sequence[object]] = []
    for name, each in data["methods"].items():
        rows.append([name, *_padded([_number(value) for value in each["mean"]], number)])
        published = data.get("published", {}).get(name)
        if published is not None:
            values = published if isinstance(published, list) else [published]
            rows.append([f"{name}, published", *_padded([_number(value) for value in values], number)])
    header = ["method", *(f"{step} steps" if step != 1 else "1 step" for step in range(number))]
    about = f"{data['env']}, {data['num_tasks']} tasks, {data['checkpoint']} checkpoint"
    return f"### {path.relative_to(RESULTS).with_suffix('')}\n\n{about}.\n\n{table(header, rows)}"


def _padded(cells: Sequence[str], number: int) -> list[str]:
    return [*cells[:number], *[""] * (number - len(cells))]


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


PAGES = {"evaluations": evaluations, "comparisons": comparisons, "classifiers": classifiers}
"""What stands for `<!-- generated: NAME -->` in a page."""
