"""Gaussians of independent numbers: draws, densities and divergences."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


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
