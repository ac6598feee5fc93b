"""Bytes in observations, scaled from their bounds to 0..1."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim
from numpy.typing import NDArray

from .adapters import TaskVectorWrapper
from .task_env import TaskVectorEnv


class ScaledVector(TaskVectorWrapper):
    """`env` with its bytes scaled from their bounds to 0..1."""

    def __init__(self, env: TaskVectorEnv):
        scale = byte_scale(env.single_observation_space)
        if scale is None:
            raise ValueError(f"ScaledVector needs observations of bytes, got {env.single_observation_space}")
        self._scale = scale
        super().__init__(env, scale.of_space(env.single_observation_space))

    def _seen(self, observations: NDArray) -> NDArray:
        return self._scale(observations)


@dataclass(frozen=True)
class ByteScale:
    """(x - low) / width, entry by entry: bytes from their bounds to 0..1, the other entries as they are."""

    low: NDArray
    width: NDArray

    def __call__(self, observations: NDArray) -> NDArray:
        return (observations - self.low) / self.width

    def of_space(self, space: gymnasium.Space) -> gymnasium.spaces.Box:
        """The space of what it returns."""
        assert isinstance(space, gymnasium.spaces.Box)
        return gymnasium.spaces.Box(self(space.low), self(space.high), dtype=self(space.low).dtype.type)


def byte_scale(space: gymnasium.Space) -> ByteScale | None:
    """The scale that brings uint8 Boxes in a space to unit size; None if there are none, or they hold 0 and 1.

    The entries of a Dict or Tuple are laid flat, those of a Box keep their shape.
    """
    low, width = _byte_bounds(space)
    if (low == 0).all() and (width == 1).all():
        return None
    return ByteScale(low, width)


def _byte_bounds(space: gymnasium.Space) -> tuple[NDArray, NDArray]:
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
        parts = list(space.spaces.values() if isinstance(space, gymnasium.spaces.Dict) else space.spaces)
        lows, widths = zip(*((a.ravel(), b.ravel()) for a, b in map(_byte_bounds, parts)), strict=True)
        return np.concatenate(lows), np.concatenate(widths)
    if isinstance(space, gymnasium.spaces.Box) and space.dtype == np.uint8:
        low = space.low.astype(np.float32)
        return low, np.maximum(space.high - low, 1)  # an entry that is always the same becomes 0
    return np.zeros(flatdim(space), np.float32), np.ones(flatdim(space), np.float32)
