"""The scores of a report's entries per task: from an evaluation that is saved beside the runs, or from a new one."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.seeds import same_tasks
from maml_rl.evaluation.statistics import Estimate, estimates, interquartile_mean, mean
from maml_rl.experiments.report.entries import Entry, as_tested
from maml_rl.experiments.runs import WhichCheckpoint, load_trained, to_be_read
from maml_rl.experiments.task_lists import FRESH, fields_of


class Scores(NamedTuple):
    """The scores of R runs on N tasks at each point of their adaptation."""

    metric: str
    higher_is_better: bool
    steps: Sequence[int]
    used: Sequence[int]  # episodes or examples that each point has cost; empty where unknown
    tasks: Sequence[Mapping[str, Any]]  # the numbers of each
    values: NDArray[np.float64]  # [step, run, task]
    kind: str  # "fresh", "published", ...: which tasks they are
    origin: str  # a sentence
    iteration: int | None  # that the runs had reached

    @property
    def gain(self) -> NDArray[np.float64]:
        """[run, task]: improvement of the last score over the first; above 0 is better."""
        change = self.values[-1] - self.values[0]
        return change if self.higher_is_better else -change

    @property
    def is_worse(self) -> NDArray[np.bool_]:
        """[run, task]: whether adaptation has made a task worse; a score of nan counts."""
        return ~(self.gain >= 0)

    def means(self) -> list[Estimate]:
        """Mean over runs and tasks after each number of steps."""
        return estimates(mean, self.values)

    def interquartile_means(self) -> list[Estimate]:
        return estimates(interquartile_mean, self.values)

    def mean_gain(self) -> Estimate:
        return estimates(mean, self.gain[None])[0]


def saved_scores(entry: Entry, name: str) -> Scores | None:
    """The scores of an entry from the tables NAME.csv and NAME.json that evaluation has left in its folders.

    One table may hold all runs, told by their seeds; otherwise each run's folder has its own, of the same tasks.
    """
    homes = dict.fromkeys([entry.home, *entry.runs])
    for home in homes:
        found = _read(home / name, entry.seeds)
        if found is not None:
            return found
    parts = [_read(run / name, [seed]) for run, seed in zip(entry.runs, entry.seeds, strict=True)]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts) or any(not have_same_tasks(whole[0], part) for part in whole):
        return None
    return whole[0]._replace(values=np.concatenate([part.values for part in whole], axis=1))


def new_scores(
    entry: Entry,
    num_tasks: int,
    seed: int,
    checkpoint: WhichCheckpoint,
    trusted: tuple[str, ...],
    data_root: str | None,
    queries: int | None = None,
) -> Scores:
    """The scores of an entry on fresh tasks.

    Args:
        queries: of each class of pictures, where others than the runs' own are to be asked.
    Raises:
        ValueError: if a run has no checkpoint, or its settings or data do not fit.
        SamplingError: if an episode fails.
    """
    curves: list[AdaptationCurve] = []
    iteration = 0
    for run, config in zip(entry.runs, entry.configs, strict=True):
        own = to_be_read(as_tested(config, data_root, queries), "cpu", 0, num_tasks=num_tasks, seed=seed)
        trained = load_trained(run, own, checkpoint, trusted=trusted)
        with contextlib.closing(trained.built):
            iteration = trained.checkpoint.iteration
            curves.append(trained.built.curve(trained.state, iteration))
    first = curves[0]
    return Scores(
        first.metric,
        first.higher_is_better,
        list(first.steps),
        list(first.used),
        [fields_of(task) for task in first.tasks],
        np.stack([curve.per_task.double().numpy() for curve in curves], axis=1),
        FRESH,
        f"{num_tasks} fresh tasks, drawn with seed {seed} for this report",
        iteration,
    )


def have_same_tasks(first: Scores, second: Scores) -> bool:
    return first.metric == second.metric and same_tasks(first.tasks, second.tasks)


def _read(path: Path, seeds: Sequence[int]) -> Scores | None:
    """The scores of the runs with these seeds in a saved evaluation; None if it has not all of them, or is none."""
    try:
        about = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        with open(path.with_name(f"{path.name}.csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        by_seed: dict[int, list[dict[str, str]]] = {}
        for row in rows:
            by_seed.setdefault(int(row.get("seed", seeds[0])), []).append(row)
        if not rows or any(seed not in by_seed for seed in seeds):
            return None
        if "seed" not in rows[0] and len(seeds) > 1:
            return None
        return _scores(about, [by_seed[seed] for seed in seeds], path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no evaluation, or of another form
        return None


def _scores(about: dict[str, Any], runs: list[list[dict[str, str]]], path: Path) -> Scores:
    metric = about["metric"]
    names = list(runs[0][0])
    columns = [name for name in names if name.startswith(f"{metric}_") and name[len(metric) + 1 :].isdigit()]
    values = np.array([[[float(row[name]) for row in rows] for rows in runs] for name in columns])
    fields = names[names.index("task") + 1 : names.index(columns[0])]
    gain = np.array([[float(row["gain"]) for row in rows] for rows in runs])
    agreement = np.nansum(gain * (values[-1] - values[0]))  # a table says by its gains whether more is better
    tasks = [{name: _value(row[name]) for name in fields} for row in runs[0]]
    kind = about.get("tasks", {}).get("name", FRESH)
    origin = f"{len(tasks)} {'' if kind == FRESH else kind + ' '}tasks of the evaluation saved as {path.name}"
    return Scores(
        metric,
        bool(agreement > 0 or (agreement == 0 and metric != "mse")),
        [int(name[len(metric) + 1 :]) for name in columns],
        about.get("used") or [],
        tasks,
        values,
        kind,
        origin,
        about.get("iteration"),
    )


def _value(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


class Cost(NamedTuple):
    """What an evaluation of an entry would take."""

    seconds: float  # at the pace of training; nan if unknown
    env_steps: float  # nan where there are none, or unknown

    def __str__(self) -> str:
        if math.isnan(self.seconds):
            return "its cost cannot be told from the run's metrics"
        minutes = self.seconds / 60
        time = f"{minutes:.0f} minutes" if minutes >= 2 else f"{max(1.0, self.seconds):.0f} seconds"
        return f"{self.env_steps:,.0f} environment steps, some {time} at the pace of training"


def cost_of(entry: Entry, num_tasks: int, history: Mapping[str, NDArray[np.float64]]) -> Cost:
    """What evaluating an entry of a task environment on fresh tasks would take.

    Args:
        history: columns of the first run's metrics.
    """
    config = entry.config
    if "env_steps" not in history or "steps_per_s" not in history:
        return Cost(math.nan, math.nan)
    sampling, training = config.task.sampling, config.training
    phases = getattr(getattr(config.method, "inner", None), "num_steps", 1) + 1
    length = history["env_steps"][-1] / (training.num_tasks * sampling.episodes_per_task * phases)
    episodes = config.evaluation.episodes_per_task or sampling.episodes_per_task
    steps = len(entry.runs) * num_tasks * (config.evaluation.num_steps + 1) * episodes * length
    return Cost(float(steps / np.nanmedian(history["steps_per_s"])), float(steps))
