"""The contract of action distributions, and one that acts by their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from maml_rl.core.trees import Params


class Distribution(Protocol):
    """A family of distributions over actions, with the outputs [..., width] of a network as its parameters. A value
    that can be pickled."""

    @property
    def network_width(self) -> int:
        """Numbers that the network gives for one action."""

    @property
    def action_width(self) -> int:
        """Numbers in a stored action."""

    @property
    def noise_size(self) -> int:
        """Random numbers needed for one action."""

    @property
    def own_params(self) -> str | None:
        """The name of a parameter that stands behind the network's numbers in the outputs, if there is one."""

    def init_params(self) -> Params:
        """That parameter, by its name; empty if there is none."""

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """[T, noise_size] float32."""

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor: ...
    def mean_action(self, outputs: Tensor) -> Tensor:
        """The mean, or the most probable action."""

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor: ...
    def kl(self, old_outputs: Tensor, outputs: Tensor) -> Tensor:
        """KL(old || new): [..., width] twice to [...]."""

    def entropy(self, outputs: Tensor) -> Tensor: ...
    def within_reach(self, outputs: Tensor) -> Tensor:
        """Outputs that say as little as possible about actions that an environment would clip: [..., width] twice."""


class ActionSource(Protocol):
    """The part of a distribution that a rollout needs."""

    @property
    def action_width(self) -> int: ...
    @property
    def noise_size(self) -> int: ...
    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray: ...
    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class MeanActions:
    """A distribution that acts by its mean or most probable action, and leaves the noise unused."""

    distribution: Distribution

    @property
    def action_width(self) -> int:
        return self.distribution.action_width

    @property
    def noise_size(self) -> int:
        return self.distribution.noise_size

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        return self.distribution.draw_noise(rng, num_steps)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return self.distribution.mean_action(outputs)
