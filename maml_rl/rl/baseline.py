"""The linear-feature baseline of Duan et al. 2016, fitted for each task on the batch that it then predicts."""

from __future__ import annotations

import torch
from torch import Tensor

OBSERVATION_BOUND = 10.0
"""Observations are clipped to +- this before they become features."""


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
    inputs = features(observations) * weights.unsqueeze(-1)
    gram, target = inputs.T @ inputs, inputs.T @ (returns.double().flatten() * weights)
    coefficients = torch.zeros_like(target)
    for attempt in range(5):
        damped = gram + ridge * 10.0**attempt * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solved, info = torch.linalg.solve_ex(damped, target)
        if info == 0 and torch.isfinite(solved).all():
            coefficients = solved
            break
    return (inputs @ coefficients).view_as(returns).to(returns.dtype)
