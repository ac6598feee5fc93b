"""Random Markov decision processes with few states, whose rewards and transitions differ between tasks."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..adapters import SingleFromVector
from ..task_env import Step, Task, TaskVectorEnv, episode_length

NUM_STATES = 10  # |S|, Duan et al. 2016, section 3.2
NUM_ACTIONS = 5  # |A|, likewise
HORIZON = 10  # [steps], likewise


@dataclass(frozen=True)
class TabularMDP:
    """Collect rewards in this environment."""

    mean_rewards: tuple[tuple[float, ...], ...]  # [S][A], of a reward with unit variance
    transitions: tuple[tuple[tuple[float, ...], ...], ...]  # [S][A][S], probabilities of the next state

    def __str__(self) -> str:
        return f"rewards from {np.min(self.mean_rewards):.2f} to {np.max(self.mean_rewards):.2f}"


class TabularMDPVectorEnv(TaskVectorEnv):
    """Many processes, each with its own tables: see `TabularMDPEnv` for the specification."""

    task_type = TabularMDP

    def __init__(
        self,
        num_envs: int = 1,
        horizon: int | None = None,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        """
        Args:
            horizon: [steps]; None for 10. `max_episode_steps` is Gymnasium's name for it.
        """
        idle = ((0.0,) * NUM_ACTIONS,) * NUM_STATES
        anywhere = (((1.0 / NUM_STATES,) * NUM_STATES,) * NUM_ACTIONS,) * NUM_STATES
        super().__init__(
            num_envs=num_envs,
            horizon=episode_length(horizon, max_episode_steps, HORIZON),
            single_observation_space=gymnasium.spaces.Box(0.0, 1.0, (NUM_STATES,), np.float64),
            single_action_space=gymnasium.spaces.Discrete(NUM_ACTIONS),
            default_task=TabularMDP(idle, anywhere),
            render_mode=render_mode,
        )
        self._states = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)  # taken in this episode
        self._mean_rewards = np.zeros((num_envs, NUM_STATES, NUM_ACTIONS))
        self._below = np.zeros((num_envs, NUM_STATES, NUM_ACTIONS, NUM_STATES))  # cumulative transitions
        self._luck = np.zeros((num_envs, self.horizon))  # of each transition of the episode, uniform in [0, 1)
        self._noise = np.zeros((num_envs, self.horizon))  # of each reward, standard normal

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[TabularMDP]:
        means = rng.normal(1.0, 1.0, (num_tasks, NUM_STATES, NUM_ACTIONS))
        transitions = rng.dirichlet(np.ones(NUM_STATES), (num_tasks, NUM_STATES, NUM_ACTIONS))
        return [
            TabularMDP(tuple(map(tuple, mean)), tuple(tuple(map(tuple, by_action)) for by_action in table))
            for mean, table in zip(means.tolist(), transitions.tolist(), strict=True)
        ]

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        self._states[rows] = self._steps[rows] = 0
        tables = {id(task): (task.mean_rewards, np.cumsum(task.transitions, axis=-1)) for task in tasks}  # once each
        for row, task in zip(rows, tasks, strict=True):
            self._mean_rewards[row], self._below[row] = tables[id(task)]
            generator = self._generator(row)
            self._luck[row] = generator.random(self.horizon)
            self._noise[row] = generator.standard_normal(self.horizon)

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        everyone = np.arange(self.num_envs)
        stepped = self._all if alive is None else alive
        now = np.minimum(self._steps, self.horizon - 1)  # rows that are not alive may have no luck left
        chosen = everyone, self._states, np.where(stepped, actions, 0)
        rewards = self._mean_rewards[chosen] + self._noise[everyone, now]
        passed = (self._below[chosen] <= self._luck[everyone, now][:, None]).sum(axis=1)
        following = np.minimum(passed, NUM_STATES - 1)  # the sum of all probabilities may round to less than 1
        self._states = np.where(stepped, following, self._states)
        self._steps += stepped
        over = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), rewards, over, over.copy(), {}

    def _observe(self) -> NDArray[np.float64]:
        return np.eye(NUM_STATES)[self._states]


class TabularMDPEnv(SingleFromVector):
    """A random Markov decision process with ten states and five actions.

    ## Task
    `TabularMDP(mean_rewards, transitions)`: for every state and action a mean reward from N(1, 1) and a distribution
    of the next state from a flat Dirichlet.

    ## Action
    Discrete(5).

    ## Observation
    Box(0, 1, (10,), float64): the state, one-hot.

    ## Reward
    Normal, of unit variance around the mean of state and action. Who knows nothing expects 1 a step.

    ## Reset
    In the first state; the luck of every step of the episode is drawn.

    ## End
    Truncated after `horizon` steps, 10.

    ## Arguments
    `horizon`: [steps], None for 10.

    ## Source
    Duan et al. 2016, RL^2 (arXiv:1611.02779), section 3.2. There episodes follow each other in the memory of one
    agent; here they are what is adapted to.

    ## Version history
    - v0: first version.
    """

    def __init__(self, horizon: int | None = None, render_mode: str | None = None):
        super().__init__(TabularMDPVectorEnv(1, horizon, render_mode=render_mode))
