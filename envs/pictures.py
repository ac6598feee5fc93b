"""Pictures for films: the forms an environment may draw them in, and a check of two before films are made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .task_env import Task, TaskVectorEnv

WANTED = "return one array of np.uint8 with the shape [height, width, 3], of the same size at every step"


def as_picture(drawn: Any) -> NDArray[np.uint8]:
    """A picture [height, width, 3]: grey gets three equal channels, and what is transparent is laid on white.

    Raises:
        ValueError: for anything else than 8-bit grey or colour.
    """
    if not isinstance(drawn, np.ndarray) or drawn.dtype != np.uint8:
        kind = f"an array of {drawn.dtype}" if isinstance(drawn, np.ndarray) else type(drawn).__name__
        raise ValueError(f"drawing returned {kind} in place of a picture: {WANTED}")
    if drawn.ndim == 2:
        drawn = drawn[..., None]
    if drawn.ndim != 3 or drawn.shape[2] not in (1, 3, 4) or not drawn.size:
        raise ValueError(f"drawing returned an array of the shape {list(drawn.shape)} in place of a picture: {WANTED}")
    if drawn.shape[2] == 4:
        opacity = drawn[..., 3:] / 255.0
        return (opacity * drawn[..., :3] + (1.0 - opacity) * 255.0).round().astype(np.uint8)
    return np.repeat(drawn, 3, axis=2) if drawn.shape[2] == 1 else drawn


def require_pictures(env: TaskVectorEnv, task: Task) -> None:
    """Draw the start of an episode and its first step, as films do.

    Args:
        env: made with the render mode rgb_array.
    Raises:
        ValueError: if one is no picture, or they differ in size; and whatever `env` raises.
    """
    env.set_tasks([task] * env.num_envs)
    env.reset(seed=0)
    first = env.render_one(0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    second = env.render_one(0)
    for drawn in (first, second):
        if as_picture(drawn).shape != drawn.shape:  # a batch is not converted, as copies of a single one are
            raise ValueError(f"render_one returned an array of the shape {list(drawn.shape)}: {WANTED}")
    if first.shape != second.shape:
        shapes = f"{list(first.shape)} and then {list(second.shape)}"
        raise ValueError(f"drawing returned pictures of the shapes {shapes}: {WANTED}")
