"""Policy-gradient losses of one task: the inner ones, whose second derivative matters, and the outer surrogate.

All are means over the steps that were taken, so that a task's step size does not depend on how much data it has.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def log_prob_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-mean(log pi * A). Its second derivative lacks the effect of the parameters on which data are seen.

    Args:
        log_probs, advantages, mask: [E, T].
    Source: Finn et al. 2017, equation 4 and Algorithm 3, as their code has it.
    """
    return -masked_mean(log_probs * advantages, mask)


def ratio_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-mean(pi / stop(pi) * A): the low-variance curvature estimator, exact to second order at H = 1.

    Source: Rothfuss et al. 2019, equation 13 (arXiv:1810.06784).
    """
    return -masked_mean((log_probs - log_probs.detach()).exp() * advantages, mask)


def dice_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-mean((magic(<= t) - magic(< t)) * A[t]), magic(x) = exp(x - stop(x)) of the sum of log pi up to, or before, t.

    DiCE credits reward by reward, sum_t magic(<= t) * r[t]. Summation by parts turns that into
    G[0] + sum_t (magic(<= t) - magic(< t)) * G[t] with the summed later rewards G[t] = r[t] + G[t + 1]; the constant
    G[0] has no derivative and is left out, so the loss's value is 0. G may be replaced by the advantage G - b[t], b of
    the state and the time, without bias in any order of derivative. Exact for advantages in units of the episode's
    beginning; those discounted to step t leave out the factor discount^t, as is usual.
    Source: Foerster et al. 2018, equation 5 (arXiv:1802.05098); the baseline: Mao et al. 2019 (arXiv:1905.10943).
    """
    masked = log_probs * mask
    up_to_now = masked.cumsum(dim=-1)
    before = up_to_now - masked
    weight = (up_to_now - up_to_now.detach()).exp() - (before - before.detach()).exp()
    return -masked_mean(weight * advantages, mask)


def surrogate_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-mean(pi / pi_old * A): the loss that the trust region minimises.

    Args:
        old_log_probs: [E, T] of the policy that collected the data, a constant.
    Source: Schulman et al. 2015, equation 14 (arXiv:1502.05477).
    """
    return -masked_mean((log_probs - old_log_probs).exp() * advantages, mask)


def clipped_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """-mean(min(r * A, clip(r, 1 - clip, 1 + clip) * A)), r = pi / pi_old.

    Source: Schulman et al. 2017, equation 7 (arXiv:1707.06347).
    """
    ratio = (log_probs - old_log_probs).exp()
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, bounded * advantages), mask)


def clipped_share(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, clip: float) -> Tensor:
    """The share of steps with |pi / pi_old - 1| > clip."""
    return masked_mean((((log_probs - old_log_probs).exp() - 1.0).abs() > clip).to(mask.dtype), mask)


INNER_LOSSES = {"ratio": ratio_loss, "log_prob": log_prob_loss, "dice": dice_loss}
"""The losses that know no policy but their own. `surrogate_loss` is the fourth: stored_ratio."""
