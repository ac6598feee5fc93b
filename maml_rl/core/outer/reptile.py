"""The Reptile outer step: move towards the adapted parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ReptileConfig:
    """Reptile (Nichol, Achiam and Schulman 2018, Algorithm 2: the batched version)."""

    step_size: float = 0.1  # Epsilon: share of the way from theta to the mean of the adapted parameters
    decay_steps: int = 0  # Outer steps in which it falls to zero, linearly; 0 for never.

    def __post_init__(self) -> None:
        if not 0.0 < self.step_size < float("inf"):
            raise ValueError(f"reptile.step_size must be positive and finite, got {self.step_size}")
        if self.decay_steps < 0:
            raise ValueError(f"reptile.decay_steps must be at least 1, or 0 for never, got {self.decay_steps}")

    def annealed(self, num_steps: int) -> ReptileConfig:
        """With the step size that is left once so many steps have been taken; the last one is of the least size."""
        if self.decay_steps == 0:
            return self
        left = max(1.0 / self.decay_steps, 1.0 - num_steps / self.decay_steps)
        return ReptileConfig(self.step_size * left)


def reptile_step(theta: Tensor, adapted: Tensor, config: ReptileConfig) -> Tensor:
    """theta + epsilon * mean_i(theta'_i - theta).

    Args:
        theta: [P].
        adapted: [N, P], after two or more inner steps; after one it is plain joint training (their section 5.1).
    """
    return theta + config.step_size * (adapted - theta).mean(dim=0)
