"""The result of an evaluation: what is printed, and the files that are written."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from maml_rl.evaluation.adaptation_curve import AdaptationCurve, or_null, plus_minus
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.runs import Trained
from maml_rl.experiments.task_lists import fields_of, tasks_in_words
from maml_rl.storage.atomic import write_atomically


def norm_of(config: RunConfig) -> Any:
    network = getattr(config.method, "network", None)
    return "none" if network is None else network.norm


def step_sizes(config: RunConfig) -> list[float]:
    """The sizes of gradient steps at test; none for learners that take none."""
    inner = getattr(config.method, "inner", None)
    return [] if inner is None else list(inner.test_step_sizes(config.evaluation.num_steps))


def title_of(trained: Trained, described: dict[str, Any], task_range: tuple[float, float] | None) -> str:
    evaluation, config = trained.config.evaluation, trained.config
    part = config.task.evaluate_on if config.kind == "pictures" else getattr(evaluation, "split", "test")
    kind = "tasks of training" if part == "train" else tasks_in_words(described["tasks"])
    title = f"{config.env}, iteration {trained.checkpoint.iteration}, {described['num_tasks']} {kind}"
    if config.kind == "pictures":
        size = config.task.test
        title += f": {size.ways}-way {size.shots}-shot, {config.learner}, norm {norm_of(config)}"
    if task_range is not None:
        title += f" from {task_range[0]:g} to {task_range[1]:g}"
    return title


def print_table(
    curve: AdaptationCurve, trained: Trained, described: dict[str, Any], task_range: tuple[float, float] | None
) -> None:
    config, title = trained.config, title_of(trained, described, task_range)
    caption = f"Each number rests on {described['episodes']}."
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=0)
    own = ("gradient steps", "used", "step size", curve.metric, "95 % interval", "std over tasks", "gain", "worse")
    others = [*curve.measures[1:], *filter(None, [curve.likelihood])]
    has_spread = curve.likelihood is None  # else there is no room for it in 80 columns; the files have it
    for name in own:
        if has_spread or name != "std over tasks":
            table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    for other in others:
        table.add_column(other.metric, justify="right", no_wrap=True)
    if curve.reliability:
        table.add_column("calib. error", justify="right", min_width=len("calib."))
    if described["published"]:
        table.add_column("published", justify="right", style="dim", no_wrap=True)
    sizes = ["", *(f"{size:g}" for size in step_sizes(config))]
    sizes = [sizes[step] if step < len(sizes) else "" for step in curve.gradient_steps]
    spread = curve.per_task.std(dim=1, correction=0).tolist()
    gains = curve.gain.mean(dim=1).tolist()
    columns = (sizes, curve.mean, (plus_minus(half, ".3g") for half in curve.ci95), spread, gains, curve.share_worse)
    for index, row in enumerate(zip(*columns, strict=True)):
        digits = 4 if abs(row[4]) >= 1.0 else 3  # leading zeros take room
        change = (f"{row[4]:+.{digits}g}", f"{row[5]:.0%}") if curve.used[index] and index else ("", "")
        more = [f"{other.mean[index]:.3g} {plus_minus(other.ci95[index], '.2g')}" for other in others]
        more += [f"{error:.3g}" for error in curve.calibration_error[index : index + 1]]
        more += ["" if value is None else f"{value:g}" for value in described["published"][index : index + 1]]
        table.add_row(
            str(curve.gradient_steps[index]),
            str(curve.used[index]),
            row[0],
            f"{row[1]:.4g}",
            row[2],
            *([f"{row[3]:.3g}"] if has_spread else []),
            *change,
            *more,
        )
    Console(stderr=True).print(table)


def likelihood_described(curve: AdaptationCurve) -> dict[str, Any]:
    """How good predicted distributions are: the negative log-likelihood of the targets [nats], the expected calibration
    error and, at the end, the bins that it rests on."""
    if curve.likelihood is None:
        return {}
    return {
        "nll": {"mean": or_null(curve.likelihood.mean), "ci95": or_null(curve.likelihood.ci95)},
        "calibration_error": curve.calibration_error,
        "reliability": [
            dict(zip(("predicted", "happened", "share"), row, strict=True)) for row in curve.reliability[-1].rows
        ],
    }


def write_results(
    output: Path, scored: Sequence[tuple[dict[str, Any], AdaptationCurve]], described: dict[str, Any]
) -> None:
    """Write the summary, and a row for each task of each curve behind the curve's own columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels, first = scored[0]
    columns = [fields_of(task) for task in first.tasks]
    names = dict.fromkeys(itertools.chain(*columns))  # tasks may be of several kinds
    scores, *more = ([f"{each.metric}_{step}" for step in each.steps] for each in first.measures)
    writer.writerow([*labels, "task", *names, *scores, "gain", *itertools.chain(*more)])
    for labels, curve in scored:
        for index, described_task in enumerate(columns):
            own, *others = (each.per_task[:, index].tolist() for each in curve.measures)
            gain = curve.gain[-1, index].item()
            row = [index, *(described_task.get(name, "") for name in names), *own, gain, *itertools.chain(*others)]
            writer.writerow([*labels.values(), *row])
    write_atomically(output.with_name(f"{output.name}.csv"), text.getvalue().encode())
    data = json.dumps(described, indent=1, allow_nan=False) + "\n"
    write_atomically(output.with_name(f"{output.name}.json"), data.encode())
