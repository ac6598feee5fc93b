"""The proximal outer step: several epochs of Adam on one iteration's data, near the policies that collected them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.contracts import Model, SampledModel
from maml_rl.core.lift import lift
from maml_rl.core.objective import MetaObjective
from maml_rl.core.outer.step import Moved
from maml_rl.core.output_map import LossAtOutputs
from maml_rl.core.path import Path
from maml_rl.core.trees import Params, flatten, unflatten

MAX_EPOCHS = 1000
"""The most epochs on one iteration's data: each takes as long as a gradient."""

TOLERANCE, FACTOR = 1.5, 2.0
"""The inner KL may lie within target / 1.5 .. 1.5 * target before its coefficient is halved or doubled (Schulman et al.
2017, section 4)."""


@dataclass(frozen=True)
class ProximalConfig:
    """ProMP (Rothfuss et al. 2019, Algorithm 1) with the constants of its published scripts."""

    epochs: int = 5  # Gradient steps on the data of one iteration.
    # Bound on the gain from the adapted policies' likelihood ratios: those outside 1 - clip .. 1 + clip earn no more.
    clip: float = 0.3
    inner_kl: tuple[float, ...] = (5e-4,)
    """Coefficient of the penalty on KL(old || new) of the policies before each inner step, on its support data; one for
    all inner steps, or one for each. 0 for none. [1 / nat]"""
    target_kl: float | None = None
    """Inner KL that the coefficient is adapted to after every iteration: halved below 1 / 1.5 of it, doubled above 1.5
    times it [nats]. By default the coefficient is fixed."""
    max_kl: float | None = None
    """Bound on the mean KL(old || new) of the adapted policies on the query data, above which no further epoch begins
    [nats]. By default there is none."""
    exploration: float = 0.0
    """Weight of E-MAML's term (Stadie et al. 2018), which credits the actions before adaptation with the rewards after
    it."""
    adam: AdamConfig = field(default_factory=AdamConfig)
    """Adam, whose memory lasts over the iterations; every epoch is a step of its schedule."""

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= MAX_EPOCHS:
            raise ValueError(f"proximal.epochs must lie in 1 .. {MAX_EPOCHS}, got {self.epochs}")
        if not 0.0 < self.clip < 1.0:
            raise ValueError(f"proximal.clip must lie in (0, 1), got {self.clip}")
        if not self.inner_kl or not all(0.0 <= each < float("inf") for each in self.inner_kl):
            raise ValueError(
                f"proximal.inner_kl must be one number or more, each at least 0 and finite, got {self.inner_kl}"
            )
        for name, bound in (("target_kl", self.target_kl), ("max_kl", self.max_kl)):
            if bound is not None and not 0.0 < bound < float("inf"):
                raise ValueError(f"proximal.{name} must be positive and finite, got {bound}")
        if self.target_kl is not None and not all(self.inner_kl):
            raise ValueError(
                f"proximal.inner_kl must be positive where target_kl adapts it, got {self.inner_kl}: "
                "leave target_kl out"
            )
        if not 0.0 <= self.exploration < float("inf"):
            raise ValueError(f"proximal.exploration must be at least 0 and finite, got {self.exploration}")


SMALLEST, LARGEST = 1e-8, 1e8
"""Limits of an adapted coefficient: beyond them it is as good as 0 or infinite, and would not come back in time."""


class ProximalState(NamedTuple):
    """The memory of the step. The names of its fields are also their names on disk."""

    adam: Moments
    inner_kl: Tensor  # [1] or [K] float64: coefficients of the inner KL


@dataclass(frozen=True)
class Proximal:
    """Descend mean_i [clipped surrogate of theta'_i] + mean_j eta_j * mean_i KL(pi_old || pi) on the support of step j.

    theta' is adapted anew in every epoch, so the inner loss should correct for the policy that collected the support
    (estimator stored_ratio). At H = 1 nothing is sampled: the surrogate is the loss itself, unclipped.
    Source: Rothfuss et al. 2019, Algorithm 1 (arXiv:1810.06784). The bound on the outer KL and E-MAML's term are
    additions.
    """

    config: ProximalConfig
    name = "proximal"
    wants_adapted = False
    learns_step_sizes = True

    def init(self, params: Params) -> ProximalState:
        return ProximalState(init_moments(flatten(params)), torch.tensor(self.config.inner_kl, dtype=torch.float64))

    def step(
        self, objective: MetaObjective, params: Params, adapted: Params, state: ProximalState, iteration: int
    ) -> Moved[ProximalState]:
        config, vector, moments = self.config, flatten(params), state.adam
        surrogate = Surrogate(objective, config, state.inner_kl.tolist())
        start = at = surrogate.linearize(params)
        epochs = 0
        while epochs < config.epochs and (config.max_kl is None or at.kl <= config.max_kl):
            vector, moments = adam_step(vector, at.gradient, moments, config.adam)
            epochs += 1
            if epochs < config.epochs:
                at = surrogate.linearize(unflatten(vector, params))
        found = surrogate.evaluate(unflatten(vector, params))
        coefficients = adapted_coefficients(state.inner_kl, found.inner_kls, config.target_kl)
        metrics = {
            "surrogate_loss_before": start.loss,
            "surrogate_loss_after": found.loss,
            "kl": found.kl,
            "kl_inner": found.inner_kls.mean().item() if len(found.inner_kls) else 0.0,
            "clip_fraction": found.clip_fraction,
            "epochs": float(epochs),
            "inner_kl_coefficient": state.inner_kl.mean().item(),
            "gradient_norm": start.gradient_norm,
        }
        return Moved(unflatten(vector, params), ProximalState(moments, coefficients), metrics)


def adapted_coefficients(coefficients: Tensor, kls: Tensor, target: float | None) -> Tensor:
    """The coefficients for the next iteration: halved where the KL is small beside the target, doubled where large.

    Args:
        coefficients: [1], for the mean KL, or [K].
        kls: [K], of each inner step.
        target: None for fixed ones.
    """
    if target is None or not len(kls):
        return coefficients
    found = kls if len(coefficients) > 1 else kls.mean().unsqueeze(0)
    factor = torch.ones_like(coefficients)
    factor[found < target / TOLERANCE] = 1.0 / FACTOR
    factor[found > target * TOLERANCE] = FACTOR
    return (coefficients * factor).clamp(SMALLEST, LARGEST)


class _Old(NamedTuple):
    """Outputs of the policies that collected a chunk's data."""

    query: Tensor
    supports: list[Tensor]


class Slope(NamedTuple):
    """The objective to first order at some parameters."""

    loss: float  # the surrogate without the further terms
    kl: float  # of the adapted policies, from those that collected the query
    gradient: Tensor  # [P] or [2 P], as `Linearization` has it
    gradient_norm: float  # of theta's part


class Scores(NamedTuple):
    """The objective's parts at some parameters."""

    loss: float  # the surrogate without the further terms
    kl: float  # of the adapted policies, from those that collected the query
    inner_kls: Tensor  # [K] float64: of the policies before each inner step, from those that collected its support
    clip_fraction: float  # share of the query's steps whose likelihood ratio lies outside the clip


class Surrogate:
    """The proximal objective of one iteration's data, around the parameters at which it is linearised first."""

    def __init__(self, objective: MetaObjective, config: ProximalConfig, coefficients: Sequence[float]):
        """coefficients: of the inner KL, one or one for each inner step."""
        self._objective, self._config, self._coefficients = objective, config, coefficients
        self._model: Model = objective.model
        self._old: list[_Old] = []
        self._rewards: list[Tensor | None] = [None] * len(objective.queries)
        if config.exploration:
            assert isinstance(self._model, SampledModel), "exploration needs rewards"
            self._rewards = list(self._model.relative_rewards(objective.queries))

    def linearize(self, params: Params) -> Slope:
        old: Sequence[_Old | None] = self._old or [None] * len(self._rewards)
        columns = self._objective.along_paths(self._slopes, params, old, self._rewards, with_hessian=True)
        losses, kls, gradients, step_size_gradients, self._old = map(list, zip(*columns, strict=True))
        gradient = self._objective.mean(gradients)
        norm = gradient.norm().item()
        if step_size_gradients[0] is not None:
            gradient = torch.cat([gradient, self._objective.mean(step_size_gradients)])
        return Slope(_mean(losses).item(), _mean(kls).item(), gradient, norm)

    def evaluate(self, params: Params) -> Scores:
        assert self._old, "linearize comes first: it sets the outputs that the divergences are measured from"
        columns = zip(*self._objective.along_paths(self._scores, params, self._old, with_hessian=False), strict=True)
        loss, kl, inner_kls, clipped = map(_mean, columns)
        return Scores(loss.item(), kl.item(), inner_kls.cpu(), clipped.item())

    def _slopes(
        self, path: Path, query: Any, supports: Sequence[Any], old: _Old | None, rewards: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, _Old]:
        """Losses and KLs of a chunk's tasks, the sums of their gradients, and the outputs measured from."""
        outer = LossAtOutputs(self._sampled_loss, path.outputs, query, to_second_order=False)
        further, kls = None, torch.zeros_like(outer.values)
        penalised = any(self._coefficients) and old is not None  # at first the KL is flat
        if rewards is not None or penalised or self._objective.before_weight:
            further = self._slopes_on_supports(path, supports, old, outer.values if rewards is None else rewards)
        if old is None:
            old = _Old(path.outputs, [step.outputs for step in path.steps])
        elif self._config.max_kl is not None:
            kls = lift(self._model.divergence)(old.query, path.outputs, query)
        return outer.values, kls, *path.gradients(outer.slope, further), old

    def _slopes_on_supports(
        self, path: Path, supports: Sequence[Any], old: _Old | None, rewards: Tensor
    ) -> list[Tensor]:
        """Slopes in the outputs on the supports of what the objective adds to the surrogate."""
        now = [step.outputs for step in path.steps]
        data = zip(now if old is None else old.supports, supports, strict=True)
        return [
            LossAtOutputs(self._support_loss(step), now[step], (*each, rewards), to_second_order=False).slope
            for step, each in enumerate(data)
        ]

    def _scores(self, path: Path, query: Any, supports: Sequence[Any], old: _Old) -> tuple[Tensor, ...]:
        """Losses, KLs [n], inner KLs [n, K] and clipped shares [n] of a chunk's tasks."""
        model, outputs = self._model, path.outputs
        with torch.no_grad():
            losses, divergence = lift(self._sampled_loss)(outputs, query), lift(model.divergence)
            pairs = zip(old.supports, path.steps, supports, strict=True)
            inner_kls = [divergence(before, step.outputs, support) for before, step, support in pairs]
            stacked = torch.stack(inner_kls, dim=1) if inner_kls else losses.new_zeros(len(losses), 0)
            return losses, divergence(old.query, outputs, query), stacked, self._clipped(outputs, query)

    def _sampled_loss(self, outputs: Tensor, query: Any) -> Tensor:
        if isinstance(self._model, SampledModel):
            return self._model.clipped_loss_at(outputs, query, self._config.clip)
        return self._model.outer_loss_at(outputs, query)

    def _clipped(self, outputs: Tensor, query: Any) -> Tensor:
        if not isinstance(self._model, SampledModel):
            return outputs.new_zeros(len(outputs))
        model, clip = self._model, self._config.clip
        return lift(lambda one, data: model.clipped_share(one, data, clip))(outputs, query)

    def _support_loss(self, step: int) -> Callable[[Tensor, Any], Tensor]:
        """The penalty on the KL before one inner step, E-MAML's term and the weighed loss there, in the outputs on its
        support."""
        model, weight = self._model, self._config.exploration
        share = self._coefficients[step % len(self._coefficients)] / self._objective.num_steps
        before_weight = self._objective.before_weight

        def loss(outputs: Tensor, data: Any) -> Tensor:
            old, support, reward = data
            total = share * model.divergence(old, outputs, support)
            if before_weight:
                total = total + before_weight * self._sampled_loss(outputs, support)
            if not weight or not isinstance(model, SampledModel):
                return total
            return total - weight * reward * model.mean_log_prob(outputs, support)

        return loss


def _mean(pieces: Sequence[Tensor]) -> Tensor:
    """The mean over all tasks: of [n, ...] for each chunk, [...] in double precision."""
    return torch.cat(list(pieces)).double().mean(dim=0)
