"""Means over tasks and how far they can be trusted."""

from __future__ import annotations

from torch import Tensor


def spread(name: str, scores: Tensor) -> dict[str, float]:
    """Mean over everything; standard deviation and, of more than one task, 95 % interval over the tasks' means.

    Args:
        scores: [task, sample].
    """
    means = scores.double().mean(dim=1)
    spread = {name: means.mean().item(), f"{name}_std": means.std(correction=0).item()}
    if len(means) > 1:
        spread[f"{name}_ci95"] = 1.96 * means.std(correction=1).item() / len(means) ** 0.5
    return spread
