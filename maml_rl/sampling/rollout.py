"""The inner loop of sampling: a block of tasks, all their episodes side by side, from reset to the horizon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.params import Params, device_of
from maml_rl.policies import Policy
from maml_rl.sampling.seeds import EpisodeNoise
from maml_rl.sampling.trajectory import SamplingError, Trajectory


class VectorWorld(Protocol):
    """What a rollout needs of a vector environment: `envs.TaskVectorEnv` and whatever looks like it."""

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


def rollout(
    env: VectorWorld,
    policy: Policy,
    params: Params,
    tasks: Sequence[Any],
    noise: EpisodeNoise,
    out: Trajectory,
    first_task: int,
) -> None:
    """Play every episode of `tasks` and write them into `out`.

    Args:
        env: of len(tasks) * E sub-environments, task-major.
        params: stacked [len(tasks), ...].
        out: this block's part of the trajectory, [len(tasks), E, T, ...], all zero.
        first_task: the block's place among all tasks, for error messages.
    Raises:
        SamplingError: naming task, episode and step.
    """
    num_tasks, num_episodes, horizon = out.rewards.shape
    place = (num_episodes, first_task)
    to_env = action_mapping(env.single_action_space)
    device = device_of(params)
    all_noise = torch.from_numpy(noise.actions).view(horizon, num_tasks, num_episodes, -1).to(device)
    env.set_tasks([task for task in tasks for _ in range(num_episodes)])
    try:
        observations, _ = env.reset(seed=noise.reset_seeds)
    except RuntimeError as error:
        _raise_located(error, "reset", *place)
    alive = np.ones(env.num_envs, dtype=bool)
    terminated_ever, succeeded_ever = np.zeros((2, env.num_envs), dtype=bool)
    reports_success = out.successes.shape[-1] > 0
    with torch.no_grad():
        for t in range(horizon):
            everyone = bool(alive.all())
            if not everyone and not alive.any():
                break
            seen = policy.see(torch.from_numpy(observations).reshape(num_tasks, num_episodes, -1))
            outputs = policy.outputs(params, seen.to(device))
            actions = policy.sample(outputs, all_noise[t]).cpu()
            for name, values in (("policy output", outputs), ("action", actions)):
                row = _not_finite(values)
                if row is not None:
                    _blame(name, values.flatten(0, 1)[row], seen.flatten(0, 1)[row], row, t, *place)
            flat = actions.view(env.num_envs, -1)
            try:
                observations, rewards, terminated, truncated, infos = env.step(
                    to_env(flat), None if everyone else alive
                )
            except RuntimeError as error:
                _raise_located(error, f"step {t}", *place)
            if not everyone:
                living = torch.from_numpy(alive).view(num_tasks, num_episodes, 1)
                seen, actions = seen * living, actions * living
            out.observations[:, :, t] = seen
            out.actions[:, :, t] = actions
            out.rewards[:, :, t] = torch.from_numpy(rewards * alive).view(num_tasks, num_episodes)
            out.mask[:, :, t] = torch.from_numpy(alive).view(num_tasks, num_episodes)
            terminated_ever |= terminated
            if reports_success and "success" in infos:  # some tell it at an episode's last step alone
                succeeded_ever |= alive & (infos["success"] > 0)
            alive = alive & ~(terminated | truncated)
    _require_finite(out, *place)
    out.terminated[:] = torch.from_numpy(terminated_ever).view(num_tasks, num_episodes)
    out.successes[:] = torch.from_numpy(succeeded_ever).view(num_tasks, num_episodes, 1)


def _not_finite(values: Tensor) -> int | None:
    """The first row of [n, E, width] that holds an infinite number or none at all, counted over tasks and episodes."""
    finite = torch.isfinite(values)
    if finite.all():
        return None
    return int((~finite.flatten(0, 1).all(dim=-1)).nonzero()[0])


def _blame(
    name: str, values: Tensor, observation: Tensor, row: int, t: int, num_episodes: int, first_task: int
) -> NoReturn:
    """Say that a policy gave `values` at step t, unless the observation that it was given is at fault."""
    if not torch.isfinite(observation).all():
        _raise_not_finite("observation", observation, row, _when_seen(t), num_episodes, first_task)
    largest = float(observation.abs().max()) if observation.numel() else 0.0
    reason = f"{name} is not finite: {values.tolist()}, where no entry of the observation is beyond {largest:.3g}"
    raise _located(row, reason, f"step {t}", num_episodes, first_task)


def _require_finite(out: Trajectory, num_episodes: int, first_task: int) -> None:
    """Look at all steps at once, after the last: at each step it would take time.

    An environment's numbers may be finite in 64 bits and infinite in the 32 of a trajectory, and a policy may answer
    an infinite observation with a finite action.
    """
    for name, values in (("observation", out.observations), ("reward", out.rewards.float()[..., None])):
        finite = np.isfinite(values.numpy())  # torch takes longer
        if not finite.all():
            task, episode, t = np.argwhere(~finite.all(axis=-1))[0].tolist()
            when = _when_seen(t) if name == "observation" else f"step {t}"
            row = task * num_episodes + episode
            _raise_not_finite(name, values[task, episode, t], row, when, num_episodes, first_task)


def _when_seen(t: int) -> str:
    """By which call the observation before step t was returned."""
    return "reset" if t == 0 else f"step {t - 1}"


def _raise_not_finite(name: str, values: Tensor, row: int, when: str, num_episodes: int, first_task: int) -> NoReturn:
    entry = int((~torch.isfinite(values)).nonzero()[0])
    where = f" at entry {entry} of {len(values)}" if len(values) > 1 else ""
    reason = (
        f"{name} is {float(values[entry])}{where}: look for a division by zero, or for numbers beyond 3.4e38, the "
        "largest in 32 bits"
    )
    # an error of the environment, which is told with its task and seeds
    raise _located(row, reason, when, num_episodes, first_task) from FloatingPointError(reason)


def _raise_located(error: RuntimeError, when: str, num_episodes: int, first_task: int) -> NoReturn:
    """An error of one sub-environment, in terms of task and episode; any other is not ours to explain."""
    own_row = getattr(error, "environment", None)
    if own_row is None:
        raise error
    raise _located(int(own_row), getattr(error, "reason", str(error)), when, num_episodes, first_task) from error


def _located(row: int, reason: str, when: str, num_episodes: int, first_task: int) -> SamplingError:
    """What happened in one sub-environment, in terms of task and episode."""
    task, episode = divmod(row, num_episodes)
    place = f"task {first_task + task}, episode {episode}, {when}"
    return SamplingError(f"{place}: {reason}", first_task + task, episode)
