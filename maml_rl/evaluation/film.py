"""Episodes of evaluation, played once more before a camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.params import Params, take_tasks
from maml_rl.core.protocols import Key
from maml_rl.evaluation.video import VideoError
from maml_rl.policies import Policy
from maml_rl.sampling.rollout import VectorWorld, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import blank_trajectory

Picture = NDArray[np.uint8]  # [height, width, 3]
MAX_PICTURES = 100  # of an episode, from which follows how many steps lie between two


class DrawnWorld(VectorWorld, Protocol):
    """A vector environment that draws."""

    horizon: int
    metadata: dict[str, Any]
    picture_note: str

    def render_one(self, index: int) -> Picture: ...


class Scene(NamedTuple):
    """The episodes that a policy is scored on for one task of an evaluation."""

    task: Any
    place: int  # of the task among the N, for its parameters and its noise
    key: Key  # of the episodes; see `adaptation_curve.query_key`


class Recording(NamedTuple):
    """A task's E episodes, with pictures of one: of its start, of every n-th step, and of its end."""

    paths: list[NDArray[np.float64]]  # E of [steps + 1, O]: observations from the start to the end
    pictures: list[Picture]
    steps: list[int]  # taken until each picture
    returns: list[float]  # undiscounted, until each picture
    speeds: list[float]  # mean forward speed until each picture [m/s]; empty in worlds that report none


class _Recorder:
    """A world that looks like another one and keeps what happens in it."""

    def __init__(self, world: DrawnWorld, row: int, every: int):
        """
        Args:
            row: the episode to draw.
            every: steps from picture to picture; 0 for no pictures.
        """
        self._world, self._row, self._every = world, row, every
        self.num_envs, self.single_action_space = world.num_envs, world.single_action_space
        self.recording = Recording([], [], [], [], [])
        self._observations: list[list[NDArray]] = []
        self._step, self._return, self._distance = 0, 0.0, 0.0

    def set_tasks(self, tasks: Sequence[Any]) -> None:
        self._world.set_tasks(tasks)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[NDArray, dict[str, Any]]:
        observations, infos = self._world.reset(seed=seed, options=options)
        self._observations = [[row] for row in observations.copy()]
        self._look(has_speed=False)
        return observations, infos

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        result = self._world.step(actions, alive)
        observations, rewards, terminated, truncated, infos = result
        for i in range(self.num_envs):
            if alive is None or alive[i]:
                self._observations[i].append(observations[i].copy())
        row = self._row
        if alive is None or alive[row]:
            self._step += 1
            self._return += float(rewards[row])
            self._distance += float(infos["x_velocity"][row]) if "x_velocity" in infos else 0.0
            if self._every and (self._step % self._every == 0 or terminated[row] or truncated[row]):
                self._look("x_velocity" in infos)
        return result

    def close(self) -> None:
        """The world lives on, for the next recording."""

    def finished(self) -> Recording:
        return self.recording._replace(paths=[np.array(rows) for rows in self._observations])

    def _look(self, has_speed: bool) -> None:
        if not self._every:
            return
        self._keep(np.array(self._world.render_one(self._row)))
        self.recording.steps.append(self._step)
        self.recording.returns.append(self._return)
        if has_speed and not self.recording.speeds:
            self.recording.speeds.append(0.0)  # of the start
        if has_speed:
            self.recording.speeds.append(self._distance / self._step)

    def _keep(self, picture: Picture) -> None:
        pictures = self.recording.pictures
        wanted = pictures[0].shape if pictures else (*picture.shape[:2], 3)
        if picture.dtype != np.uint8 or picture.shape != wanted:
            raise VideoError(
                f"the pictures of an episode must be arrays of uint8 of the shape {list(wanted)}, but the one of step "
                f"{self._step} is of {picture.dtype} and {list(picture.shape)}: let every picture have the same size"
            )
        pictures.append(picture)


def median_episode(scores: Tensor) -> int:
    """The episode, of E with the scores [E], that does neither better nor worse than the others."""
    return int(torch.argsort(scores, stable=True)[len(scores) // 2])


def record(world: DrawnWorld, policy: Policy, params: Params, scene: Scene, row: int, every: int) -> Recording:
    """The episodes that a policy is scored on for one task, bit for bit.

    Args:
        world: of as many sub-environments as a task has episodes.
        params: stacked [N, ...].
        row: the episode to draw.
        every: steps from picture to picture; 0 for no pictures.
    """
    num_episodes, horizon = world.num_envs, world.horizon
    task, index, key = scene
    recorder = _Recorder(world, row, every)
    noise = episode_noise(key, index, 1, num_episodes, horizon, policy)
    out = blank_trajectory(1, num_episodes, horizon, policy, reports_success=False)
    own = {name: value.cpu() for name, value in take_tasks(params, index, index + 1).items()}
    rollout(recorder, policy, own, [task], noise, out, index)
    return recorder.finished()


class Pace(NamedTuple):
    """How an episode becomes a film."""

    every: int  # steps from picture to picture
    fps: float  # pictures per second
    remark: str  # how much slower or faster than life, if so


def film_pace(world: DrawnWorld) -> Pace:
    """About a hundred pictures at no more than 25 a second, as far as that goes at the speed of life; 25 a second where
    the world does not state its speed."""
    every = max(1, math.ceil(world.horizon / MAX_PICTURES))
    stated = world.metadata.get("render_fps")
    life = (stated if isinstance(stated, int | float) and 0 < stated < math.inf else 25.0 * every) / every
    fps = float(min(25.0, max(5.0, life)))
    return Pace(every, fps, "" if fps == life else f"played at {fps / life:.2g} times its speed")


def thinned(recording: Recording, every: int) -> Recording:
    """Every n-th picture of a recording, and the last."""
    kept = sorted({*range(0, len(recording.pictures), every), len(recording.pictures) - 1})
    pictures, steps, returns, speeds = (
        [values[i] for i in kept] if values else []
        for values in (recording.pictures, recording.steps, recording.returns, recording.speeds)
    )
    return Recording(recording.paths, pictures, steps, returns, speeds)


def caption(recording: Recording, index: int, num_gradient_steps: int, task: Any) -> list[str]:
    """Lines under one picture: the task, if given; gradient steps; step and return so far."""
    when = "before adaptation" if num_gradient_steps == 0 else f"after {num_gradient_steps} gradient step"
    when += "s" if num_gradient_steps > 1 else ""
    now = f"step {recording.steps[index]}: return {recording.returns[index]:.1f}"
    if recording.speeds:
        now += f", mean speed {recording.speeds[index]:.2f} m/s"
    return [when, now] if task is None else [str(task), when, now]
