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


def adam_step(theta: Tensor, gradient: Tensor, moments: Moments, config: AdamConfig) -> tuple[Tensor, Moments]:
    """Take one step on a vector [P], at the rate that the schedule gives."""
    num_steps = int(moments.num_steps.item())
    first = config.beta1 * moments.first + (1.0 - config.beta1) * gradient
    second = mean_square(moments.second, gradient, config.beta2)
    first_unbiased = first / (1.0 - config.beta1 ** (num_steps + 1))
    root = root_mean_square(second, num_steps + 1, config.beta2, config.epsilon)
    step = config.rate_after(num_steps) * first_unbiased / root
    return theta - step, Moments(first, second, moments.num_steps + 1)


def adam_step_over_threads(
    theta: Tensor, gradient: Tensor, moments: Moments, config: AdamConfig, threads: Threads
) -> tuple[Tensor, Moments]:
    """Call `adam_step` on pieces spread over threads; every entry moves by itself, so the bits are the same."""
    columns = (each.split(PIECE) for each in (theta, gradient, moments.first, moments.second))

    def of_piece(theta: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Moments]:
        return adam_step(theta, gradient, Moments(first, second, moments.num_steps), config)

    vectors, moved = zip(*threads.map(of_piece, *columns), strict=True)
    first, second = (torch.cat([each[part] for each in moved]) for part in (0, 1))
    return torch.cat(vectors), Moments(first, second, moments.num_steps + 1)


PIECE = 100_000  # entries of a vector that one thread moves at once


def mean_square(second: Tensor, gradient: Tensor, beta2: float) -> Tensor:
    """The running mean of squared gradients, updated by one more gradient."""
    return beta2 * second + (1.0 - beta2) * gradient.square()


def root_mean_square(second: Tensor, num_steps: int, beta2: float, epsilon: float) -> Tensor:
    """The divisor of a step: the root of the unbiased mean square of `num_steps` gradients, plus epsilon."""
    return (second / (1.0 - beta2**num_steps)).sqrt() + epsilon


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
