"""The environment of a run, and its tasks, in the form that a live view shows them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.adapters import SingleFromVector
from envs.pictures import as_picture
from envs.plug_in import find_world, make_batch, make_single, with_tasks
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import (
    EnvironmentSource,
    MujocoTaskVectorEnv,
    make_environment,
    make_film_environment,
    needs_backend,
    require_film,
)
from maml_rl.experiments.task_lists import fields_of
from maml_rl.pictures.live.show import Dial, Tasks

MAX_CHOICES = 12  # tasks to choose from by name
NUM_PROBED = 100  # tasks drawn to find out how many there are
STEPS_PER_SECOND = 25.0  # where the environment does not state its speed


def make_live(config: RunConfig, render_mode: str | None = None) -> gymnasium.Env:
    """One environment of the run in the form that its agent takes: observations as they were trained on."""
    world, horizon = find_world(config.env), config.task.sampling.horizon
    if world.is_batch:
        return SingleFromVector(make_batch(world, 1, horizon, render_mode))
    return with_tasks(world, make_single(world, horizon, render_mode))


def robot_of(env: gymnasium.Env) -> MujocoTaskVectorEnv | None:
    """The batch of one robot behind an environment, if it is one of this project's robots."""
    vector = getattr(env.unwrapped, "vector", None)
    return vector if isinstance(vector, MujocoTaskVectorEnv) else None


def picture_of(env: gymnasium.Env) -> NDArray[np.uint8]:
    """A picture [height, width, 3] of an environment that draws."""
    return as_picture(env.render())


def note_of(env: gymnasium.Env) -> str:
    """A note on how a picture shows the task; "" if there is none."""
    inner = env.unwrapped
    return inner.vector.picture_note if isinstance(inner, SingleFromVector) else ""


def render_mode_of(config: RunConfig, seed: int) -> str | None:
    """The render mode in which a live view makes the environment: None for robots, which the browser draws.

    Raises:
        ValueError: if the environment is no robot and draws no pictures.
    """
    with contextlib.closing(make_environment(config, 1)) as env:
        if needs_backend(env):
            return None
        (task,) = EnvironmentSource(env).sample_tasks(1, np.random.default_rng(seed))
    with contextlib.closing(make_film_environment(config, 1, 240, 320)) as drawn:
        require_film(drawn, task, config.env)
    return "rgb_array"


def steps_per_second(env: gymnasium.Env) -> float:
    """The speed of life: steps a second, as the environment states them."""
    stated = env.metadata.get("render_fps")
    if isinstance(stated, int | float) and 0 < stated < np.inf:
        return float(stated)
    return STEPS_PER_SECOND


def live_tasks(config: RunConfig, seed: int) -> Tasks:
    """The tasks of a run as numbers in their range, as a few names, or only as draws.

    Args:
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    env = make_environment(config, 1)  # open for as long as tasks are drawn from it
    source = EnvironmentSource(env)

    def sample() -> Any:
        return source.sample_tasks(1, rng)[0]

    try:
        probed = [source.sample_tasks(1, np.random.default_rng(k))[0] for k in range(NUM_PROBED)]
    except BaseException:
        env.close()
        raise
    dials = tuple(_dials(probed[0], source))
    if dials:
        return Tasks(sample, dials, kind=type(probed[0]))
    by_name = {str(task): task for task in probed}
    few = sorted(by_name) if len(by_name) <= MAX_CHOICES else []
    return Tasks(sample, choices=tuple(by_name[name] for name in few))


def _dials(task: Any, source: EnvironmentSource) -> Iterator[Dial]:
    """A dial for each number of a task, if it is a dataclass of numbers that have a range."""
    fields = fields_of(task) if dataclasses.is_dataclass(task) else {}
    limits = {name: source.limits_of(name) for name in fields}
    if not all(isinstance(value, float) and limits[name] is not None for name, value in fields.items()):
        return
    for name in fields:
        low, high = limits[name] or (0.0, 1.0)
        yield Dial(name, unit_of(type(task), name), low, high)


def unit_of(kind: type, field: str) -> str:
    """The unit in brackets that stands behind a field in the source of its dataclass; "" if there is none."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # made in an interpreter, which keeps no source
        return ""
    found = re.search(rf"^\s+{re.escape(field)}\s*:[^#\n]*#[^\n]*\[([^\]\n]+)\]", source, re.MULTILINE)
    return found[1] if found else ""
