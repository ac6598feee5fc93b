"""Adam (Kingma and Ba 2015, Algorithm 1), as a function of values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params, as_leaves, flatten, unflatten


@dataclass(frozen=True)
class AdamConfig:
    """Adam (Kingma and Ba 2015); the learning rate is that of Finn et al. 2017 in supervised learning."""

    learning_rate: float = 1e-3  # Learning rate of Adam.
    beta1: float = 0.9  # Decay of the mean gradient.
    beta2: float = 0.999  # Decay of the mean squared gradient.
    epsilon: float = 1e-8  # Number added to the divisor to keep the division finite.
    decay: Literal["none", "halve", "cosine"] = "none"
    """Decay of the learning rate. halve: to one half after every decay_steps. cosine: to zero after decay_steps."""
    decay_steps: int = 2000  # Outer steps of one decay.

    def __post_init__(self) -> None:
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {beta}")
        if not self.epsilon > 0.0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon}")
        if self.decay_steps < 1:
            raise ValueError(f"decay_steps must be at least 1, got {self.decay_steps}")

    def rate_after(self, num_steps: int) -> float:
        """The learning rate after `num_steps` steps."""
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


def adam_step(
    theta: Tensor, gradient: Tensor, moments: Moments, config: AdamConfig, threads: Threads | None = None
) -> tuple[Tensor, Moments]:
    """Take one step on a vector [P], at the rate that the schedule gives.

    Args:
        threads: to spread the vector over. Every entry moves by itself, so the bits are the same.
    """
    num_steps = int(moments.num_steps.item())
    rate, first_part = config.rate_after(num_steps), 1.0 - config.beta1 ** (num_steps + 1)
    arriving = moved, first, second = torch.empty_like(theta), torch.empty_like(theta), torch.empty_like(theta)

    def of_piece(*columns: Tensor) -> None:
        theta, gradient, old_first, old_second, moved, first, second = columns
        torch.mul(old_first, config.beta1, out=first).add_((1.0 - config.beta1) * gradient)
        mean_square(old_second, gradient, config.beta2, out=second)
        root = root_mean_square(second, num_steps + 1, config.beta2, config.epsilon)
        torch.sub(theta, (first / first_part).mul_(rate).div_(root), out=moved)

    size = PIECE if theta.device.type == "cpu" else max(1, theta.numel())
    columns = [each.split(size) for each in (theta, gradient, moments.first, moments.second, *arriving)]
    if threads is None:
        for piece in zip(*columns, strict=True):
            of_piece(*piece)
    else:
        threads.map(of_piece, *columns)
    return moved, Moments(first, second, moments.num_steps + 1)


PIECE = 50_000
"""Entries of a vector that are moved at once, so that what lies between the operations stays in the cache."""


def mean_square(second: Tensor, gradient: Tensor, beta2: float, out: Tensor | None = None) -> Tensor:
    """The running mean of squared gradients, updated by one more gradient."""
    return torch.mul(second, beta2, out=out).add_(gradient.square().mul_(1.0 - beta2))


def root_mean_square(second: Tensor, num_steps: int, beta2: float, epsilon: float) -> Tensor:
    """The divisor of a step: the root of the unbiased mean square of `num_steps` gradients, plus epsilon."""
    return (second / (1.0 - beta2**num_steps)).sqrt_().add_(epsilon)


class Descent(NamedTuple):
    """Parameters that Adam moves, with its memory."""

    params: Params
    adam: Moments


def begin_descent(params: Params) -> Descent:
    return Descent(params, init_moments(flatten(params)))


def descend(loss: Callable[[Params], Tensor], descent: Descent, config: AdamConfig) -> tuple[Descent, float]:
    """Take one step of Adam down a loss; also return the loss before it."""
    leaves = as_leaves(descent.params)
    value = loss(leaves)
    slopes = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True, allow_unused=True)
    gradient = flatten(dict(zip(leaves, slopes, strict=True)))
    vector, moments = adam_step(flatten(descent.params), gradient, descent.adam, config)
    return Descent(unflatten(vector, descent.params), moments), value.item()
