"""The Reptile outer step: move towards the adapted parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.step import Moved
from maml_rl.core.trees import Params, flatten, unflatten


@dataclass(frozen=True)
class ReptileConfig:
    """Reptile (Nichol, Achiam and Schulman 2018, Algorithm 2: the batched version)."""

    step_size: float = 0.1  # Epsilon: share of the way from theta to the mean of the adapted parameters
    decay_steps: int = 0  # Outer steps in which it falls linearly to zero; 0 for never.

    def __post_init__(self) -> None:
        if not 0.0 < self.step_size < float("inf"):
            raise ValueError(f"reptile.step_size must be positive and finite, got {self.step_size}")
        if self.decay_steps < 0:
            raise ValueError(f"reptile.decay_steps must be at least 1, or 0 for never, got {self.decay_steps}")

    def size_after(self, num_steps: int) -> float:
        """The step size after `num_steps` steps; the last step is the smallest."""
        if self.decay_steps == 0:
            return self.step_size
        return self.step_size * max(1.0 / self.decay_steps, 1.0 - num_steps / self.decay_steps)


@dataclass(frozen=True)
class Reptile:
    """The step theta + epsilon * mean_i(theta'_i - theta)."""

    config: ReptileConfig
    name = "reptile"
    wants_adapted = True
    learns_step_sizes = False

    def init(self, params: Params) -> tuple[()]:
        return ()

    def step(
        self, objective: MetaObjective | None, params: Params, adapted: Params, state: tuple[()], iteration: int
    ) -> Moved[tuple[()]]:
        """Take the step; `objective` is not used."""
        rows = torch.cat([p.reshape(p.shape[0], -1) for p in adapted.values()], dim=1)
        vector = reptile_step(flatten(params), rows, self.config.size_after(iteration))
        return Moved(unflatten(vector, params), (), {})


def reptile_step(theta: Tensor, adapted: Tensor, step_size: float) -> Tensor:
    """Compute theta + epsilon * mean_i(theta'_i - theta).

    Args:
        theta: [P].
        adapted: [N, P], after two or more inner steps; after one it is plain joint training (their section 5.1).
        step_size: epsilon.
    """
    return theta + step_size * (adapted - theta).mean(dim=0)
