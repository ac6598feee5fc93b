"""Whole tasks as work for other processes: pieces of work, how one is played, and how all of them get done.

A task's episodes are a pure function of (task, its parameters, key, index): who plays them, and how often, changes no
bit. What is lost with a worker is therefore played again; an error of the environment would come again, and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import cloudpickle
import optree
import torch
from numpy.typing import NDArray

from maml_rl.core.contracts import Actor, Network
from maml_rl.core.keys import Key
from maml_rl.core.trees import Params
from maml_rl.runtime import product_threads
from maml_rl.sampling.failures import as_sampling_error, named, said
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.rollout import VectorEnvironment, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import BY_EPISODE, SamplingError, Trajectory, blank_trajectory

MAX_ATTEMPTS = 3
"""The most times that a task is begun if workers are lost over it: it may be what kills them."""

ParamArrays = dict[str, NDArray]
"""Parameters stacked over tasks, [N, ...], or [1, ...] where all tasks share them."""


class Work(NamedTuple):
    """One task with all its episodes."""

    task_index: int  # among the iteration's tasks
    task: bytes  # pickled
    network: bytes  # pickled: the actor's, whose parameters travel as arrays
    key: Key


class Played(NamedTuple):
    """Work that is done."""

    arrays: tuple[NDArray, ...]  # the fields of a Trajectory but the memory, without the axis of tasks
    memory: Any  # the actor's after the last step: a tree of arrays, likewise
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

    def hold(self, num_tasks: int) -> None:
        """Do nothing: each worker made its copies, of one task's episodes, when it began."""

    def sample(self, tasks: Sequence[Any], actor: Actor, key: Key) -> Trajectory:
        """E episodes of every task, each under its own parameters.

        Raises:
            SamplingError: naming the task; a worker's own traceback is among its notes.
        """
        network = pickled(actor.network, "the actor's network")
        work = [Work(index, _pickled_task(task, index), network, key) for index, task in enumerate(tasks)]
        trajectory = blank_trajectory(len(tasks), self._recipe.shape)
        self.worker_seconds = 0.0
        try:
            self._crew.begin(shared_arrays(actor.params))
            memories = self._gather(work, trajectory)
        except BaseException:
            self._crew.abandon()
            raise
        memory = optree.tree_map(lambda *each: torch.stack([torch.from_numpy(array) for array in each]), *memories)
        return trajectory._replace(memory=memory)

    def close(self) -> None:
        self._crew.close()

    def _gather(self, work: Sequence[Work], trajectory: Trajectory) -> list[Any]:
        """Have every piece of work done and put it where it belongs; returns the memories, task by task."""
        to_do, num_done = deque(work), 0
        memories: list[Any] = [()] * len(work)
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
                for name, part in zip(BY_EPISODE, played.arrays, strict=True):
                    getattr(trajectory, name)[index].numpy()[...] = part
                memories[index] = played.memory
                self.worker_seconds += played.seconds
                num_done += 1
        return memories


class Workbench:
    """A worker's environment, and what is played in it."""

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._env: VectorEnvironment | None = recipe.make_env(recipe.at_once)
        self._network: tuple[bytes, Network] | None = None  # as it came, and unpickled

    @product_threads(1)
    def play(self, work: Work, params: ParamArrays) -> Played | Failure:
        """Every episode of one task under its parameters (without the axis of tasks)."""
        recipe, begun = self._recipe, time.perf_counter()
        noise = episode_noise(work.key, work.task_index, 1, recipe.shape, recipe.actions)
        task = None
        try:
            task = cloudpickle.loads(work.task)
            out = blank_trajectory(1, recipe.shape)
            # copied: aligned, and writable as torch wants it
            stacked = {name: torch.tensor(array).unsqueeze(0) for name, array in params.items()}
            actor = Actor(self._network_of(work), stacked)
            memory = rollout(recipe.stage(self._environment()), actor, [task], noise, out, work.task_index)
            arrays = tuple(getattr(out, name)[0].numpy() for name in BY_EPISODE)
            lasting = optree.tree_map(lambda value: value[0].cpu().numpy(), memory)
            return Played(arrays, lasting, time.perf_counter() - begun)
        except (Exception, SystemExit) as error:
            self._discard()
            told = as_sampling_error(error, [task], work.task_index, work.key, noise.reset_seeds, "in a worker")
            return Failure(str(told), told.episode, "\n".join(getattr(told, "__notes__", [])))

    def _network_of(self, work: Work) -> Network:
        if self._network is None or self._network[0] != work.network:
            self._network = work.network, cloudpickle.loads(work.network)
        return self._network[1]

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env = None

    def _environment(self) -> VectorEnvironment:
        if self._env is None:
            self._env = self._recipe.make_env(self._recipe.at_once)
        return self._env

    def _discard(self) -> None:
        """Give up the environment, which failed in the midst of an episode: the next task gets a new one."""
        with contextlib.suppress(Exception):  # it may be what has failed
            self.close()
        self._env = None


def pickled(value: Any, name: str) -> bytes:
    """Pickle a value for another process, which may be on another machine.

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
