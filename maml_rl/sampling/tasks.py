"""Tasks as an environment draws them, refused unless there are as many as were asked for."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maml_rl.sampling.failures import said
from maml_rl.sampling.trajectory import SamplingError

DrawTasks = Callable[[int, np.random.Generator], Sequence[Any]]
"""(number, rng) -> tasks."""


def draw_tasks(draw: DrawTasks, name: str, num_tasks: int, rng: np.random.Generator) -> list[Any]:
    """`num_tasks` tasks.

    Args:
        name: of the environment's method, for messages.
    Raises:
        SamplingError: if it raises, or returns another number of tasks, or no sequence.
    """
    try:
        tasks: Any = draw(num_tasks, rng)
    except Exception as error:
        told = _refused(name, num_tasks, f"raised {said(error)}")
        told.add_note(f"in {name}({num_tasks}, rng):\n{traceback.format_exc()}")
        raise told from error
    if not hasattr(tasks, "__len__") or not hasattr(tasks, "__getitem__"):
        raise _refused(name, num_tasks, f"returned {type(tasks).__name__} in place of a list")
    if len(tasks) != num_tasks:
        raise _refused(name, num_tasks, f"returned {len(tasks)}")
    return list(tasks)


def _refused(name: str, num_tasks: int, what: str) -> SamplingError:
    return SamplingError(
        f"{name} was asked for {num_tasks} tasks and {what}: let it return as many as it is asked for, or ask for "
        "fewer by --num-tasks or, in the evaluations of training, --evaluation.num-tasks",
        None,
        None,
    )
