"""Episodes of evaluation, played once more before a camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.contracts import Actor
from maml_rl.core.keys import Key
from maml_rl.pictures.video import VideoError
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.rollout import VectorEnvironment, rollout
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import blank_trajectory

Picture = NDArray[np.uint8]  # [height, width, 3]
MAX_PICTURES = 100  # of an episode, from which follows how many steps lie between two


class DrawnEnvironment(VectorEnvironment, Protocol):
    """A vector environment that draws."""

    horizon: int
    metadata: dict[str, Any]
    picture_note: str

    def render_one(self, index: int) -> Picture: ...


class Scene(NamedTuple):
    """The episodes that a policy is scored on for one task of an evaluation."""

    task: Any
    place: int  # of the task among the N, for its parameters and its noise
    key: Key  # of the episodes
    row: int  # the episode to draw


class Recording(NamedTuple):
    """A task's E episodes, with pictures of one: of its start, of every n-th step, and of its end."""

    paths: list[NDArray[np.float64]]  # E of [steps + 1, O]: observations from the start to the end
    pictures: list[Picture]
    steps: list[int]  # taken until each picture
    returns: list[float]  # undiscounted, until each picture
    speeds: list[float]  # mean forward speed until each picture [m/s]; empty in environments that report none


class _Recorder:
    """An environment that looks like another one and keeps all that happens in it.

    Episodes are its sub-environments, or, where there is one alone, come one after the other.
    """

    def __init__(self, env: DrawnEnvironment, row: int, every: int, in_a_row: bool):
        """
        Args:
            row: the episode to draw.
            every: steps from picture to picture; 0 for no pictures.
        """
        self._env, self._row, self._every, self._in_a_row = env, row, every, in_a_row
        self.num_envs, self.single_action_space = env.num_envs, env.single_action_space
        self.recording = Recording([], [], [], [], [])
        self._observations: list[list[NDArray]] = []
        self._step, self._return, self._distance = 0, 0.0, 0.0

    def set_tasks(self, tasks: Sequence[Any]) -> None:
        self._env.set_tasks(tasks)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[NDArray, dict[str, Any]]:
        observations, infos = self._env.reset(seed=seed, options=options)
        self._observations += [[row] for row in observations.copy()]
        if self._is_drawn:
            self._look(has_speed=False)
        return observations, infos

    def step(self, actions: NDArray, alive: NDArray | None = None) -> tuple[Any, ...]:
        result = self._env.step(actions, alive)
        observations, rewards, terminated, truncated, infos = result
        for i in range(self.num_envs):
            if alive is None or alive[i]:
                self._observations[i - self.num_envs].append(observations[i].copy())
        row = self._column
        if self._is_drawn and (alive is None or alive[row]):
            self._step += 1
            self._return += float(rewards[row])
            self._distance += float(infos["x_velocity"][row]) if "x_velocity" in infos else 0.0
            if self._every and (self._step % self._every == 0 or terminated[row] or truncated[row]):
                self._look("x_velocity" in infos)
        return result

    @property
    def _column(self) -> int:
        return 0 if self._in_a_row else self._row

    @property
    def _is_drawn(self) -> bool:
        """Whether the present episode is the one to draw."""
        return not self._in_a_row or len(self._observations) == self._row + 1

    def close(self) -> None:
        """Leave the environment open for the next recording."""

    def finished(self) -> Recording:
        return self.recording._replace(paths=[np.array(rows) for rows in self._observations])

    def _look(self, has_speed: bool) -> None:
        if not self._every:
            return
        self._keep(np.array(self._env.render_one(self._column)))
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


def record(env: DrawnEnvironment, recipe: Recipe, actor: Actor, scene: Scene, every: int) -> Recording:
    """The episodes that an actor is scored on for one task, bit for bit.

    Args:
        env: of as many sub-environments as one task takes.
        recipe: by which the episodes were played.
        actor: of all N tasks.
        every: steps from picture to picture; 0 for no pictures.
    """
    recorder = _Recorder(env, scene.row, every, recipe.in_a_row)
    shape = recipe.shape._replace(reports_success=False)
    noise = episode_noise(scene.key, scene.place, 1, shape, recipe.actions)
    one = actor.take_tasks(scene.place, scene.place + 1)
    own = one._replace(params={name: value.cpu() for name, value in one.params.items()})
    rollout(recipe.stage(recorder), own, [scene.task], noise, blank_trajectory(1, shape), scene.place)
    return recorder.finished()


class Pace(NamedTuple):
    """The speed at which an episode is shown as a film."""

    every: int  # steps from picture to picture
    fps: float  # pictures per second
    remark: str  # how much slower or faster than life, if so


def film_pace(world: DrawnEnvironment) -> Pace:
    """About a hundred pictures at no more than 25 a second, as far as that goes at the speed of life; 25 a second where
    the environment does not state its speed."""
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
