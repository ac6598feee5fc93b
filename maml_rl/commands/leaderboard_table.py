"""The few-shot leaderboard as files: CSV, JSON, Markdown and a plot of accuracy over minutes of training."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from maml_rl.pictures.plots import Progress, progress_plot, save_figure
from maml_rl.storage.atomic import write_atomically

Row = dict[str, Any]
"""A line of the table, `COLUMNS`, and beside them what was `asked` of the learner and its `progress`, [minutes,
accuracy] of each evaluation during training. All values fit JSON."""

COLUMNS: tuple[str, ...] = ("learner", "accuracy", "ci95", "published", "norm", "gradient_steps", "split", "trained_on")
COLUMNS += ("train_ways", "train_shots", "init_from", "training_seed", "iterations", "minutes", "commit", "evaluate")
ASKED = ("ways", "shots", "num_episodes", "test_queries", "seed", "protocol")


def write_tables(folder: Path, rows: Sequence[Row], budget: str) -> None:
    """Write leaderboard.csv, .json, .md and .png; each file whole or not at all.

    Args:
        rows: at least one; all were asked the same.
        budget: how long each was trained, for the words above the Markdown table.
    """
    rows = ranked(rows)
    for ending, content in (
        ("csv", _csv(rows)),
        ("json", f"{json.dumps(rows, indent=1)}\n"),
        ("md", _markdown(rows, budget)),
    ):
        write_atomically(folder / f"leaderboard.{ending}", content.encode())
    learners = [
        Progress(
            row["learner"],
            [minutes for minutes, _ in row["progress"]],
            [score for _, score in row["progress"]],
            (
                row["minutes"] if row["iterations"] else 0.0,
                row["accuracy"],
                math.nan if row["ci95"] is None else row["ci95"],
            ),
        )
        for row in rows
    ]
    asked = rows[0]["asked"]
    title = f"{_size(rows[0])}, {asked['protocol']}: {asked['num_episodes']} test episodes"
    save_figure(progress_plot(learners, "accuracy", title), folder / "leaderboard.png")


def ranked(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row["accuracy"])


def print_table(rows: Sequence[Row]) -> None:
    """Print the table on stderr, narrow enough for a terminal."""
    table = Table(box=SIMPLE_HEAD, padding=0, caption=f"Protocol {rows[0]['asked']['protocol']}.")
    for name in ("learner", "accuracy", "published", "norm", "iterations", "minutes"):
        table.add_column(f" {name}", justify="left" if name in ("learner", "norm") else "right")
    for row in ranked(rows):
        accuracy = _score(row, "+-")
        cells = (row["learner"], accuracy, _published(row), row["norm"], f"{row['iterations']:,}")
        table.add_row(*(f" {cell}" for cell in (*cells, f"{row['minutes']:.1f}")))
    Console(stderr=True).print(table)


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *ASKED])
    writer.writerows([*(row[name] for name in COLUMNS), *(row["asked"][name] for name in ASKED)] for row in rows)
    return text.getvalue()


def _markdown(rows: Sequence[Row], budget: str) -> str:
    asked = rows[0]["asked"]
    lines = [
        f"{_size(rows[0])}: accuracy [%] with its 95 % interval on the same {asked['num_episodes']} test episodes with "
        f"{asked['test_queries']} queries per class, protocol "
        f"{asked['protocol']}. Each learner was trained for at most {budget}; "
        f"seed {asked['seed']}.",
        "",
        "| learner | accuracy | published | norm | steps | trained on | iterations | minutes | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["learner"],
            _score(row, "±"),
            _published(row),
            row["norm"],
            str(row["gradient_steps"]),
            f"{row['split']}, {row['trained_on']}, {row['train_ways']}-way {row['train_shots']}-shot"
            + (f", from {row['init_from']}" if row["init_from"] else ""),
            f"{row['iterations']:,}",
            f"{row['minutes']:.1f}",
            (row["commit"] or "")[:7],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Each row again, without training:", "", "```", *(row["evaluate"] for row in rows), "```", ""]
    return "\n".join(lines)


def _size(row: Row) -> str:
    return f"{row['asked']['env']}, {row['asked']['ways']}-way {row['asked']['shots']}-shot"


def _score(row: Row, between: str) -> str:
    """The accuracy and, if there was more than one episode, its interval."""
    score = _percent(row["accuracy"])
    return score if row["ci95"] is None else f"{score} {between} {_percent(row['ci95'])}"


def _published(row: Row) -> str:
    return "" if row["published"] is None else _percent(row["published"])


def _percent(share: float) -> str:
    return f"{100.0 * share:.2f}"
