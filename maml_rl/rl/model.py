"""Reinforcement learning for learners by gradients: from trajectories to advantages, losses and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads, lift
from maml_rl.core.output_map import OutputMap
from maml_rl.core.trees import Params, concatenate_tasks, device_of, num_tasks, take_task, take_tasks, to_device
from maml_rl.policies.policy import Policy
from maml_rl.rl.baseline import fitted_values
from maml_rl.rl.losses import INNER_LOSSES, clipped_loss, clipped_share, masked_mean, surrogate_loss
from maml_rl.rl.returns import discounted_returns, gae, standardise, without_offset
from maml_rl.sampling.trajectory import Trajectory


@dataclass(frozen=True)
class AdvantageConfig:
    """Settings of the advantages (the constants of Finn et al. 2017)."""

    discount: float = 0.99  # Discount of rewards, per step.
    gae_lambda: float = 1.0  # Lambda of generalised advantages; 1 gives returns minus baseline.
    ridge: float = 1e-5  # Regularisation of the linear baseline.
    normalise: bool = True  # Advantages of mean 0 and standard deviation 1 within each task.

    def __post_init__(self) -> None:
        for name, value in (("discount", self.discount), ("gae_lambda", self.gae_lambda)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"advantage.{name} must lie in [0, 1], got {value}")
        if not 0.0 < self.ridge < float("inf"):
            raise ValueError(f"advantage.ridge must be positive and finite, got {self.ridge}")


class Batch(NamedTuple):
    """Trajectories of N tasks, ready for losses. E episodes, T steps, O observation, A action."""

    observations: Tensor  # [N, E, T, O]
    actions: Tensor  # [N, E, T, A]
    log_probs: Tensor  # [N, E, T] under the policy that collected the batch
    advantages: Tensor  # [N, E, T]
    mask: Tensor  # [N, E, T]
    rewards: Tensor  # [N, E, T] as received
    explained_variance: Tensor  # [N] float64: 1 - Var(G - V) / Var(G)


class PolicyModel:
    """A policy, its advantages and its surrogates."""

    def __init__(
        self,
        policy: Policy,
        advantage: AdvantageConfig,
        estimator: str,
        threads: Threads,
        device: torch.device,
        unit_return: float | None = None,
    ):
        """
        Args:
            estimator: "log_prob", "ratio", "stored_ratio" or "dice": the inner loss.
            device: of the initial parameters; everything else is computed where its parameters are.
            unit_return: the return, below 0, of which the inner loss is the square's half in place of the return;
                None for the return.
        """
        self.network, self.head = policy, policy.head
        self._policy, self._distribution = policy, policy.spec.distribution
        self._advantage, self._threads, self._device = advantage, threads, device
        self._inner_loss = None if estimator == "stored_ratio" else INNER_LOSSES[estimator]
        self._unit_return = unit_return

    def init_params(self, key: Key) -> Params:
        generator = key.torch_generator()
        return to_device(self._policy.init(generator), self._device)

    def prepare(self, params: Params, data: Trajectory) -> Batch:
        """Advantages, by a baseline fitted to each task, and the log-probabilities of the actions taken."""

        def one_chunk(start: int, stop: int) -> Batch:
            return self._batch(take_tasks(params, start, stop), take_tasks(data, start, stop))

        return concatenate_tasks(self._threads.over_chunks(one_chunk, data))

    def trim(self, params: Params, batch: Batch) -> Params:
        return params

    def part(self, data: Batch, share: float) -> Batch:
        episodes = max(1, round(share * data.mask.shape[1]))
        first = {name: value[:, :episodes] for name, value in data._asdict().items() if value.dim() > 1}
        return data._replace(**first)

    def outputs(self, params: Params, data: Batch) -> Tensor:
        return self._policy.outputs(params, data.observations.flatten(0, 1))

    def linearize(self, params: Params, data: Batch) -> OutputMap:
        return self._policy.linearize(params, data.observations.flatten(1, 2))

    def inner_loss_at(self, outputs: Tensor, data: Batch) -> Tensor:
        if self._inner_loss is None:
            loss = self._surrogate(outputs, data)
        else:
            loss = self._inner_loss(self._log_probs(outputs, data), data.advantages, data.mask)
        return loss if self._unit_return is None else loss * step_share(data.rewards, self._unit_return)

    def outer_loss_at(self, outputs: Tensor, data: Batch) -> Tensor:
        return self._surrogate(outputs, data)

    def clipped_loss_at(self, outputs: Tensor, data: Batch, clip: float) -> Tensor:
        return clipped_loss(self._log_probs(outputs, data), data.log_probs, data.advantages, data.mask, clip)

    def clipped_share(self, outputs: Tensor, data: Batch, clip: float) -> Tensor:
        return clipped_share(self._log_probs(outputs, data), data.log_probs, data.mask, clip)

    def mean_log_prob(self, outputs: Tensor, data: Batch) -> Tensor:
        return masked_mean(self._log_probs(outputs, data), data.mask)

    def relative_rewards(self, batches: Sequence[Batch]) -> list[Tensor]:
        rewards, mask = (torch.cat([getattr(each, name) for each in batches]).double() for name in ("rewards", "mask"))
        centred = (rewards - masked_mean(rewards, mask)) * mask
        std = masked_mean(centred.square(), mask).sqrt() + 1e-8
        means = centred.sum(dim=(1, 2)) / mask.sum(dim=(1, 2)) / std
        return list(means.to(batches[0].advantages.dtype).split([num_tasks(each) for each in batches]))

    def divergence(self, old_outputs: Tensor, outputs: Tensor, data: Batch) -> Tensor:
        return masked_mean(self._distribution.kl(old_outputs, outputs), data.mask.flatten())

    def describe(self, batches: Sequence[Batch]) -> dict[str, float]:
        query = batches[-1]
        return {
            "explained_variance_before": batches[0].explained_variance.mean().item(),
            "explained_variance_after": query.explained_variance.mean().item(),
            "entropy_before": _sampled_entropy(batches[0]),
            "entropy_after": _sampled_entropy(query),
        }

    def _surrogate(self, outputs: Tensor, data: Batch) -> Tensor:
        return surrogate_loss(self._log_probs(outputs, data), data.log_probs, data.advantages, data.mask)

    def _log_probs(self, outputs: Tensor, data: Batch) -> Tensor:
        return self._distribution.log_prob(outputs, data.actions.flatten(0, 1)).view_as(data.mask)

    def _batch(self, params: Params, trajectory: Trajectory) -> Batch:
        """The batch of a chunk of tasks, on the parameters' device; baselines are fitted on the CPU."""
        count = num_tasks(trajectory)
        single = [self._advantages(take_task(trajectory, i)) for i in range(count)]
        advantages, explained = (torch.stack(column) for column in zip(*single, strict=True))
        batch = Batch(
            trajectory.observations,
            trajectory.actions,
            torch.zeros_like(trajectory.mask),
            advantages,
            trajectory.mask,
            trajectory.rewards,
            explained,
        )
        batch = to_device(batch, device_of(params))
        with torch.no_grad():
            outputs = self.linearize(params, batch).outputs
            return batch._replace(log_probs=lift(self._log_probs)(outputs, batch))

    def _advantages(self, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """[E, T] advantages and [] explained variance of one task."""
        config, mask = self._advantage, trajectory.mask
        rewards = without_offset(trajectory.rewards, mask).float()
        returns = discounted_returns(rewards, config.discount)
        values = fitted_values(trajectory.observations, returns, mask, config.ridge)
        padded = torch.nn.functional.pad(values, (0, 1))
        advantages = gae(rewards, padded, config.discount, config.gae_lambda) * mask
        explained = explained_variance(returns, values, mask)
        return (standardise(advantages, mask, 1e-8) if config.normalise else advantages), explained


def step_share(rewards: Tensor, unit_return: float) -> Tensor:
    """The mean return of a task's episodes in units of `unit_return`, at least 0: [E, T] to [].

    As a factor of a loss with the gradient of -J, the expected return, it gives that of J^2 / (2 |unit_return|) where
    J < 0. The factor is a constant here, so second derivatives lack the product of two gradients of J.
    """
    return (rewards.sum(dim=-1).mean() / unit_return).clamp_min(0.0)


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(G - V) / Var(G) over unmasked steps: 1 for a perfect baseline, 0 for a constant. [E, T] to [], float64.

    Returns that do not vary, but for rounding, have nothing to explain: 0 then.
    """

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, mask)).square(), mask)

    returns, values = returns.double(), values.double()
    rounding = torch.finfo(torch.float32).eps * (returns * mask).abs().max()
    total = variance(returns)
    if total <= rounding.square():
        return torch.zeros_like(total)
    return 1.0 - variance(returns - values) / total


def _sampled_entropy(batch: Batch) -> float:
    """-mean log pi of the actions taken, an unbiased estimate of the policies' entropy [nats]."""
    return -(batch.log_probs * batch.mask).sum().item() / batch.mask.sum().item()
