"""The inner loop of sampling: a block of tasks, their episodes side by side or in a row, from reset to the horizon."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.acting import LastStep, kept
from maml_rl.core.contracts import Actor, Memory
from maml_rl.core.trees import device_of
from maml_rl.policies.distribution import ActionSource
from maml_rl.sampling.seeds import EpisodeNoise
from maml_rl.sampling.trajectory import BY_EPISODE, SamplingError, Trajectory


class VectorEnvironment(Protocol):
    """All that a rollout needs of a vector environment: `envs.TaskVectorEnv` and whatever looks like it."""

    num_envs: int
    single_action_space: Any

    def set_tasks(self, tasks: Sequence[Any]) -> None: ...
    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[NDArray, dict[str, Any]]: ...
    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]: ...
    def close(self) -> None: ...


def action_mapping(space: Any) -> Callable[[Tensor], NDArray]:
    """Policy actions [n, A] to environment actions [n, *shape]: +-1 is the Box's bound, beyond is clipped; indices [n]
    for Discrete, [n, *shape] for MultiDiscrete and MultiBinary."""
    shape = (-1, *space.shape)
    if not hasattr(space, "low"):
        start = np.asarray(getattr(space, "start", 0), np.int64)
        return lambda actions: (actions.numpy().astype(np.int64).reshape(shape) + start).astype(space.dtype)
    low, high = (torch.from_numpy(bound.copy()).flatten() for bound in (space.low, space.high))
    centre, half_width = (high + low) / 2, (high - low) / 2
    if bool((centre == 0).all()) and bool((half_width == 1).all()):
        return lambda actions: actions.clamp(-1.0, 1.0).view(shape).numpy()
    # rounding may put centre + half_width past the bound, which an environment may refuse
    return lambda actions: (centre + half_width * actions.clamp(-1.0, 1.0)).clamp(low, high).view(shape).numpy()


class Stage(NamedTuple):
    """The place where a block of tasks is played, and how actors see and act there."""

    env: VectorEnvironment  # of N * E sub-environments, task-major; of N where episodes are played in a row
    actions: ActionSource  # how an actor's outputs become actions
    see: Callable[[Tensor], Tensor]  # the environment's observations, on the CPU, as the actor takes them
    turn: AbstractContextManager = nullcontext()  # held while anything but the environment is computed


def rollout(
    stage: Stage, actor: Actor, tasks: Sequence[Any], noise: EpisodeNoise, out: Trajectory, first_task: int
) -> Memory:
    """Play every episode of `tasks` and write them into `out`.

    With as many sub-environments as episodes these are played side by side, each from the actor's first memory; with
    one for each task they are played in a row, and the memory lasts.

    Args:
        actor: of these tasks.
        out: this block's part of the trajectory, [len(tasks), E, T, ...], all zero.
        first_task: the block's place among all tasks, for error messages.
    Returns:
        The actor's memory after the last step: [len(tasks), E, ...], or [len(tasks), 1, ...] for episodes in a row.
    Raises:
        SamplingError: naming task and episode.
    """
    num_tasks, num_episodes, horizon = out.rewards.shape
    at_once = stage.env.num_envs // num_tasks
    all_noise = torch.from_numpy(noise.actions).view(horizon, num_tasks, num_episodes, -1)
    seeds = np.array(noise.reset_seeds, dtype=object).reshape(num_tasks, num_episodes)
    stage.env.set_tasks([task for task in tasks for _ in range(at_once)])
    memory, last = actor.start(at_once), LastStep(num_tasks, at_once, out.actions.shape[-1])
    for first in range(0, num_episodes, at_once):
        columns = slice(first, first + at_once)
        part = out._replace(**{name: getattr(out, name)[:, columns] for name in BY_EPISODE})
        place = _Place(at_once, first_task, first)
        own_seeds = seeds[:, columns].ravel().tolist()
        memory = _play(stage, actor, memory, last, own_seeds, all_noise[:, :, columns], part, place)
    return memory


class _Place(NamedTuple):
    """The place of a sub-environment's episode among all episodes."""

    at_once: int  # episodes of a task that are played side by side
    first_task: int
    first_episode: int


def _play(
    stage: Stage,
    actor: Actor,
    memory: Memory,
    last: LastStep,
    seeds: list[int],
    noise: Tensor,
    out: Trajectory,
    place: _Place,
) -> Memory:
    """One episode of every sub-environment; returns the actor's memory after it."""
    env, is_recurrent = stage.env, actor.network.is_recurrent
    num_tasks, num_episodes, horizon = out.rewards.shape
    episodes = (num_tasks, num_episodes)
    to_env, device = action_mapping(env.single_action_space), device_of(actor.params)

    def seen_by_actor(observations: NDArray) -> Tensor:
        return stage.see(torch.from_numpy(observations).reshape(*episodes, -1))

    try:
        observations, _ = env.reset(seed=seeds)
    except RuntimeError as error:
        _raise_located(error, "reset", place)
    noise = noise.to(device)
    alive = np.ones(env.num_envs, dtype=bool)
    terminated_ever, truncated_ever, succeeded_ever = np.zeros((3, env.num_envs), dtype=bool)
    reports_success = out.successes.shape[-1] > 0
    with torch.no_grad():
        for t in range(horizon):
            everyone = bool(alive.all())
            if not everyone and not alive.any():
                break
            with stage.turn:
                seen = seen_by_actor(observations)
                previous = last.before(t, device) if is_recurrent else None
                outputs, after = actor.step(memory, seen.to(device), previous)
                memory = after if everyone else kept(memory, after, torch.from_numpy(alive).view(episodes))
                actions = stage.actions.sample(outputs, noise[t]).cpu()
                _require_finite_step(outputs, actions, seen, t, place)
                to_take = to_env(actions.view(env.num_envs, -1))
            try:
                observations, rewards, terminated, truncated, infos = env.step(to_take, None if everyone else alive)
            except RuntimeError as error:
                _raise_located(error, f"step {t}", place)
            with stage.turn:
                if not everyone:
                    living = torch.from_numpy(alive).view(*episodes, 1)
                    seen, actions = seen * living, actions * living
                out.observations[:, :, t] = seen
                out.actions[:, :, t] = actions
                out.rewards[:, :, t] = torch.from_numpy(rewards * alive).view(episodes)
                out.mask[:, :, t] = torch.from_numpy(alive).view(episodes)
                if is_recurrent:
                    last.update(actions, out.rewards[:, :, t], torch.from_numpy(alive).view(episodes))
            if reports_success and "success" in infos:  # some tell it at an episode's last step alone
                succeeded_ever |= alive & (infos["success"] > 0)
            if t == horizon - 1:
                truncated = truncated | ~terminated  # whether or not the environment has a clock
            ended = alive & (terminated | truncated)
            if ended.any():
                rows = torch.from_numpy(ended).view(episodes)
                out.last_observations[rows] = seen_by_actor(observations)[rows]
            terminated_ever |= alive & terminated
            truncated_ever |= alive & truncated
            alive = alive & ~ended
    _require_finite(out, place)
    out.terminated[:] = torch.from_numpy(terminated_ever).view(episodes)
    out.truncated[:] = torch.from_numpy(truncated_ever).view(episodes)
    out.successes[:] = torch.from_numpy(succeeded_ever).view(*episodes, 1)
    return memory


def _require_finite_step(outputs: Tensor, actions: Tensor, seen: Tensor, t: int, place: _Place) -> None:
    """
    Raises:
        SamplingError: if a network's output or an action of step t is no finite number.
    """
    for name, values in (("policy output", outputs), ("action", actions)):
        row = _not_finite(values)
        if row is not None:
            _blame(name, values.flatten(0, 1)[row], seen.flatten(0, 1)[row], row, t, place)


def _not_finite(values: Tensor) -> int | None:
    """The first row of [n, E, width] that holds an infinite number or nan, counted over tasks and episodes."""
    if math.isfinite(values.sum()):  # quicker than looking at each; finite numbers may have an infinite sum, hence more
        return None
    finite = torch.isfinite(values)
    if finite.all():
        return None
    return int((~finite.flatten(0, 1).all(dim=-1)).nonzero()[0])


def _blame(name: str, values: Tensor, observation: Tensor, row: int, t: int, place: _Place) -> NoReturn:
    """Say that a policy gave `values` at step t, unless the observation that it was given is at fault."""
    if not torch.isfinite(observation).all():
        _raise_not_finite("observation", observation, row, _when_seen(t), place)
    largest = float(observation.abs().max()) if observation.numel() else 0.0
    reason = f"{name} is not finite: {values.tolist()}, where no entry of the observation is beyond {largest:.3g}"
    raise _located(row, reason, f"step {t}", place)


def _require_finite(out: Trajectory, place: _Place) -> None:
    """Check all steps at once, after the last: checking each step would take time.

    An environment's numbers may be finite in 64 bits and infinite in the 32 of a trajectory, and a policy may answer
    an infinite observation with a finite action.
    """
    for name, values in (("observation", out.observations), ("reward", out.rewards[..., None].float())):
        finite = np.isfinite(values.numpy())  # torch takes longer
        if not finite.all():
            task, episode, t = np.argwhere(~finite.all(axis=-1))[0].tolist()
            when = _when_seen(t) if name == "observation" else f"step {t}"
            row = task * place.at_once + episode
            _raise_not_finite(name, values[task, episode, t], row, when, place)


def _when_seen(t: int) -> str:
    """The call that returned the observation before step t, in words."""
    return "reset" if t == 0 else f"step {t - 1}"


def _raise_not_finite(name: str, values: Tensor, row: int, when: str, place: _Place) -> NoReturn:
    entry = int((~torch.isfinite(values)).nonzero()[0])
    where = f" at entry {entry} of {len(values)}" if len(values) > 1 else ""
    reason = (
        f"{name} is {float(values[entry])}{where}: look for a division by zero, or for numbers beyond 3.4e38, the "
        "largest in 32 bits"
    )
    # an error of the environment, which is reported with its task and seeds
    raise _located(row, reason, when, place) from FloatingPointError(reason)


def _raise_located(error: RuntimeError, when: str, place: _Place) -> NoReturn:
    """Raise an error of one sub-environment in terms of task and episode, and any other error as it is."""
    own_row = getattr(error, "environment", None)
    if own_row is None:
        raise error
    raise _located(int(own_row), getattr(error, "reason", str(error)), when, place) from error


def _located(row: int, reason: str, when: str, place: _Place) -> SamplingError:
    """The error of one sub-environment, in terms of task and episode."""
    index, column = divmod(row, place.at_once)
    task, episode = place.first_task + index, place.first_episode + column
    return SamplingError(f"task {task}, episode {episode}, {when}: {reason}", task, episode)
