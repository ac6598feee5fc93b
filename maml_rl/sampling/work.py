"""Whole tasks as work for other processes: what a piece of work is, how it is played, how all of them get done.

A task's episodes are a pure function of (task, its parameters, key, index): who plays them, and how often, shows in no
bit. What is lost with a worker is therefore played again; an error of the environment would come again, and ends it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cloudpickle
import torch
from numpy.typing import NDArray

from maml_rl.core.params import Params
from maml_rl.core.protocols import Key
from maml_rl.policies import Policy
from maml_rl.sampling.failures import as_sampling_error, named, said
from maml_rl.sampling.rollout import VectorWorld, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import SamplingError, Trajectory, blank_trajectory

MAX_ATTEMPTS = 3
"""How often a task is begun at most, if workers are lost over it: it may be what kills them."""

ParamArrays = dict[str, NDArray]
"""Parameters stacked over tasks, [N, ...], or [1, ...] where all tasks share them."""


@dataclass(frozen=True)
class Recipe:
    """What a worker is told once."""

    make_env: Callable[[int], VectorWorld]  # number of sub-environments -> a vector environment
    policy: Policy
    num_episodes: int  # E, per task
    horizon: int  # T, steps after which the environment truncates
    reports_success: bool = False  # whether the environment does

    def blank_trajectory(self, num_tasks: int) -> Trajectory:
        return blank_trajectory(num_tasks, self.num_episodes, self.horizon, self.policy, self.reports_success)


class Work(NamedTuple):
    """One task with all its episodes."""

    task_index: int  # among the iteration's tasks
    task: bytes  # pickled
    key: Key


class Played(NamedTuple):
    """Work that is done."""

    arrays: tuple[NDArray, ...]  # the fields of a Trajectory, without the axis of tasks
    seconds: float  # in the worker, from the task to its trajectory


class Failure(NamedTuple):
    """Work that cannot be done, now or again."""

    reason: str
    episode: int | None
    details: str  # the worker's traceback, and what the episodes were played with; may be empty


class Lost(NamedTuple):
    """Work that was not done for reasons outside of it: its worker died, hung or was taken away."""

    reason: str


Outcome = Played | Failure | Lost


class Crew(Protocol):
    """Workers somewhere. Work that was given out comes back as one outcome, in any order."""

    def begin(self, params: ParamArrays) -> None:
        """Make ready for work under these parameters."""

    def has_room(self) -> bool:
        """Whether a worker is free."""

    def submit(self, work: Work) -> None:
        """Give work to a free worker."""

    def outcomes(self) -> list[tuple[int, Outcome]]:
        """(task_index, outcome) of what has come to an end; waits until something has happened."""

    def abandon(self) -> None:
        """Stop what is under way: nobody will ask for it."""

    def close(self) -> None: ...


class WorkSampler:
    """Samples whole tasks in other processes. Equal keys give a LocalSampler's trajectories, bit for bit.

    Attributes:
        worker_seconds: spent by the workers on the last sampling, added up: all else is moving data, and waiting.
    """

    def __init__(self, crew: Crew, recipe: Recipe):
        """The crew, which it closes, follows the recipe."""
        self._crew, self._recipe = crew, recipe
        self.worker_seconds = 0.0

    def sample(self, tasks: Sequence[Any], params: Params, key: Key) -> Trajectory:
        """E episodes of every task, each under its own parameters (stacked: [N, ...]).

        Raises:
            SamplingError: naming the task; a worker's own traceback is among its notes.
        """
        work = [Work(index, _pickled_task(task, index), key) for index, task in enumerate(tasks)]
        trajectory = self._recipe.blank_trajectory(len(tasks))
        self.worker_seconds = 0.0
        try:
            self._crew.begin(shared_arrays(params))
            self._gather(work, trajectory)
        except BaseException:
            self._crew.abandon()
            raise
        return trajectory

    def close(self) -> None:
        self._crew.close()

    def _gather(self, work: Sequence[Work], trajectory: Trajectory) -> None:
        """Have every piece of work done and put it where it belongs."""
        to_do, num_done = deque(work), 0
        attempts = [0] * len(work)
        while num_done < len(work):
            while to_do and self._crew.has_room():
                attempts[to_do[0].task_index] += 1
                self._crew.submit(to_do.popleft())
            for index, outcome in self._crew.outcomes():
                if isinstance(outcome, Lost):
                    to_do.append(_once_more(work[index], attempts[index], outcome))
                    continue
                played = _require_played(work[index], outcome)
                for whole, part in zip(trajectory, played.arrays, strict=True):
                    whole[index].numpy()[...] = part
                self.worker_seconds += played.seconds
                num_done += 1


class Workbench:
    """A worker's environment, and what is played in it."""

    def __init__(self, recipe: Recipe):
        torch.set_num_threads(1)  # another number would change the last bits of a product
        self._recipe = recipe
        self._env: VectorWorld | None = recipe.make_env(recipe.num_episodes)

    def play(self, work: Work, params: ParamArrays) -> Played | Failure:
        """Every episode of one task under its parameters (without the axis of tasks)."""
        recipe, begun = self._recipe, time.perf_counter()
        noise = episode_noise(work.key, work.task_index, 1, recipe.num_episodes, recipe.horizon, recipe.policy)
        task = None
        try:
            task = cloudpickle.loads(work.task)
            out = recipe.blank_trajectory(1)
            # copied: aligned, and writable as torch wants it
            stacked = {name: torch.tensor(array).unsqueeze(0) for name, array in params.items()}
            rollout(self._environment(), recipe.policy, stacked, [task], noise, out, work.task_index)
            return Played(tuple(part[0].numpy() for part in out), time.perf_counter() - begun)
        except (Exception, SystemExit) as error:
            self._discard()
            told = as_sampling_error(error, [task], work.task_index, work.key, noise.reset_seeds, "in a worker")
            return Failure(str(told), told.episode, "\n".join(getattr(told, "__notes__", [])))

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env = None

    def _environment(self) -> VectorWorld:
        if self._env is None:
            self._env = self._recipe.make_env(self._recipe.num_episodes)
        return self._env

    def _discard(self) -> None:
        """The environment failed in the midst of an episode; the next task gets a new one."""
        self._env = None


def pickled(value: Any, name: str) -> bytes:
    """For another process, which may be on another machine.

    Raises:
        ValueError: saying what cannot be pickled.
    """
    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # whatever a class's own __reduce__ raises
        raise ValueError(
            f"{name} must be picklable to reach a worker, but {type(value).__name__} is not ({said(error)}): "
            "keep open files, locks and the like out of it, or take the sampler local"
        ) from error


def shared_arrays(params: Params) -> ParamArrays:
    """Stacked parameters as arrays; [1, ...] of those that are one tensor expanded over all tasks."""

    def once(p: torch.Tensor) -> torch.Tensor:
        return p[:1] if p.stride(0) == 0 else p

    return {name: once(p).detach().cpu().contiguous().numpy() for name, p in params.items()}


def arrays_of_task(params: ParamArrays, index: int) -> ParamArrays:
    """One task's parameters, without the axis of tasks (views)."""
    return {name: array[min(index, len(array) - 1)] for name, array in params.items()}


def _pickled_task(task: Any, index: int) -> bytes:
    try:
        return pickled(task, f"task {index}")
    except ValueError as error:
        raise SamplingError(str(error), index, None) from error


def _once_more(work: Work, attempts: int, lost: Lost) -> Work:
    """The same work, if it may be begun again.

    Raises:
        SamplingError: if it has been begun too often.
    """
    if attempts >= MAX_ATTEMPTS:
        text = named([cloudpickle.loads(work.task)], work.task_index, work.key)
        reason = f"{text}: given up after {attempts} attempts, in the last {lost.reason}"
        raise SamplingError(reason, work.task_index, None)
    logging.getLogger(__name__).warning("task %d is played again: %s", work.task_index, lost.reason)
    return work


def _require_played(work: Work, outcome: Played | Failure) -> Played:
    """
    Raises:
        SamplingError: if the work failed.
    """
    if isinstance(outcome, Played):
        return outcome
    error = SamplingError(outcome.reason, work.task_index, outcome.episode)
    if outcome.details:
        error.add_note(outcome.details)
    raise error
