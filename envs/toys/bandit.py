"""Bernoulli bandits: each arm pays 1 or 0, with a probability that differs between tasks."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..adapters import SingleFromVector
from ..task_env import Step, Task, TaskVectorEnv, episode_length

HORIZON = 1  # [steps]: a pull is an episode, and the n pulls of Duan et al. are n episodes


@dataclass(frozen=True)
class BernoulliArms:
    """Find the arm that pays most often."""

    probabilities: tuple[float, ...]  # that each arm pays 1; else it pays 0

    def __str__(self) -> str:
        best = int(np.argmax(self.probabilities))
        return f"arm {best} of {len(self.probabilities)} pays with probability {self.probabilities[best]:.2f}"


class BernoulliBanditVectorEnv(TaskVectorEnv):
    """Many bandits, each with its own arms: see `BernoulliBanditEnv` for the specification."""

    task_type = BernoulliArms
    task_range = (0.0, 1.0)  # of every arm's probability

    def __init__(
        self,
        num_envs: int = 1,
        num_arms: int = 5,
        horizon: int | None = None,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        """
        Args:
            num_arms: K, at least 1.
            horizon: [steps]; None for 1. `max_episode_steps` is Gymnasium's name for it.
        """
        if num_arms < 1:
            raise ValueError(f"num_arms must be at least 1, got {num_arms}")
        super().__init__(
            num_envs=num_envs,
            horizon=episode_length(horizon, max_episode_steps, HORIZON),
            single_observation_space=gymnasium.spaces.Box(0.0, 1.0, (1,), np.float64),
            single_action_space=gymnasium.spaces.Discrete(num_arms),
            default_task=BernoulliArms((0.5,) * num_arms),
            render_mode=render_mode,
        )
        self._num_arms = num_arms
        self._probabilities = np.zeros((num_envs, num_arms))
        self._luck = np.zeros((num_envs, self.horizon))  # of each pull of the episode, uniform in [0, 1)
        self._pulls = np.zeros(num_envs, dtype=np.int64)  # in this episode

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[BernoulliArms]:
        rows = rng.uniform(*self.task_range, (num_tasks, self._num_arms))
        return [BernoulliArms(tuple(row)) for row in rows.tolist()]

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        self._pulls[rows] = 0
        for row, task in zip(rows, tasks, strict=True):
            if len(task.probabilities) != self._num_arms:
                raise ValueError(f"a bandit of {self._num_arms} arms cannot solve {task!r}")
            self._probabilities[row] = task.probabilities
            self._luck[row] = self._generator(row).random(self.horizon)

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        everyone = np.arange(self.num_envs)
        stepped = self._all if alive is None else alive
        now = np.minimum(self._pulls, self.horizon - 1)  # rows that are not alive may have no luck left
        chosen = everyone, np.where(stepped, actions, 0)
        rewards = (self._luck[everyone, now] < self._probabilities[chosen]).astype(np.float64)
        self._pulls += stepped
        over = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), rewards, over, over.copy(), {}

    def _observe(self) -> NDArray[np.float64]:
        return np.ones((self.num_envs, 1))


class BernoulliBanditEnv(SingleFromVector):
    """A bandit with K arms, whose task is how often each of them pays.

    ## Task
    `BernoulliArms(probabilities)`: K numbers, each drawn from U(0, 1).

    ## Action
    Discrete(K): the arm to pull.

    ## Observation
    Box(0, 1, (1,), float64): always 1, which tells nothing. (Not 0, for which every unit of a network without biases
    is dead.)

    ## Reward
    1 with the probability of the arm that is pulled, else 0. Who knows nothing expects 0.5 a pull; who knows the best
    arm K / (K + 1), the mean of the largest of K uniform numbers.

    ## Reset
    The luck of every pull of the episode is drawn.

    ## End
    Truncated after `horizon` steps, 1: a pull is an episode.

    ## Arguments
    `num_arms`: K. `horizon`: [steps], None for 1.

    ## Source
    Duan et al. 2016, RL^2 (arXiv:1611.02779), section 3.1: K = 5, 10, 50 and n = 10, 100, 500 pulls. There the pulls
    follow each other in the memory of one agent; here n is the number of episodes that are adapted to.

    ## Version history
    - v0: first version.
    """

    def __init__(self, num_arms: int = 5, horizon: int | None = None, render_mode: str | None = None):
        super().__init__(BernoulliBanditVectorEnv(1, num_arms, horizon, render_mode=render_mode))
