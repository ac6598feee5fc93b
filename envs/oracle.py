"""The same worlds for a robot that is told its task: what adaptation can at best find out."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .task_env import Step, Task, TaskVectorEnv


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


class Oracle(TaskVectorEnv):
    """`env` with the present task's numbers at the end of each observation. It takes `env` over.

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
        self._env = env
        try:
            width = len(task_vector(env.sample_tasks(1, np.random.default_rng(0))[0]))
        except TypeError as error:
            raise ValueError(str(error)) from None
        unbounded = np.full(width, np.inf, inner.dtype)
        low, high = (np.concatenate(ends) for ends in ((inner.low, -unbounded), (inner.high, unbounded)))
        self.metadata = env.metadata
        self.position_columns, self.picture_note = env.position_columns, env.picture_note
        self.task_type, self.reports_success = env.task_type, env.reports_success
        self.is_copied = env.is_copied
        super().__init__(
            num_envs=env.num_envs,
            horizon=env.horizon,
            single_observation_space=gymnasium.spaces.Box(low, high, dtype=inner.dtype.type),
            single_action_space=env.single_action_space,
            default_task=None,
            render_mode=env.render_mode,
        )
        self._tasks = list(env._tasks)
        self.generators = env.generators
        self._task_rows = np.zeros((env.num_envs, width))  # of the episodes under way

    @property
    def world(self) -> TaskVectorEnv:
        """What it took over."""
        return self._env

    @property
    def task_range(self) -> tuple[float, float] | None:  # type: ignore[override]
        return self._env.task_range

    @task_range.setter
    def task_range(self, task_range: tuple[float, float] | None) -> None:
        self._env.task_range = task_range

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._env.sample_tasks(num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._env.sample_test_tasks(num_tasks, rng)

    def render_one(self, index: int) -> NDArray[np.uint8]:
        return self._env.render_one(index)

    def close_extras(self, **kwargs: Any) -> None:
        self._env.close()

    def _seed_row(self, row: int, seed: int | None) -> None:
        self._env._seed_row(row, seed)

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        if None in tasks:
            raise ValueError("an oracle must know its task: call set_tasks before reset")
        self._env._reset_rows(rows, tasks)
        for row, task in zip(rows, tasks, strict=True):
            self._task_rows[row] = task_vector(task)

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        observations, rewards, terminated, truncated, infos = self._env._step_rows(actions, alive)
        return self._with_task(observations), rewards, terminated, truncated, infos

    def _observe(self) -> NDArray:
        return self._with_task(self._env._observe())

    def _with_task(self, observations: NDArray) -> NDArray:
        return np.concatenate([observations, self._task_rows.astype(observations.dtype)], axis=1)
