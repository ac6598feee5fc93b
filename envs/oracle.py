"""The oracle: environments that show their task, which bounds what adaptation can gain."""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .adapters import TaskVectorWrapper
from .task_env import Task, TaskVectorEnv


def task_vector(task: Task) -> NDArray[np.float64]:
    """The numbers of a task, field by field, in one row; nested dataclasses, sequences and arrays are laid flat.

    Raises:
        TypeError: for anything that is no number.
    """
    if dataclasses.is_dataclass(task) and not isinstance(task, type):
        task = [getattr(task, field.name) for field in dataclasses.fields(task)]
    if isinstance(task, list | tuple):
        return np.concatenate([np.zeros(0), *(task_vector(part) for part in task)])
    array = np.asarray(task)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an oracle's task must consist of numbers, got {task!r}")
    return array.astype(np.float64).ravel()


class Oracle(TaskVectorWrapper):
    """`env` with the present task's numbers at the end of each observation. The wrapper closes `env`.

    Rewards, ends, seeds and tasks are `env`'s. Until `set_tasks` it needs a task that `env` knows of.
    """

    def __init__(self, env: TaskVectorEnv):
        """
        Raises:
            ValueError: unless observations are a Box of one axis and tasks consist of numbers.
        """
        inner = env.single_observation_space
        if not isinstance(inner, gymnasium.spaces.Box) or len(inner.shape) != 1:
            raise ValueError(f"an oracle needs observations in a Box of one axis, got {inner}")
        try:
            width = len(task_vector(env.sample_tasks(1, np.random.default_rng(0))[0]))
        except TypeError as error:
            raise ValueError(str(error)) from None
        unbounded = np.full(width, np.inf, inner.dtype)
        low, high = (np.concatenate(ends) for ends in ((inner.low, -unbounded), (inner.high, unbounded)))
        super().__init__(env, gymnasium.spaces.Box(low, high, dtype=inner.dtype.type))
        self.position_columns = env.position_columns
        self._task_rows = np.zeros((env.num_envs, width))  # of the episodes under way

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        if None in tasks:
            raise ValueError("an oracle must know its task: call set_tasks before reset")
        super()._reset_rows(rows, tasks)
        for row, task in zip(rows, tasks, strict=True):
            self._task_rows[row] = task_vector(task)

    def _seen(self, observations: NDArray) -> NDArray:
        return np.concatenate([observations, self._task_rows.astype(observations.dtype)], axis=1)
