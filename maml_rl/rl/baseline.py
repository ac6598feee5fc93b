"""The linear-feature baseline of Duan et al. 2016, fitted for each task on the batch that it then predicts."""

from __future__ import annotations

import torch
from torch import Tensor

OBSERVATION_BOUND = 10.0
"""Bound to which observations are clipped before they become features."""

BLOCK = 512
"""The most numbers of an observation that are turned into features at once."""


def features(observations: Tensor) -> Tensor:
    """[o, o^2, t/100, (t/100)^2, (t/100)^3, 1] with o clipped: [E, T, O] to [E * T, 2 O + 4], double precision.

    Source: Duan et al. 2016, section 5 (arXiv:1604.06778).
    """
    num_episodes, horizon, _ = observations.shape
    clipped = observations.double().clamp(-OBSERVATION_BOUND, OBSERVATION_BOUND)
    time = (torch.arange(horizon, dtype=torch.float64, device=observations.device) / 100.0).view(1, -1, 1)
    time = time.expand(num_episodes, -1, -1)
    columns = [clipped, clipped.square(), time, time.square(), time**3, torch.ones_like(time)]
    return torch.cat(columns, dim=-1).flatten(0, 1)


def num_features(observation_size: int) -> int:
    return 2 * observation_size + 4


def working_bytes(num_steps: int, num_features: int) -> int:
    """The least memory that a fit to `num_steps` steps takes: the matrix of the smaller system, and a copy of it with
    the multiple of the identity added. [bytes]"""
    return 2 * 8 * min(num_steps, num_features) ** 2


def fitted_values(observations: Tensor, returns: Tensor, mask: Tensor, ridge: float) -> Tensor:
    """Least-squares prediction of the returns from the features, over unmasked steps.

    Args:
        observations: [E, T, O] of one task.
        returns, mask: [E, T].
        ridge: on the diagonal of the normal equations; ten times more, at most ten thousand times, while they stay
            singular; if even that does not help, the values are zero.
    Returns:
        [E, T] values in units of reward, zero where masked.
    """
    weights = mask.double().flatten()
    target = returns.double().flatten() * weights
    if len(target) < num_features(observations.shape[-1]):
        # X (X'X + r I)^-1 X'y = X X' (X X' + r I)^-1 y: with fewer steps than features the smaller system
        gram = gram_of_steps(observations, weights, BLOCK)
        return (gram @ _solved(gram, target, ridge)).view_as(returns).to(returns.dtype)
    inputs = features(observations) * weights.unsqueeze(-1)
    coefficients = _solved(inputs.T @ inputs, inputs.T @ target, ridge)
    return (inputs @ coefficients).view_as(returns).to(returns.dtype)


def gram_of_steps(observations: Tensor, weights: Tensor, block: int) -> Tensor:
    """X X' of the weighted features X, [E * T, E * T], without ever holding all of X: only `block` numbers of an
    observation are turned into features at once."""
    shape = (*observations.shape[:2], 0)
    time = features(observations.new_empty(shape)) * weights.unsqueeze(-1)
    gram = time @ time.T
    for part in observations.split(block, dim=-1):
        columns = features(part)[:, : 2 * part.shape[-1]] * weights.unsqueeze(-1)
        gram.addmm_(columns, columns.T)
    return gram


def _solved(gram: Tensor, target: Tensor, ridge: float) -> Tensor:
    for attempt in range(5):
        damped = gram + ridge * 10.0**attempt * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solved, info = torch.linalg.solve_ex(damped, target)
        if info == 0 and torch.isfinite(solved).all():
            return solved
    return torch.zeros_like(target)
