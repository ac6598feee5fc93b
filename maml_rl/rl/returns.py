"""Discounted returns and generalised advantages, over whole stacks of episodes."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE_OFFSET = 100.0
"""Mean of the rewards, in standard deviations, above which it hides their differences: a baseline of smooth features
misses more of the mean's sum over the remaining steps than the rewards vary, and float32 rounds them away."""


def without_offset(rewards: Tensor, mask: Tensor) -> Tensor:
    """The rewards of one task minus their mean, if that is large beside their spread and no episode ends early.

    The mean contributes the same to the returns of all episodes at the same step, so it is a baseline that depends on
    time only, and no gradient is biased. Where episodes can end early, a longer life earns the offset: it stays.

    Args:
        rewards, mask: [E, T].
    """
    if not bool(mask.all()):
        return rewards
    mean = rewards.mean()
    centred = rewards - mean
    return centred if mean.abs() > LARGE_OFFSET * centred.square().mean().sqrt() else rewards


def discounted_returns(rewards: Tensor, discount: float) -> Tensor:
    """G[t] = rewards[t] + discount * G[t + 1] along the last axis: [..., T] to [..., T].

    Rewards after an episode's end must be zero.
    """
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")
    returns = rewards.movedim(-1, 0).numpy().copy()  # a few numbers at a time take numpy a fifth as long as torch
    for t in range(len(returns) - 2, -1, -1):
        returns[t] += discount * returns[t + 1]
    return torch.from_numpy(returns).movedim(0, -1).contiguous()


def gae(rewards: Tensor, values: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates along the last axis.

        delta[t] = rewards[t] + discount * values[t + 1] - values[t]
        A[t]     = delta[t] + discount * gae_lambda * A[t + 1],   A[T] = 0

    Args:
        rewards: [..., T] received on leaving step t; zero after the end.
        values: [..., T + 1]; zero from an episode's end on, be it the environment's or the clock's: the published
            practice with finite horizons, consistent because the baseline knows the time.
        gae_lambda: in [0, 1]; 0 gives one-step errors, 1 gives returns minus values.
    Returns:
        [..., T] advantages, in units of reward.
    Raises:
        ValueError: if the axes do not fit, or a setting lies outside [0, 1].
    Source: Schulman et al. 2016, section 3 (arXiv:1506.02438).
    """
    if values.shape[:-1] != rewards.shape[:-1] or values.shape[-1] != rewards.shape[-1] + 1:
        raise ValueError(f"values must have one step more than rewards, got {values.shape} and {rewards.shape}")
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")
    if not 0.0 <= gae_lambda <= 1.0:
        raise ValueError(f"gae_lambda must lie in [0, 1], got {gae_lambda}")
    deltas = rewards + discount * values[..., 1:] - values[..., :-1]
    return discounted_returns(deltas, discount * gae_lambda)


def standardise(values: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """(x - mean) / (std + epsilon) over the unmasked entries of one task; masked entries become zero.

    Args:
        values, mask: [E, T]; at least one entry must be unmasked.
    """
    count = mask.sum()
    mean = (values * mask).sum() / count
    centred = (values - mean) * mask
    return centred / ((centred.square().sum() / count).sqrt() + epsilon)
