"""The course of training over an entry's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.evaluation.statistics import Estimate, estimates, interquartile_mean

MOST_POINTS = 400
"""Points of a learning curve: those of longer runs are means over windows of equal length."""

Columns = Mapping[str, NDArray[np.float64]]


class Course(NamedTuple):
    """A number over the iterations of training, over R runs."""

    iterations: list[float]
    estimates: list[Estimate]  # interquartile mean over the runs, with its interval


def course_of(histories: Sequence[Columns], name: str) -> Course | None:
    """The interquartile mean over runs of a column in windows of iterations, as far as all runs have come.

    Its interval is a bootstrap over the runs of this one experiment, its stratum (Agarwal et al. 2021, section 4.2);
    unknown for one run. None if a run has no such column.
    """
    if not histories or any(name not in history for history in histories):
        return None
    kept = [~np.isnan(history[name]) for history in histories]
    columns = [
        dict(zip(history["iteration"][known].tolist(), history[name][known].tolist(), strict=True))
        for history, known in zip(histories, kept, strict=True)
    ]
    common = sorted(set.intersection(*(set(column) for column in columns)))
    if not common:
        return None
    values = np.array([[column[iteration] for column in columns] for iteration in common])  # [iteration, run]
    width = -(-len(common) // MOST_POINTS)
    starts = np.arange(0, len(common), width)
    sizes = np.diff([*starts, len(common)])
    binned = np.add.reduceat(values, starts, axis=0) / sizes[:, None]
    middles = np.add.reduceat(np.array(common), starts) / sizes
    return Course(middles.tolist(), estimates(interquartile_mean, binned[:, :, None]))


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over the last fiftieth of a course's points, fewer at its beginning."""
    window = max(1, len(values) // 50)
    total = np.cumsum([0.0, *values])
    return [float((total[i + 1] - total[max(0, i + 1 - window)]) / min(i + 1, window)) for i in range(len(values))]


PARTS = {
    "sample_seconds": "sampling",
    "adapt_seconds": "adaptation",
    "outer_seconds": "outer step",
    "evaluation_seconds": "evaluation",
}
"""Columns of the time that parts of training took, and their names."""


def time_spent(history: Columns) -> dict[str, float]:
    """The seconds that training has spent on each of its parts; none if the metrics do not say."""
    if "wall_seconds" not in history or "iteration_seconds" not in history:
        return {}
    parts = {name: float(np.nansum(history[column])) for column, name in PARTS.items() if column in history}
    inside = sum(value for name, value in parts.items() if name != "evaluation")
    parts["rest of the iteration"] = max(0.0, float(np.nansum(history["iteration_seconds"])) - inside)
    known = sum(parts.values())
    iterations, wall = history["iteration"], history["wall_seconds"]
    if iterations[-1] - iterations[0] == len(iterations) - 1:  # a shortened table does not tell
        of_rows = [history[name][1:] for name in ("iteration_seconds", "evaluation_seconds") if name in history]
        later = sum(float(np.nansum(seconds)) for seconds in of_rows)
        parts["saving and logging"] = max(0.0, float(wall[-1] - wall[0]) - later)
    return {name: value for name, value in parts.items() if value > 0.001 * max(known, 1e-9)}
