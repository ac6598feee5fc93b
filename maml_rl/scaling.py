"""How sampling scales over workers: worlds that only take time, and what is measured with them."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from maml_rl.core.params import stack
from maml_rl.core.protocols import TRAINING, Key
from maml_rl.policies import GaussianPolicy, PolicyConfig
from maml_rl.rl.family import Sampler
from maml_rl.sampling.work import Crew, Outcome, ParamArrays, Recipe, Work, WorkSampler

OBSERVATION_SIZE, ACTION_SIZE = 39, 4  # of a robot's arm
MAX_ROUNDS = 20  # of warming up
WARM = 1.5  # a round is warm that takes at most so many times its tasks' own time


class TimedWorld:
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


class BusyWorld(TimedWorld):
    """Every step of a sub-environment is a Python loop: work to be shared out, on a machine of whatever speed."""

    def __init__(self, num_envs: int, num_turns: int):
        super().__init__(num_envs)
        self._num_turns = num_turns

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        for _ in range(self.num_envs):
            turn(self._num_turns)
        return self._stepped(is_over=False)


class SleepingWorld(TimedWorld):
    """A task sleeps once and is over: a worker's time, but no core's."""

    def __init__(self, num_envs: int, seconds: float):
        super().__init__(num_envs)
        self._seconds = seconds

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        time.sleep(self._seconds)
        return self._stepped(is_over=True)


def turn(num_turns: int) -> float:
    """Arithmetic of so many turns of a loop."""
    x = 0.5
    for _ in range(num_turns):
        x = 3.7 * x * (1.0 - x)
    return x


def turns_lasting(seconds: float) -> int:
    """How many turns take so long here. By the thread's own clock: other programs do not count."""
    sample = 20_000

    def cost() -> float:
        begun = time.thread_time()
        turn(sample)
        return time.thread_time() - begun

    return max(1, round(seconds * sample / min(cost() for _ in range(10))))


def recipe_of(make_env: Any, episodes_per_task: int, horizon: int, hidden_sizes: tuple[int, ...]) -> Recipe:
    policy = GaussianPolicy(OBSERVATION_SIZE, ACTION_SIZE, PolicyConfig(hidden_sizes))
    return Recipe(make_env, policy, episodes_per_task, horizon)


def busy_recipe(step_seconds: float, episodes_per_task: int, horizon: int, hidden_sizes: tuple[int, ...]) -> Recipe:
    """Of a `BusyWorld`, a step of which lasts so long."""
    make_env = functools.partial(BusyWorld, num_turns=turns_lasting(step_seconds))
    return recipe_of(make_env, episodes_per_task, horizon, hidden_sizes)


def sleeping_recipe(task_seconds: float, episodes_per_task: int, horizon: int, hidden_sizes: tuple[int, ...]) -> Recipe:
    """Of a `SleepingWorld`. Its trajectories are of the full size, and nearly all masked."""
    make_env = functools.partial(SleepingWorld, seconds=task_seconds)
    return recipe_of(make_env, episodes_per_task, horizon, hidden_sizes)


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


def scale(recipe: Recipe, local: Sampler, crew: Crew, num_workers: int, num_tasks: int, repeats: int) -> dict[str, Any]:
    """Environment steps per second in this process, on one thread, and by 1 .. num_workers workers.

    Each in turn, as often as there are repeats, so that none has the machine's best minute alone; medians.
    """
    steps = num_tasks * recipe.num_episodes * recipe.horizon
    samplers = [_sampler(recipe, PartOfCrew(crew, count + 1)) for count in range(num_workers)]
    _warm_up(recipe, samplers[-1], num_workers)
    rates: list[list[float]] = []
    outside: list[float] = []
    for number in range(repeats):
        seconds = [_seconds(recipe, sampler, num_tasks, number) for sampler in (local, *samplers)]
        rates.append([steps / each for each in seconds])
        outside.append(1.0 - samplers[0].worker_seconds / seconds[1])
    by_count = [statistics.median(column) for column in zip(*rates, strict=True)]
    return {
        "num_workers": list(range(1, num_workers + 1)),
        "local_steps_per_s": by_count[0],
        "steps_per_s": by_count[1:],
        "speedup": [statistics.median(row[n] / row[0] for row in rates) for n in range(1, num_workers + 1)],
        "efficiency": [statistics.median(row[n] / row[1] / n for row in rates) for n in range(1, num_workers + 1)],
        "share_outside_workers": statistics.median(outside),  # of one worker: moving data, and all else
    }


def saturation(recipe: Recipe, crew: Crew, num_workers: int, num_tasks: int, task_seconds: float) -> dict[str, Any]:
    """How busy workers are whose tasks take so long, and by what a task costs the driver, how many it could serve."""
    sampler = _sampler(recipe, PartOfCrew(crew, num_workers))
    _warm_up(recipe, sampler, num_workers)
    begun = time.process_time()
    seconds = _seconds(recipe, sampler, num_tasks, 0)
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


def _sampler(recipe: Recipe, crew: Crew) -> WorkSampler:
    return WorkSampler(crew, recipe)


def _warm_up(recipe: Recipe, sampler: WorkSampler, num_workers: int) -> None:
    """Sample a task for every worker until all of them have imported what they need and have their environments."""
    for _ in range(MAX_ROUNDS):
        seconds = _seconds(recipe, sampler, num_workers, 0)
        if seconds * num_workers <= WARM * sampler.worker_seconds:
            break


def _seconds(recipe: Recipe, sampler: Sampler, num_tasks: int, number: int) -> float:
    params = stack(recipe.policy.init(torch.Generator().manual_seed(0)), num_tasks)
    begun = time.perf_counter()
    sampler.sample([None] * num_tasks, params, Key(0, TRAINING, number))
    return time.perf_counter() - begun
