"""Measurements of how sampling scales over workers, with environments that only take time."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.trees import stack
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.module import make_policy
from maml_rl.policies.policy import Policy, PolicyConfig, PolicySpec
from maml_rl.rl.experience import Sampler
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.trajectory import Shape
from maml_rl.sampling.work import Crew, Outcome, ParamArrays, Work, WorkSampler

OBSERVATION_SIZE, ACTION_SIZE = 39, 4  # of a robot arm
MAX_ROUNDS = 20  # of warm-up
WARM = 1.5  # a round is warm if it takes at most this many times its tasks' own time


class TimedEnv:
    """`num_envs` sub-environments that observe zeros and take time. Tasks are ignored."""

    single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def set_tasks(self, tasks: Sequence[Any]) -> None: ...
    def close(self) -> None: ...

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[NDArray, dict[str, Any]]:
        return np.zeros((self.num_envs, OBSERVATION_SIZE)), {}

    def _stepped(self, is_over: bool) -> tuple[Any, ...]:
        over = np.full(self.num_envs, is_over)
        return np.zeros((self.num_envs, OBSERVATION_SIZE)), np.zeros(self.num_envs), over, over.copy(), {}


class BusyEnv(TimedEnv):
    """An environment whose every step is a Python loop: work that workers can share."""

    def __init__(self, num_envs: int, num_turns: int):
        super().__init__(num_envs)
        self._num_turns = num_turns

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        for _ in range(self.num_envs):
            turn(self._num_turns)
        return self._stepped(is_over=False)


class SleepingEnv(TimedEnv):
    """An environment whose task sleeps once and is over: it takes a worker's time, but no core's."""

    def __init__(self, num_envs: int, seconds: float):
        super().__init__(num_envs)
        self._seconds = seconds

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        time.sleep(self._seconds)
        return self._stepped(is_over=True)


def turn(num_turns: int) -> float:
    """Do arithmetic in `num_turns` turns of a loop."""
    x = 0.5
    for _ in range(num_turns):
        x = 3.7 * x * (1.0 - x)
    return x


def turns_lasting(seconds: float) -> int:
    """The number of turns that take `seconds` here, by the thread's own clock, so that other programs do not count."""
    sample = 20_000

    def cost() -> float:
        begun = time.thread_time()
        turn(sample)
        return time.thread_time() - begun

    return max(1, round(seconds * sample / min(cost() for _ in range(10))))


class Workload(NamedTuple):
    """Episodes to be played, and the policy that plays them."""

    recipe: Recipe
    policy: Policy

    def actor(self, num_tasks: int) -> Actor:
        """The initial policy for every task."""
        return Actor(self.policy, stack(self.policy.init(torch.Generator().manual_seed(0)), num_tasks))


def workload(make_env: Any, episodes_per_task: int, horizon: int, hidden_sizes: tuple[int, ...]) -> Workload:
    """A Gaussian policy in environments with the sizes of a robot arm's."""
    config = PolicyConfig(hidden_sizes)
    actions = Gaussian(ACTION_SIZE, config.init_std, config.min_std)
    shape = Shape(episodes_per_task, horizon, OBSERVATION_SIZE, ACTION_SIZE, reports_success=False)
    policy = make_policy(PolicySpec(OBSERVATION_SIZE, actions), config)
    return Workload(Recipe(make_env, actions, scale=None, shape=shape), policy)


def busy(step_seconds: float, episodes_per_task: int, horizon: int, hidden_sizes: tuple[int, ...]) -> Workload:
    """Episodes of a `BusyEnv` whose steps last `step_seconds` each."""
    make_env = functools.partial(BusyEnv, num_turns=turns_lasting(step_seconds))
    return workload(make_env, episodes_per_task, horizon, hidden_sizes)


def sleeping(task_seconds: float, episodes_per_task: int, horizon: int, hidden_sizes: tuple[int, ...]) -> Workload:
    """Episodes of a `SleepingEnv`. Its trajectories have the full size, nearly all of it masked."""
    make_env = functools.partial(SleepingEnv, seconds=task_seconds)
    return workload(make_env, episodes_per_task, horizon, hidden_sizes)


class PartOfCrew:
    """Some of a crew's workers, so that one crew serves for every number of them."""

    def __init__(self, crew: Crew, num_workers: int):
        self._crew, self._num_workers, self._under_way = crew, num_workers, 0

    def begin(self, params: ParamArrays) -> None:
        self._crew.begin(params)

    def has_room(self) -> bool:
        return self._under_way < self._num_workers and self._crew.has_room()

    def submit(self, work: Work) -> None:
        self._under_way += 1
        self._crew.submit(work)

    def outcomes(self) -> list[tuple[int, Outcome]]:
        found = self._crew.outcomes()
        self._under_way -= len(found)
        return found

    def abandon(self) -> None:
        self._crew.abandon()

    def close(self) -> None: ...


def scale(load: Workload, local: Sampler, crew: Crew, num_workers: int, num_tasks: int, repeats: int) -> dict[str, Any]:
    """Environment steps per second in this process, on one thread, and by 1 .. num_workers workers.

    Each is measured in turn, `repeats` times, so that a change of the machine's speed affects all alike; medians.
    """
    steps = num_tasks * load.recipe.shape.num_episodes * load.recipe.shape.horizon
    samplers = [WorkSampler(PartOfCrew(crew, count + 1), load.recipe) for count in range(num_workers)]
    _warm_up(load, samplers[-1], num_workers)
    rates: list[list[float]] = []
    outside: list[float] = []
    for number in range(repeats):
        seconds = [_seconds(load, sampler, num_tasks, number) for sampler in (local, *samplers)]
        rates.append([steps / each for each in seconds])
        outside.append(1.0 - samplers[0].worker_seconds / seconds[1])
    by_count = [statistics.median(column) for column in zip(*rates, strict=True)]
    return {
        "num_workers": list(range(1, num_workers + 1)),
        "local_steps_per_s": by_count[0],
        "steps_per_s": by_count[1:],
        "speedup": [statistics.median(row[n] / row[0] for row in rates) for n in range(1, num_workers + 1)],
        "efficiency": [statistics.median(row[n] / row[1] / n for row in rates) for n in range(1, num_workers + 1)],
        "share_outside_workers": statistics.median(outside),  # of one worker: moving data, and everything else
    }


def saturation(load: Workload, crew: Crew, num_workers: int, num_tasks: int, task_seconds: float) -> dict[str, Any]:
    """The share of time that workers with tasks of `task_seconds` are busy, and how many workers the driver could
    serve, by the time that a task costs it."""
    sampler = WorkSampler(PartOfCrew(crew, num_workers), load.recipe)
    _warm_up(load, sampler, num_workers)
    begun = time.process_time()
    seconds = _seconds(load, sampler, num_tasks, 0)
    cost = (time.process_time() - begun) / num_tasks
    return {
        "num_workers": num_workers,
        "num_tasks": num_tasks,
        "task_seconds": task_seconds,
        "seconds": seconds,
        "share_busy": num_tasks * task_seconds / (num_workers * seconds),
        "driver_cpu_seconds_per_task": cost,
        "workers_per_driver": task_seconds / cost,
    }


def _warm_up(load: Workload, sampler: WorkSampler, num_workers: int) -> None:
    """Sample a task for every worker until all of them have imported what they need and have their environments."""
    for _ in range(MAX_ROUNDS):
        seconds = _seconds(load, sampler, num_workers, 0)
        if seconds * num_workers <= WARM * sampler.worker_seconds:
            break


def _seconds(load: Workload, sampler: Sampler, num_tasks: int, number: int) -> float:
    actor = load.actor(num_tasks)
    begun = time.perf_counter()
    sampler.sample([None] * num_tasks, actor, Key(0, TRAINING, number))
    return time.perf_counter() - begun
