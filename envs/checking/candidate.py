"""An environment under check, single or batched, and how it is played."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from ..adapters import DEFAULT_HORIZON, own_horizon
from ..plug_in import World, flattened, make_batch, make_single, with_tasks
from ..task_env import Task, TaskVectorEnv
from .comparison import Played, first_difference

NUM_TASKS = 8  # drawn to find two that differ
SEED = 2**40  # of the first episode: episodes of training have seeds of 64 bits


class Single:
    """An environment as its author made it, whose episodes are left at `limit` steps, as in training."""

    rows: tuple[int, ...] = ()  # the shape of its rewards

    def __init__(self, env: gymnasium.Env, limit: int):
        self.env, self._limit, self._steps = env, limit, 0

    @property
    def observation_space(self) -> gymnasium.Space:
        return self.env.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        return self.env.action_space

    @property
    def is_at_limit(self) -> bool:
        return self._steps >= self._limit

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> Any:
        return self.env.get_wrapper_attr("sample_tasks")(num_tasks, rng)

    def set_task(self, task: Task) -> None:
        self.env.get_wrapper_attr("set_task")(task)

    def reset(self, seed: int) -> Any:
        self._steps = 0
        return self.env.reset(seed=seed)

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self.env.step(action)


class Batch:
    """Three sub-environments of a `TaskVectorEnv`, with the same task."""

    rows: tuple[int, ...] = (3,)
    is_at_limit = False  # it keeps its own clock

    def __init__(self, env: TaskVectorEnv):
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> Any:
        return self.env.sample_tasks(num_tasks, rng)

    def set_task(self, task: Task) -> None:
        self.env.set_tasks([task] * self.env.num_envs)

    def reset(self, seed: int) -> Any:
        return self.env.reset(seed=[seed + row for row in range(self.env.num_envs)])

    def step(self, action: Any) -> Any:
        return self.env.step(action)


class Candidate:
    """An environment under check, with all that was made of it, to be closed."""

    def __init__(self, world: World, horizon: int | None, num_steps: int):
        self.world, self.horizon, self.num_steps = world, horizon, num_steps
        self._made: list[Any] = []

    def single(self) -> gymnasium.Env:
        env = make_single(self.world, self.horizon, None)
        self._made.append(env)
        return env

    def batch(self, num_envs: int, render_mode: str | None = None) -> TaskVectorEnv:
        env = make_batch(self.world, num_envs, self.horizon, render_mode)
        self._made.append(env)
        return env

    def subject(self) -> Single | Batch:
        """A fresh environment."""
        if self.world.is_batch:
            return Batch(self.batch(3))
        env = with_tasks(self.world, self.single())
        return Single(env, self._limit(env))

    def trained_on(self) -> gymnasium.Env | TaskVectorEnv:
        """A fresh environment in the wrappers that training adds, if its observations can be laid flat."""
        if self.world.is_batch:
            return self.batch(1)
        env = self.single()
        try:
            return flattened(self.world.name, env)
        except ValueError:
            return env

    def actions(self, subject: Single | Batch) -> list[Any]:
        """Random actions, the same ones every time."""
        space = copy.deepcopy(subject.action_space)
        space.seed(0)
        return [space.sample() for _ in range(self.num_steps)]

    def tasks(self) -> list[Task]:
        """A few tasks, drawn three at a time: there may be no more of them."""
        subject, rng = self.subject(), np.random.default_rng(0)
        return [task for _ in range(0, NUM_TASKS, 3) for task in subject.sample_tasks(3, rng)][:NUM_TASKS]

    @functools.cached_property
    def two_that_differ(self) -> tuple[Task, Task] | None:
        """Two tasks whose episodes differ under equal seeds and actions; None if there are none."""
        tasks, subject = self.tasks(), self.subject()
        actions = self.actions(subject)
        first = play(subject, actions, tasks[0])
        differ = (task for task in tasks[1:] if first_difference(first, play(subject, actions, task)))
        return next(((tasks[0], task) for task in differ), None)

    def play(self, task: Task) -> Played:
        """Episodes of a fresh environment."""
        subject = self.subject()
        return play(subject, self.actions(subject), task)

    def wrapper_with_memory(self, task: Task) -> str | None:
        """The innermost wrapper under which an episode is no longer the same when it is played again."""
        if self.world.is_batch:
            return None
        env = with_tasks(self.world, self.single())
        for layer in reversed(list(layers(env))):
            env.get_wrapper_attr("set_task")(task)
            subject = Single(layer, self._limit(env))
            actions = self.actions(subject)
            first, again = (play_on(subject, actions) for _ in range(2))
            if first_difference(first, again):
                return type(layer).__name__ if isinstance(layer, gymnasium.Wrapper) else None
        return None

    def _limit(self, env: gymnasium.Env) -> int:
        """[steps] after which training leaves an episode."""
        if self.horizon is not None:
            return self.horizon
        try:
            return own_horizon(env, self.world.name) or DEFAULT_HORIZON
        except ValueError:  # a finding by itself
            return DEFAULT_HORIZON

    def close(self) -> None:
        for env in self._made:
            env.close()


def layers(env: Any) -> Iterator[Any]:
    """The environment's wrappers from the outermost on, and at last what they wrap."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def is_over(subject: Single | Batch, result: Any) -> bool:
    """Whether the step that returned this was an episode's last."""
    return bool(np.any(result[2]) or np.any(result[3]) or subject.is_at_limit)


def play(subject: Single | Batch, actions: Sequence[Any], task: Task) -> Played:
    """Take the actions one after the other; when an episode is over, begin another."""
    subject.set_task(task)
    return play_on(subject, actions)


def play_on(subject: Single | Batch, actions: Sequence[Any]) -> Played:
    """As `play`, with the task that was set before."""
    seeds = itertools.count(SEED, 100)
    played = Played([], [], [], [])

    def see(observation: Any) -> None:
        played.held.append(observation)
        played.observations.append(copy.deepcopy(observation))

    see(subject.reset(next(seeds))[0])
    for action in actions:
        observation, reward, terminated, truncated, _ = result = subject.step(copy.deepcopy(action))
        see(observation)
        played.rewards.append(copy.deepcopy(reward))
        played.ends.append(copy.deepcopy((terminated, truncated)))
        if is_over(subject, result):
            see(subject.reset(next(seeds))[0])
    return played
