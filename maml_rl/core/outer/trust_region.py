"""The trust-region outer step: natural gradient by conjugate gradients, then a backtracking line search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.step import Moved
from maml_rl.core.trees import Params, flatten, unflatten

MAX_CANDIDATES = 1000
"""The most products with the Fisher matrix, and the most candidates of the line search: each takes about as long as a
gradient, and in single precision a candidate that is nearer still changes nothing."""


@dataclass(frozen=True)
class TrustRegionConfig:
    """TRPO (Schulman et al. 2015, section 6 and appendix C) with the constants of Finn et al. 2017."""

    max_kl: float = 0.01  # Bound on the mean KL(old || new) of the adapted policies [nats].
    cg_iterations: int = 10  # Products with the Fisher matrix for one step.
    damping: float = 1e-5  # Number added to the diagonal of the Fisher matrix.
    # Share of each task's episodes or examples that the Fisher matrix rests on; below 1 it is faster.
    fisher_share: float = 1.0
    backtrack_ratio: float = 0.8  # Length of each candidate's step as a share of the one before.
    max_backtracks: int = 15  # Line-search candidates that are tried.

    def __post_init__(self) -> None:
        if not 0.0 < self.max_kl < float("inf"):
            raise ValueError(f"trust_region.max_kl must be positive and finite, got {self.max_kl}")
        if self.cg_iterations < 1:
            raise ValueError(f"trust_region.cg_iterations must be at least 1, got {self.cg_iterations}")
        if self.cg_iterations > MAX_CANDIDATES:
            raise ValueError(f"trust_region.cg_iterations must be at most {MAX_CANDIDATES}, got {self.cg_iterations}")
        if not 0.0 <= self.damping < float("inf"):
            raise ValueError(f"trust_region.damping must be at least 0 and finite, got {self.damping}")
        if not 0.0 < self.fisher_share <= 1.0:
            raise ValueError(f"trust_region.fisher_share must lie in (0, 1], got {self.fisher_share}")
        if not 0.0 < self.backtrack_ratio < 1.0:
            raise ValueError(f"trust_region.backtrack_ratio must lie in (0, 1), got {self.backtrack_ratio}")
        if self.max_backtracks < 1:
            raise ValueError(f"trust_region.max_backtracks must be at least 1, got {self.max_backtracks}")
        if self.max_backtracks > MAX_CANDIDATES:
            raise ValueError(f"trust_region.max_backtracks must be at most {MAX_CANDIDATES}, got {self.max_backtracks}")


@dataclass(frozen=True)
class TrustRegion:
    """TRPO on the meta-loss: natural gradient through the inner steps, within a bound on the adapted policies' KL."""

    config: TrustRegionConfig
    name = "trust_region"
    wants_adapted = False
    learns_step_sizes = False

    def init(self, params: Params) -> tuple[()]:
        return ()

    def step(
        self, objective: MetaObjective, params: Params, adapted: Params, state: tuple[()], iteration: int
    ) -> Moved[tuple[()]]:
        at = objective.linearize(params, self.config.fisher_share)
        found = trust_region_step(
            flatten(params),
            at.loss,
            at.gradient,
            at.fisher_product,
            lambda candidate: objective.evaluate(unflatten(candidate, params)),
            self.config,
        )
        metrics = {
            "surrogate_loss_before": at.loss,
            "surrogate_loss_after": found.loss,
            "kl": found.divergence,
            "accepted": float(found.accepted),
            "line_search_steps": float(found.num_candidates),
            "cg_residual": found.cg_residual,
            "gradient_norm": at.gradient_norm,
        }
        return Moved(unflatten(found.theta, params), (), metrics)


class ConjugateGradient(NamedTuple):
    solution: Tensor  # [P]
    residual: float  # |b - A x| / |b|
    curvature: float  # x' A x


class TrustRegionStep(NamedTuple):
    theta: Tensor  # [P]; the same tensor that was passed in if no candidate was accepted
    accepted: bool
    loss: float  # at the theta returned
    divergence: float
    num_candidates: int
    cg_residual: float


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, num_iterations: int, tolerance: float
) -> ConjugateGradient:
    """Solve A x = b for a symmetric positive definite A, given as a function that multiplies by A.

    Args:
        product: v -> A v, both [P].
        target: b [P].
        tolerance: stop once |b - A x| <= tolerance * |b|.
    Source: Hestenes and Stiefel 1952.
    """
    solution, residual = torch.zeros_like(target), target
    direction, squared = residual, residual.dot(residual)
    start = squared
    for _ in range(num_iterations):
        if squared <= tolerance**2 * start:
            break
        image = product(direction)
        curvature = direction.dot(image)
        if not curvature > 0:  # flat or, by rounding, negative: nothing to gain in this direction
            break
        length = squared / curvature
        solution = solution + length * direction
        residual = residual - length * image
        previous, squared = squared, residual.dot(residual)
        direction = residual + (squared / previous) * direction
    relative = (squared / start).sqrt().item() if start != 0 else 0.0
    return ConjugateGradient(solution, relative, solution.dot(target - residual).item())


def trust_region_step(
    theta: Tensor,
    loss: float,
    gradient: Tensor,
    fisher_product: Callable[[Tensor], Tensor],
    evaluate: Callable[[Tensor], tuple[float, float]],
    config: TrustRegionConfig,
) -> TrustRegionStep:
    """Move theta as far downhill as the bound on the divergence allows.

    Args:
        theta: [P].
        loss, gradient: of the objective at theta.
        fisher_product: v -> F v; the damping is added here.
        evaluate: candidate [P] -> (loss, divergence from theta); it adapts anew from the candidate.
    Returns:
        the first candidate theta - ratio^n * full step with a lower loss and a divergence within max_kl; else
        theta itself.
    Source: Schulman et al. 2015, appendix C (arXiv:1502.05477).
    """
    solved = conjugate_gradient(
        lambda v: fisher_product(v) + config.damping * v, gradient, config.cg_iterations, tolerance=1e-10
    )
    unchanged = TrustRegionStep(theta, False, loss, 0.0, 0, solved.residual)
    if not solved.curvature > 0:
        return unchanged
    full_step = (2.0 * config.max_kl / solved.curvature) ** 0.5 * solved.solution
    for backtracks in range(config.max_backtracks):
        candidate = theta - config.backtrack_ratio**backtracks * full_step
        new_loss, divergence = evaluate(candidate)
        if new_loss < loss and divergence <= config.max_kl:
            return TrustRegionStep(candidate, True, new_loss, divergence, backtracks + 1, solved.residual)
    return unchanged._replace(num_candidates=config.max_backtracks)
