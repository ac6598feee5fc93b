"""One experiment from several training seeds: its adaptation curves on the same tasks, taken together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.statistics import Estimate, Scores, estimates, interquartile_mean, mean


class OverSeeds(NamedTuple):
    """Statistics over R runs and N tasks at each point of the adaptation."""

    metric: str
    steps: Sequence[int]
    mean: list[Estimate]
    interquartile_mean: list[Estimate]
    gain: list[Estimate]  # mean improvement over the score before adaptation; above 0 is better
    share_worse: list[Estimate]  # of runs and tasks that adaptation has made worse


def over_seeds(curves: Sequence[AdaptationCurve]) -> OverSeeds:
    """The statistics of an experiment whose runs have these curves; of one run, its intervals are over tasks alone.

    Raises:
        ValueError: if the curves are not of the same measure, tasks and numbers of steps.
    """
    first = curves[0]
    for other in curves[1:]:
        is_same = other.metric == first.metric and list(other.steps) == list(first.steps)
        if not (is_same and same_tasks(other.tasks, first.tasks)):
            raise ValueError("curves must be of the same measure, tasks and numbers of steps to be taken together")
    gains = _stacked([curve.gain.numpy() for curve in curves])
    scores = _stacked([curve.per_task.numpy() for curve in curves])
    return OverSeeds(
        first.metric,
        first.steps,
        estimates(mean, scores),
        estimates(interquartile_mean, scores),
        estimates(mean, gains),
        estimates(mean, (~(gains >= 0)).astype(float)),
    )


def _stacked(rows: Sequence[np.ndarray]) -> Scores:
    """[step, run, task]"""
    return np.stack(rows, axis=1).astype(np.float64)


def same_tasks(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether these are the same tasks in the same order; a task's numbers may be arrays."""
    return len(first) == len(second) and all(map(_is_same, first, second))


def _is_same(first: Any, second: Any) -> bool:
    if dataclasses.is_dataclass(first) and type(first) is type(second):
        return all(_is_same(getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(first))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_is_same(first[name], second[name]) for name in first)
    return bool(np.array_equal(first, second))
