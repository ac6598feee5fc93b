"""Observations and actions in an environment's own form, and spaces as JSON."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.adapters import VectorFromSingle
from envs.oracle import task_vector
from envs.plug_in import TASK_METHODS, OneTask, flattened, with_clipped_actions
from envs.scaling import byte_scale


def actions_of(env: gymnasium.Env) -> spaces.Space:
    """The space of an environment's actions, with the bounds that a `ClipAction` clips to."""
    return with_clipped_actions(env).action_space


class Observer:
    """A flattener of a space's observations, with bytes scaled to 0..1, as policies are trained on them."""

    def __init__(self, space: spaces.Space):
        self.space, self._scale = space, byte_scale(space)

    def is_single(self, observation: Any) -> bool:
        """Check whether this is one observation rather than a batch of them, which has one more axis in front.

        Raises:
            ValueError: if it is neither.
        """
        shape, own = _shape(observation), _shape_of_space(self.space)
        if shape == own:
            return True
        if _has_axis_more(shape, own):
            return False
        raise ValueError(
            f"observation must have the shape {own}, or one axis more for a batch, got {shape}: is it of the "
            "environment that the agent was trained on?"
        )

    def flat(self, observation: Any) -> NDArray[np.float32]:
        """The flat numbers: [O] for one observation, [B, O] for a batch."""
        if self.is_single(observation):
            return self._flat(observation)
        count = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return np.stack([self._flat(_row(observation, i)) for i in range(count)])

    def _flat(self, observation: Any) -> NDArray[np.float32]:
        try:
            row = np.asarray(spaces.flatten(self.space, observation)).ravel()
            is_finite = bool(np.isfinite(row).all())
        except (TypeError, ValueError, IndexError):
            is_finite = False
        if not is_finite:
            raise ValueError("observation must consist of finite numbers, as those of the agent's environment do")
        if self._scale is not None:
            row = (row - self._scale.low.ravel()) / self._scale.width.ravel()
        return row.astype(np.float32) if row.dtype != np.float64 else row


def _row(observation: Any, index: int) -> Any:
    if isinstance(observation, dict):
        return {name: _row(value, index) for name, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_row(value, index) for value in observation)
    return observation[index]


def _shape(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: _shape(value) for name, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_shape(value) for value in observation)
    return list(np.shape(observation))


def _shape_of_space(space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _shape_of_space(value) for name, value in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_shape_of_space(value) for value in space.spaces)
    return list(space.shape or ())


def _has_axis_more(shape: Any, own: Any) -> bool:
    if isinstance(own, dict):
        return (
            isinstance(shape, dict)
            and shape.keys() == own.keys()
            and all(_has_axis_more(shape[k], own[k]) for k in own)
        )
    if isinstance(own, tuple):
        return isinstance(shape, tuple) and len(shape) == len(own) and all(map(_has_axis_more, shape, own))
    return isinstance(shape, list) and shape[1:] == own and len(shape) == len(own) + 1


def has_tasks(env: gymnasium.Env) -> bool:
    """Check whether an environment, or one inside its wrappers, has a task to be set."""
    return any(env.has_wrapper_attr(name) for name in TASK_METHODS)


def stepped_alone(env: gymnasium.Env, horizon: int) -> VectorFromSingle:
    """One environment as a batch of one, for a rollout: its own tasks stay as they are, and it is not closed."""
    return VectorFromSingle(lambda: flattened(str(env), OneTask(env)), 1, horizon, str(env))


def numbers_of_task(task: Any) -> NDArray[np.float64]:
    """A task in the form that an oracle sees.

    Raises:
        ValueError: if it does not consist of numbers.
    """
    try:
        return task_vector(task)
    except TypeError as error:
        raise ValueError(str(error)) from None


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """A space as plain values.

    Raises:
        ValueError: for a kind of space that agents cannot be saved with.
    """
    match space:
        case spaces.Box():
            return {"kind": "Box", "low": space.low.tolist(), "high": space.high.tolist(), "dtype": str(space.dtype)}
        case spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.MultiDiscrete():
            return {
                "kind": "MultiDiscrete",
                "nvec": space.nvec.tolist(),
                "start": space.start.tolist(),
                "dtype": str(space.dtype),
            }
        case spaces.MultiBinary():
            return {"kind": "MultiBinary", "shape": list(space.shape)}
        case spaces.Dict():
            return {"kind": "Dict", "spaces": [[name, space_to_json(each)] for name, each in space.spaces.items()]}
        case spaces.Tuple():
            return {"kind": "Tuple", "spaces": [space_to_json(each) for each in space.spaces]}
    raise ValueError(f"an agent can be saved with Box, Discrete, Multi, Dict and Tuple spaces, not with {space}")


def space_from_json(saved: dict[str, Any]) -> spaces.Space:
    """The inverse of `space_to_json`."""
    match saved["kind"]:
        case "Box":
            dtype = np.dtype(saved["dtype"]).type
            return spaces.Box(np.array(saved["low"], dtype), np.array(saved["high"], dtype), dtype=dtype)
        case "Discrete":
            return spaces.Discrete(saved["n"], start=saved["start"])
        case "MultiDiscrete":
            dtype = np.dtype(saved["dtype"]).type
            return spaces.MultiDiscrete(np.array(saved["nvec"]), dtype=dtype, start=np.array(saved["start"]))
        case "MultiBinary":
            return spaces.MultiBinary(saved["shape"])
        case "Dict":
            return spaces.Dict({name: space_from_json(each) for name, each in saved["spaces"]})
        case "Tuple":
            return spaces.Tuple([space_from_json(each) for each in saved["spaces"]])
    raise ValueError(f"kind of space must be one that agents are saved with, got {saved['kind']!r}")
