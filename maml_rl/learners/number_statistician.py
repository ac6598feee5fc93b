"""The Neural Statistician on distributions over the real line (Edwards and Storkey 2017, section 5.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Previous, Report
from maml_rl.core.gaussians import Gaussian
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import Params, num_tasks
from maml_rl.learners.statistic import (
    Batch,
    BoundConfig,
    NeuralStatistician,
    State,
    Summary,
    carried,
    learned,
)
from maml_rl.networks.blocks import Normalise, by_averages
from maml_rl.networks.coders import NumberCoder
from maml_rl.networks.statistician import Sizes, Statistician
from maml_rl.supervised.distributions import Distribution, Numbers

SETS_TOGETHER = 16  # the most that are normalised together; the paper's batch

DRAWS = "draws/"
"""Prefix of the contexts and the noise of an actor's draws."""


@dataclass(frozen=True)
class NumberConfig:
    """Settings of the Neural Statistician on distributions; widths and depths are the paper's."""

    outer: GradientOuter = field(default_factory=GradientOuter)
    sizes: Sizes = field(
        default_factory=lambda: Sizes(context_size=3, latent_size=32, hidden_size=128, num_hidden=3, num_pooled=3)
    )
    bound: BoundConfig = field(default_factory=lambda: BoundConfig(halving_steps=625))
    num_samples: int = 20
    """Draws of context and latents that a predicted density is the mean of; more make it sharper and slower."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {self.num_samples}")


class NumberStatistician(NeuralStatistician):
    """The learner on distributions: the numbers of a support, and those of a query, are a set each.

    The published code's networks for this experiment have ReLUs and no normalisation; here they are as all others, with
    ELUs and batch normalisation.
    """

    def __init__(self, config: NumberConfig, collector: Collector, threads: Threads, device: torch.device):
        model = Statistician(NumberCoder(1, config.sizes.hidden_size, config.sizes.num_hidden), config.sizes)
        super().__init__(model, config.outer.gradient, config.bound, threads, device)
        self._num_samples, self._collector = config.num_samples, collector

    def meta_step(self, state: State, tasks: Sequence[Distribution], key: Key) -> tuple[State, Report]:
        """Take one step; the log-density reported is the bound, of one number, on the sets in hand."""
        clock = Clock()
        with clock("sample_seconds"):
            parts = [self._collector.collect(tasks, None, key.at_phase(phase)).numbers for phase in (0, 1)]
            sets = torch.cat(parts)
            batches = [Batch(part, 1) for part in sets.tensor_split(math.ceil(len(sets) / SETS_TOGETHER))]
        with clock("outer_seconds"):
            state, metrics = self.ascend(state, batches, key)
        return state, Report({"log_density_after": metrics["bound"]} | metrics, clock.seconds)

    def begin(self, state: State, num_tasks: int, key: Key) -> Summary:
        """One set of each task, of which nothing has been seen."""
        return self.summary_of_nothing(num_tasks, 1)

    def adapt(self, state: State, adapted: Summary, data: Numbers, key: Key) -> Summary:
        """What has been seen with more numbers in it."""
        found = self.instances(state, data.numbers)
        return Summary(adapted.totals + found.sum(dim=1, keepdim=True), adapted.counts + found.shape[1])

    def actor(self, state: State, adapted: Summary, key: Key) -> Actor:
        count, sizes, generator = num_tasks(adapted), self.model.sizes, key.torch_generator()
        about = self.about(state, adapted)  # [N, 1, C]
        of_contexts = torch.randn(count, self._num_samples, sizes.context_size, generator=generator)
        noise = torch.randn(count, self._num_samples, sizes.num_latents, sizes.latent_size, generator=generator)
        contexts = about.draw(of_contexts.to(self._device))
        draws = {f"{DRAWS}contexts": contexts, f"{DRAWS}noise": noise.to(self._device)}
        return Actor(PredictiveDensity(self.model), carried(state, count) | draws)


@dataclass(frozen=True)
class PredictiveDensity(FeedForward):
    """A network that outputs the log-density of numbers: the mean over contexts drawn from q(c | D) of an estimate of
    p(x | c) by importance sampling (Burda et al. 2016, equation 8, arXiv:1509.00519)."""

    model: Statistician

    def step(
        self, params: Params, memory: tuple[()], observation: Numbers, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Log-densities [N, B] of the numbers."""
        own, running = learned({name: value for name, value in params.items() if not name.startswith(DRAWS)})
        normalise = by_averages(own, running)
        numbers = observation.numbers
        features = self.model.coder.encode(own, numbers.flatten(0, 1), normalise).unflatten(0, numbers.shape[:2])
        contexts, noise = params[f"{DRAWS}contexts"].unbind(1), params[f"{DRAWS}noise"].unbind(1)
        weights = [
            self._log_weight(own, numbers, features, context, each, normalise)
            for context, each in zip(contexts, noise, strict=True)
        ]
        return torch.stack(weights).logsumexp(dim=0) - math.log(len(weights)), ()

    def _log_weight(
        self, params: Params, numbers: Tensor, features: Tensor, context: Tensor, noise: Tensor, normalise: Normalise
    ) -> Tensor:
        """log p(x | z, c) p(z | c) / q(z | x, c), [N, B], for z drawn from q.

        Args:
            numbers, features: [N, B, 1] and [N, B, F].
            context: [N, C].
            noise: [N, L, Z].
        """
        latents: list[Tensor] = []
        total = numbers.new_zeros(numbers.shape[:2])
        for level in reversed(range(noise.shape[1])):
            above = latents[0] if latents else None
            found: Gaussian = self.model.posterior(params, level, features, above, context, normalise)
            prior = self.model.prior(params, level, above, context, normalise)
            latents.insert(0, found.draw(noise[:, level].unsqueeze(1)))
            total = total + prior.log_density(latents[0]) - found.log_density(latents[0])
        decoded = self.model.decode(params, latents, context, normalise)
        likelihood = self.model.coder.log_likelihood(decoded, numbers.flatten(0, 1))
        return total + likelihood.view_as(total)
