"""Normalisation of observations."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_NORMALISED = 10.0
"""Bound to which normalised observations are clipped, as in OpenAI's Baselines and Stable-Baselines3: an entry that
hardly moved while it was measured must not dominate the others later."""


@dataclass(frozen=True)
class ObservationScale:
    """Normalisation of observations, measured once and then fixed: (x - mean) / std, clipped to +-10."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(map(math.isfinite, self.mean)):
            raise ValueError("observation_scale must have as many finite means as standard deviations")
        if not all(0.0 < std < float("inf") for std in self.std):
            raise ValueError("observation_scale must have positive and finite standard deviations")

    def __call__(self, observations: Tensor) -> Tensor:
        """[..., O] of any type to [..., O] float32."""
        return normalised(observations, *self.tensors)

    @functools.cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, [O] float64 each."""
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)


def normalised(observations: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Observations [..., O] of any type, normalised by numbers [O] in double precision and clipped: float32."""
    # in double precision: a small change on top of a large number is lost in single
    scaled = (observations.double() - mean) / std
    # inf - inf is nan: an observation that is not finite must not pass for a large number
    return (scaled.clamp(-MAX_NORMALISED, MAX_NORMALISED) + (scaled - scaled)).float()


def see(observations: Tensor, scale: ObservationScale | None) -> Tensor:
    """The environment's observations [..., O], on the CPU, as an actor takes them: float32."""
    return observations.float() if scale is None else scale(observations)
