"""Gaussians of independent numbers: draws, densities and divergences."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.trees import Params, num_tasks


class Gaussian(NamedTuple):
    """A distribution over vectors [..., D] whose entries are independent."""

    mean: Tensor  # [..., D]
    log_variance: Tensor  # [..., D]

    def draw(self, noise: Tensor) -> Tensor:
        """mean + standard deviation * noise, where noise [..., D] is standard normal."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def log_density(self, at: Tensor) -> Tensor:
        """log p(at), [...], for at [..., D]."""
        squares = (at - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squares + self.log_variance + math.log(2.0 * math.pi)).sum(dim=-1)


def standard(like: Tensor) -> Gaussian:
    """The standard normal distribution over vectors of the shape of `like`."""
    return Gaussian(torch.zeros_like(like), torch.zeros_like(like))


def kl(one: Gaussian, other: Gaussian) -> Tensor:
    """KL(one || other), [...]: E[log one(x) - log other(x)] for x drawn from `one`.

    Source: Kingma and Welling 2014, appendix B (arXiv:1312.6114), for any two means and variances.
    """
    difference = one.log_variance - other.log_variance
    squares = (one.mean - other.mean).square() * (-other.log_variance).exp()
    return 0.5 * (difference.exp() + squares - 1.0 - difference).sum(dim=-1)


class Divergence(NamedTuple):
    """KL(one || other) of trees of numbers for each of n tasks, and its derivatives, all but the first summed over the
    tasks."""

    values: Tensor  # [n]
    in_shift: Params  # [n, ...]: in one's mean minus other's
    in_one: Params  # in one's log-variance
    in_other: Params  # in other's


def divergence(shift: Params, one_log_variance: Params, other_log_variance: Params) -> Divergence:
    """`kl` where one's mean lies `shift` [n, ...] from other's, for log-variances [...] that the tasks share.

    The derivatives are written out: automatic differentiation passes three times as often over the tasks' numbers.
    """
    count, values = num_tasks(shift), []
    in_shift, in_one, in_other = {}, {}, {}
    for name, one in one_log_variance.items():
        far, other = shift[name], other_log_variance[name]
        ratio = (one - other).exp()
        in_shift[name] = far * (-other).exp()
        squares = in_shift[name] * far
        in_one[name] = 0.5 * count * (ratio - 1.0)
        in_other[name] = -0.5 * squares.sum(dim=0) - in_one[name]
        values.append(0.5 * (squares.sum(dim=tuple(range(1, far.dim()))) + (ratio - 1.0 - (one - other)).sum()))
    return Divergence(torch.stack(values).sum(dim=0), in_shift, in_one, in_other)
