"""Statistics of scores over training seeds and tasks: means with bootstrap intervals, probability of improvement.

Scores are arrays [..., R, N]: R runs of one experiment, which differ in their training seed, each scored on the same N
tasks. Source of the measures: Agarwal et al. 2021 (arXiv:2108.13264), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Bootstrap samples behind an interval: its ends are then good to about 3 % of its width."""

Scores = NDArray[np.float64]
Statistic = Callable[[Scores], NDArray[np.float64]]
"""From scores [..., R, N] to numbers [...]."""


class Estimate(NamedTuple):
    """A number and its 95 % interval, which is nan where a single run on a single task says nothing about others."""

    value: float
    low: float
    high: float


def mean(scores: Scores) -> NDArray[np.float64]:
    """Mean over runs and tasks: [..., R, N] to [...]."""
    return scores.mean(axis=(-2, -1))


def interquartile_mean(scores: Scores) -> NDArray[np.float64]:
    """Mean of the middle half of all runs' tasks, [..., R, N] to [...]; nan where a score is nan.

    The lowest and the highest R N // 4 scores are left out, so that a few tasks that fail, or that are easy, do not
    decide. Source: Agarwal et al. 2021, section 4.3.
    """
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # nan comes last
    left_out = ordered.shape[-1] // 4
    middle = ordered[..., left_out : ordered.shape[-1] - left_out].mean(axis=-1)
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)


def estimates(statistic: Statistic, scores: Scores) -> list[Estimate]:
    """The statistic of K sets of scores with 95 % percentile bootstrap intervals over runs and tasks.

    Each bootstrap sample draws R runs and N tasks with replacement and keeps a run's scores together: of one run it is
    the bootstrap over tasks. The variance that it gives a mean is that of `crossed_variance`. Departure from rliable,
    which draws runs anew in each task: there a run is trained on one task, so that its scores are independent; here one
    run meets all tasks, and a lucky run is lucky on all.

    Args:
        scores: [K, R, N].
    Source: Owen 2007 (arXiv:0712.1111), the pigeonhole bootstrap, for the draws.
    """
    if scores.shape[-2:] == (1, 1):
        return [Estimate(value, np.nan, np.nan) for value in statistic(scores).tolist()]
    drawn = [statistic(scores[:, runs][:, :, tasks]) for runs, tasks in _draws(*scores.shape[-2:])]
    return [Estimate(*row) for row in np.column_stack([statistic(scores), *_ends(drawn)]).tolist()]


def crossed_variance(scores: Scores) -> float:
    """The variance that the bootstrap of `estimates` gives the mean of scores [R, N], in closed form.

    scores[r, n] = m + a[r] + b[n] + e[r, n]      a, b and e sum to 0 over r and over n
    variance     = sum a^2 / R^2 + sum b^2 / N^2 + sum e^2 / (R N)^2
    """
    centred = scores - scores.mean()
    of_runs, of_tasks = centred.mean(axis=1), centred.mean(axis=0)
    rest = centred - of_runs[:, None] - of_tasks
    terms = (of_runs, of_tasks, rest)
    return float(sum(np.square(term / term.size).sum() for term in terms))


def probability_of_improvement(first: Scores, second: Scores, higher_is_better: bool) -> Estimate:
    """The probability that a run of one experiment beats a run of another on a task, ties counting half.

    Both are scored on the same tasks. A score of nan, where a task diverged, is worse than any number.

    Args:
        first, second: [R1, N] and [R2, N].
    Raises:
        ValueError: if the numbers of tasks differ.
    Source: Agarwal et al. 2021, section 4.3: the mean over tasks of the Mann-Whitney statistic. Runs of each experiment
        and tasks are drawn for the interval as in `estimates`.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"both experiments must be scored on the same tasks, got {first.shape[1]}, {second.shape[1]}")
    signed = [each if higher_is_better else -each for each in (first, second)]
    above, below = (np.where(np.isnan(each), -np.inf, each) for each in (signed[0][:, None], signed[1]))
    wins = (above > below) + 0.5 * (above == below)  # [R1, R2, N]
    if wins.size == 1:
        return Estimate(float(wins.mean()), np.nan, np.nan)
    others = np.random.default_rng(1)
    drawn = [
        wins[runs][:, others.integers(len(second), size=len(second))][:, :, tasks].mean()
        for runs, tasks in _draws(*first.shape)
    ]
    return Estimate(float(wins.mean()), *_ends(drawn).tolist())


def _draws(num_runs: int, num_tasks: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of runs and tasks of each bootstrap sample, the same for every statistic."""
    rng = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        yield rng.integers(num_runs, size=num_runs), rng.integers(num_tasks, size=num_tasks)


def _ends(drawn: list) -> NDArray[np.float64]:
    """The ends of the 95 % interval of bootstrapped values."""
    return np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
