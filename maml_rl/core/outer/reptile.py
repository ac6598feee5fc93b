"""The Reptile outer step: move towards the adapted parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ReptileConfig:
    """Reptile (Nichol, Achiam and Schulman 2018, Algorithm 2: the batched version)."""

    step_size: float = 0.1  # epsilon: share of the way from theta to the mean of the adapted parameters

    def __post_init__(self) -> None:
        if not 0.0 < self.step_size < float("inf"):
            raise ValueError(f"reptile.step_size must be positive and finite, got {self.step_size}")


def reptile_step(theta: Tensor, adapted: Tensor, config: ReptileConfig) -> Tensor:
    """theta + epsilon * mean_i(theta'_i - theta).

    Args:
        theta: [P].
        adapted: [N, P], after two or more inner steps; after one it is plain joint training (their section 5.1).
    """
    return theta + config.step_size * (adapted - theta).mean(dim=0)
