"""The gradient outer step: Adam on the meta-gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class GradientConfig:
    """Adam (Kingma and Ba 2015); the step size is that of Finn et al. 2017 in supervised learning."""

    learning_rate: float = 1e-3  # Learning rate of Adam.
    beta1: float = 0.9  # Decay of the mean gradient.
    beta2: float = 0.999  # Decay of the mean squared gradient.
    epsilon: float = 1e-8  # Number that keeps the division finite.
    decay: Literal["none", "halve", "cosine"] = "none"
    """Decay of the learning rate. halve: to one half after every decay_steps. cosine: to zero after decay_steps."""
    decay_steps: int = 2000  # Outer steps of one decay.

    def __post_init__(self) -> None:
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"gradient.learning_rate must be positive and finite, got {self.learning_rate}")
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"gradient.{name} must lie in [0, 1), got {beta}")
        if not self.epsilon > 0.0:
            raise ValueError(f"gradient.epsilon must be positive, got {self.epsilon}")
        if self.decay_steps < 1:
            raise ValueError(f"gradient.decay_steps must be at least 1, got {self.decay_steps}")

    def rate_after(self, num_steps: int) -> float:
        """The learning rate once that many steps have been taken."""
        if self.decay == "halve":
            return self.learning_rate * 0.5 ** (num_steps // self.decay_steps)
        if self.decay == "cosine":
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, num_steps / self.decay_steps)))
        return self.learning_rate


class Moments(NamedTuple):
    """Adam's memory."""

    first: Tensor  # [P]
    second: Tensor  # [P]
    num_steps: Tensor  # [], taken so far


def init_moments(theta: Tensor) -> Moments:
    return Moments(torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros((), dtype=torch.int64))


def gradient_step(theta: Tensor, gradient: Tensor, moments: Moments, config: GradientConfig) -> tuple[Tensor, Moments]:
    """One step of Adam (Kingma and Ba 2015, Algorithm 1) on a vector [P]."""
    num_steps = moments.num_steps + 1
    first = config.beta1 * moments.first + (1.0 - config.beta1) * gradient
    second = config.beta2 * moments.second + (1.0 - config.beta2) * gradient.square()
    first_unbiased = first / (1.0 - config.beta1 ** num_steps.item())
    second_unbiased = second / (1.0 - config.beta2 ** num_steps.item())
    step = config.rate_after(int(moments.num_steps.item())) * first_unbiased / (second_unbiased.sqrt() + config.epsilon)
    return theta - step, Moments(first, second, num_steps)
