"""Diagonal Gaussians over continuous actions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maml_rl.core.trees import Params


@dataclass(frozen=True)
class Gaussian:
    """A independent actions, whose log standard deviation does not depend on the state.

    Outputs [..., 2A]: mean and log standard deviation, the latter before it is bounded from below; actions [..., A],
    unclipped.
    """

    num_actions: int
    init_std: float  # in units of the action bound
    min_std: float  # the standard deviation never falls below it

    @property
    def network_width(self) -> int:
        return self.num_actions

    @property
    def action_width(self) -> int:
        return self.num_actions

    @property
    def noise_size(self) -> int:
        return self.num_actions

    @property
    def own_params(self) -> str:
        return "log_std"

    def init_params(self) -> Params:
        return {"log_std": torch.full((self.num_actions,), math.log(self.init_std))}

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, the latter at least the bound: [..., 2A] to [..., A] twice."""
        mean, log_std = outputs.chunk(2, dim=-1)
        return mean, log_std.clamp(min=math.log(self.min_std))

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        return rng.standard_normal((num_steps, self.noise_size), dtype=np.float32)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self.split(outputs)
        return mean + log_std.exp() * noise

    def mean_action(self, outputs: Tensor) -> Tensor:
        return self.split(outputs)[0]

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = self.split(outputs)
        scaled = (actions - mean) * (-log_std).exp()
        # sum, not mean: the densities of independent actions multiply
        return -0.5 * (scaled.square() + 2.0 * log_std + math.log(2.0 * math.pi)).sum(dim=-1)

    def kl(self, old_outputs: Tensor, outputs: Tensor) -> Tensor:
        """KL(old || new), summed over actions: [..., 2A], [..., 2A] to [...]."""
        old_mean, old_log_std = self.split(old_outputs)
        mean, log_std = self.split(outputs)
        precision = (-2.0 * log_std).exp()
        squares = ((2.0 * old_log_std).exp() + (old_mean - mean).square()) * precision
        return (log_std - old_log_std + 0.5 * (squares - 1.0)).sum(dim=-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        log_std = self.split(outputs)[1]
        return (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(dim=-1)

    def within_reach(self, outputs: Tensor) -> Tensor:
        """Means at most one standard deviation beyond the bounds, +-1: further out they are clipped nearly always."""
        mean, log_std = self.split(outputs)
        reach = 1.0 + log_std.exp()
        return torch.cat([torch.maximum(torch.minimum(mean, reach), -reach), log_std], dim=-1)
