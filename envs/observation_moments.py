"""Mean and standard deviation of an environment's observations."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .task_env import Task, TaskVectorEnv


def observation_moments(
    env: TaskVectorEnv, tasks: Sequence[Task], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation [O] of what is observed before acting, over one episode of every task in every
    sub-environment.

    Actions are drawn uniformly from the action space: a policy would act on observations that nobody has scaled yet.
    The deviation of an entry that stays the same is 1.

    Raises:
        SimulationError: if an episode fails.
    """
    actions = copy.deepcopy(env.action_space)
    actions.seed(int(rng.integers(2**31)))
    origin: NDArray[np.float64] | None = None
    count, total, squares = 0, np.zeros(0), np.zeros(0)
    for task in tasks:
        env.set_tasks([task] * env.num_envs)
        observations, _ = env.reset(seed=rng.integers(2**32, size=env.num_envs).tolist())
        alive = np.ones(env.num_envs, dtype=bool)
        while alive.any():
            rows = observations[alive].reshape(alive.sum(), -1).astype(np.float64)
            if origin is None:
                origin = rows[0].copy()  # squares of what lies near 0 keep the digits that those of a large mean lose
                total, squares = np.zeros_like(origin), np.zeros_like(origin)
            rows -= origin
            count += len(rows)
            total += rows.sum(axis=0)
            squares += np.square(rows).sum(axis=0)
            observations, _, terminated, truncated, _ = env.step(actions.sample(), alive)
            alive &= ~(terminated | truncated)
    assert origin is not None
    resolution = np.finfo(observations.dtype).eps if observations.dtype.kind == "f" else 0.0
    shift = total / count
    mean, std = origin + shift, np.sqrt(np.maximum(squares / count - np.square(shift), 0.0))
    is_constant = std <= resolution * np.abs(mean)
    return mean, np.where(is_constant, 1.0, std)
