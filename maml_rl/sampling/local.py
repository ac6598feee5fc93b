"""The in-process sampler: threads, each with its own environment and block of tasks.

Physics steps without Python's lock, so one thread's policy overlaps with another's physics.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maml_rl.core.contracts import Actor, Memory
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import concatenate_tasks
from maml_rl.sampling.failures import as_sampling_error
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.rollout import VectorEnvironment, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import BY_EPISODE, Trajectory, blank_trajectory

MAX_WORKERS = 10_000
"""Threads or processes at most: no machine has as many processors."""

MAX_COPIES = 400
"""Most copies at a time of an environment that is copied for each episode: each may hold files and memory, and many
systems let a process open 1024 files. With far fewer, a policy's steps would be slow beside those of a quick one."""


@dataclass(frozen=True)
class SamplingConfig:
    """Collection of trajectories."""

    episodes_per_task: int = 20  # Episodes of each task for each gradient step, and again for the outer step.
    horizon: int | None = None  # Steps of an episode at most; by default the environment's own number, or else 200.
    sampler: Literal["local", "processes", "ray"] = "local"
    """In this process, in others on this machine, or on a Ray cluster. Results do not depend on it."""
    num_workers: int | None = None  # Processes, or tasks at once on Ray; by default one per core or CPU.
    task_timeout: float = 600.0  # Seconds after which a worker is killed as hung and its task played again.
    ray_address: str | None = None  # Ray cluster: "auto" or host:port; by default this machine alone.

    def __post_init__(self) -> None:
        if self.episodes_per_task < 1:
            raise ValueError(f"episodes_per_task must be at least 1, got {self.episodes_per_task}")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {self.horizon}")
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, or left out for one per core, got {self.num_workers}")
        if self.num_workers is not None and self.num_workers > MAX_WORKERS:
            raise ValueError(f"num_workers must be at most {MAX_WORKERS}, got {self.num_workers}")
        if not 0.0 < self.task_timeout < float("inf"):
            raise ValueError(f"task_timeout must be positive and finite [s], got {self.task_timeout}")
        if self.ray_address is not None and not re.fullmatch(r"auto|[^:/\s]+:\d+", self.ray_address):
            raise ValueError(f"ray_address must be auto or host:port, got {self.ray_address!r}")


class LocalSampler:
    """Samples whole tasks on this process's threads. Equal keys give equal trajectories for any number of them."""

    def __init__(self, recipe: Recipe, threads: Threads, max_envs: int | None = None):
        """
        Args:
            max_envs: sub-environments that may exist at the same time, but at least those of one task; None for as many
                as there are episodes.
        """
        self._recipe, self._is_bounded = recipe, max_envs is not None
        self._threads, self._max_tasks = threads, math.inf  # side by side on one thread
        self._own_threads: Threads | None = None
        if max_envs is not None:
            if max_envs < threads.num_threads * recipe.at_once:
                self._threads = self._own_threads = Threads(max(1, max_envs // recipe.at_once))
            self._max_tasks = max(1, max_envs // (self._threads.num_threads * recipe.at_once))
        # half of the threads compute actions while the environments of the others step
        self._turn = threading.Semaphore(max(1, self._threads.num_threads // 2))
        self._own = threading.local()  # environments of the present thread, by size
        self._all_envs: list[VectorEnvironment] = []
        self._adding = threading.Lock()

    def sample(self, tasks: Sequence[Any], actor: Actor, key: Key) -> Trajectory:
        """E episodes of every task, each under its own parameters.

        Raises:
            SamplingError: naming the task, or those that were played together; the traceback is among its notes.
        """
        recipe = self._recipe
        trajectory = blank_trajectory(len(tasks), recipe.shape)

        def one_block(start: int, stop: int) -> Memory:
            noise = episode_noise(key, start, stop - start, recipe.shape, recipe.actions)
            own = tasks[start:stop]
            out = trajectory._replace(**{name: getattr(trajectory, name)[start:stop] for name in BY_EPISODE})
            try:
                env = self._env((stop - start) * recipe.at_once)
                stage = recipe.stage(env)
                if steps_unlocked(env):
                    stage = stage._replace(turn=self._turn)
                return rollout(stage, actor.take_tasks(start, stop), own, noise, out, start)
            except Exception as error:
                self._discard()  # it failed in the midst of an episode
                told = as_sampling_error(error, own, start, key, noise.reset_seeds, "in this process")
                if told is error:
                    raise
                raise told from error

        memories = self._threads.map(one_block, *zip(*self._blocks(len(tasks)), strict=True))
        return trajectory._replace(memory=concatenate_tasks(memories))

    def hold(self, num_tasks: int) -> None:
        """Make now what sampling so many tasks would make, where copies are bounded; they are kept for it.

        Raises:
            ValueError: if there cannot be as many copies.
        """
        if not self._is_bounded:
            return
        blocks = self._blocks(num_tasks)
        size = max(stop - start for start, stop in blocks) * self._recipe.at_once
        num_threads = min(self._threads.num_threads, len(blocks))
        together = threading.Barrier(num_threads)

        def make(_: int) -> None:
            try:
                self._env(size)
            finally:
                together.wait()  # else one thread might take two turns, and another none

        try:
            self._threads.map(make, range(num_threads))
        except ValueError as error:
            raise ValueError(
                f"sampling holds {num_threads * size} copies of the environment at a time on {num_threads} threads: "
                f"{error}"
            ) from error
        except BaseException:
            together.abort()
            raise

    def close(self) -> None:
        if self._own_threads is not None:
            self._own_threads.close()
        for env in self._all_envs:
            env.close()
        self._all_envs.clear()
        self._own = threading.local()

    def _blocks(self, num_tasks: int) -> list[tuple[int, int]]:
        """Consecutive ranges of tasks, as equal as can be, as many for each thread."""
        count = min(self._threads.num_threads, num_tasks)
        count = min(num_tasks, count * max(1, math.ceil(num_tasks / (count * self._max_tasks))))
        edges = [round(i * num_tasks / count) for i in range(count + 1)]
        return list(itertools.pairwise(edges))

    def _env(self, num_envs: int) -> VectorEnvironment:
        """An environment of this size on this thread, which keeps one for each size, or, where copies are bounded, the
        largest alone."""
        envs = self._envs_of_thread()
        if num_envs not in envs:
            if self._is_bounded and max(envs, default=0) > num_envs:
                return _FirstRows(envs[max(envs)], num_envs)
            if self._is_bounded:
                self._discard()
            envs[num_envs] = self._recipe.make_env(num_envs)
            with self._adding:
                self._all_envs.append(envs[num_envs])
        return envs[num_envs]

    def _envs_of_thread(self) -> dict[int, VectorEnvironment]:
        if not hasattr(self._own, "envs"):
            self._own.envs = {}
        return self._own.envs

    def _discard(self) -> None:
        """Close the environments of this thread."""
        envs = self._envs_of_thread()
        for env in envs.values():
            with self._adding:
                self._all_envs.remove(env)
            with contextlib.suppress(Exception):  # it may be what has failed
                env.close()
        envs.clear()


def steps_unlocked(env: VectorEnvironment) -> bool:
    """Whether an environment says that it steps outside of Python's lock.

    Where it does, threads take turns at the rest. Else each of a step's some eighty short operations that let go of the
    lock would pass it to another thread, which waits for a core to wake up every time.
    """
    return bool(getattr(env, "steps_unlocked", False))


class _FirstRows:
    """The first sub-environments of a larger vector environment; the others stand still."""

    def __init__(self, env: VectorEnvironment, num_envs: int):
        self._env, self.num_envs, self.single_action_space = env, num_envs, env.single_action_space
        self._mask = np.arange(env.num_envs) < num_envs

    def set_tasks(self, tasks: Sequence[Any]) -> None:
        self._env.set_tasks(self._filled(tasks, tasks[0]))

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[NDArray, dict[str, Any]]:
        observations, infos = self._env.reset(seed=self._filled(seed, None), options={"reset_mask": self._mask})
        return observations[: self.num_envs], infos

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        all_actions = np.zeros((self._env.num_envs, *actions.shape[1:]), actions.dtype)
        all_actions[: self.num_envs] = actions
        all_alive = self._mask.copy()
        all_alive[: self.num_envs] = True if alive is None else alive
        *arrays, infos = self._env.step(all_actions, all_alive)
        return (*(array[: self.num_envs] for array in arrays), {k: v[: self.num_envs] for k, v in infos.items()})

    def close(self) -> None:
        """Leave the larger one open."""

    def _filled(self, values: Sequence[Any], value: Any) -> list[Any]:
        return [*values, *[value] * (self._env.num_envs - self.num_envs)]
