"""The in-process sampler: threads, each with an environment and a block of the tasks of its own.

Physics steps without Python's lock, so one thread's policy overlaps with another's physics.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from maml_rl.core.lift import Threads
from maml_rl.core.params import Params, take_tasks
from maml_rl.core.protocols import Key
from maml_rl.policies import Policy
from maml_rl.sampling.failures import as_sampling_error
from maml_rl.sampling.rollout import VectorWorld, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import Trajectory, blank_trajectory


@dataclass(frozen=True)
class SamplingConfig:
    """How trajectories are collected."""

    episodes_per_task: int = 20  # Episodes of each task for each gradient step, and again for the outer step.
    horizon: int | None = None  # Steps of an episode at most; by default the environment's own number, or else 200.
    num_threads: int = 0  # Threads for sampling and learning; 0 takes every core. Results do not depend on it.
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
        if self.num_threads < 0:
            raise ValueError(f"num_threads must be at least 1, or 0 for one per core, got {self.num_threads}")
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, or left out for one per core, got {self.num_workers}")
        if not 0.0 < self.task_timeout < float("inf"):
            raise ValueError(f"task_timeout must be positive and finite [s], got {self.task_timeout}")
        if self.ray_address is not None and not re.fullmatch(r"auto|[^:/\s]+:\d+", self.ray_address):
            raise ValueError(f"ray_address must be auto or host:port, got {self.ray_address!r}")


class LocalSampler:
    """Samples whole tasks on this process's threads. Equal keys give equal trajectories for any number of them."""

    def __init__(
        self,
        make_env: Callable[[int], VectorWorld],
        policy: Policy,
        num_episodes: int,
        horizon: int,
        threads: Threads,
        reports_success: bool = False,
    ):
        """
        Args:
            make_env: number of sub-environments -> a vector environment on one thread.
            num_episodes: E, per task.
            horizon: T, steps after which the environment truncates.
            reports_success: whether the environment does.
        """
        self._make_env, self._policy, self._threads = make_env, policy, threads
        self._num_episodes, self._horizon, self._reports_success = num_episodes, horizon, reports_success
        self._own = threading.local()  # environments of the present thread, by size
        self._all_envs: list[VectorWorld] = []
        self._adding = threading.Lock()

    def sample(self, tasks: Sequence[Any], params: Params, key: Key) -> Trajectory:
        """E episodes of every task, each under its own parameters (stacked: [N, ...]).

        Raises:
            SamplingError: naming the task, or those that were played together; the traceback is among its notes.
        """
        n, e, t = len(tasks), self._num_episodes, self._horizon
        policy = self._policy
        trajectory = blank_trajectory(n, e, t, policy, self._reports_success)

        def one_block(start: int, stop: int) -> None:
            noise = episode_noise(key, start, stop - start, e, t, policy)
            own = tasks[start:stop]
            out = take_tasks(trajectory, start, stop)
            try:
                rollout(self._env((stop - start) * e), policy, take_tasks(params, start, stop), own, noise, out, start)
            except Exception as error:
                told = as_sampling_error(error, own, start, key, noise.reset_seeds, "in this process")
                if told is error:
                    raise
                raise told from error

        self._threads.map(one_block, *zip(*self._blocks(n), strict=True))
        return trajectory

    def close(self) -> None:
        for env in self._all_envs:
            env.close()
        self._all_envs.clear()
        self._own = threading.local()

    def _blocks(self, num_tasks: int) -> list[tuple[int, int]]:
        """Consecutive ranges of tasks, as equal as can be, one for each thread."""
        count = min(self._threads.num_threads, num_tasks)
        edges = [round(i * num_tasks / count) for i in range(count + 1)]
        return list(itertools.pairwise(edges))

    def _env(self, num_envs: int) -> VectorWorld:
        if not hasattr(self._own, "envs"):
            self._own.envs = {}
        if num_envs not in self._own.envs:
            env = self._make_env(num_envs)
            self._own.envs[num_envs] = env
            with self._adding:
                self._all_envs.append(env)
        return self._own.envs[num_envs]
