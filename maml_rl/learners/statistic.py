"""The shared part of Neural Statisticians: the ascent of the bound on sets, and what is believed about a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.gaussians import Gaussian
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params, as_leaves, flatten, stack, take_task, to_device, unflatten
from maml_rl.networks.blocks import by_averages, by_batch, init_averages
from maml_rl.networks.statistician import Bound, Noise, Sizes, Statistician

MOMENTUM = 0.02  # of the averages of normalisation: the least weight of the latest batch

AVERAGES = "averages/"
"""Prefix of these averages among what an actor carries."""

AUGMENTATION, NOISE = 0, 1
"""Places below a key for the randomness of a batch."""


@dataclass(frozen=True)
class BoundConfig:
    """The lower bound as a training objective."""

    extra_weight: float = 1.0
    """Extra weight a of the reconstruction at first: it counts 1 + a times, the divergences 1 / (1 + a) times."""
    halving_steps: int = 300
    """Iterations after which the extra weight is halved, again and again; an epoch of the paper's."""
    max_slope: float = 0.5  # Largest entry of the gradient; larger ones are cut to it, as in the published code.

    def __post_init__(self) -> None:
        if not 0.0 <= self.extra_weight < float("inf"):
            raise ValueError(f"bound.extra_weight must be at least 0 and finite, got {self.extra_weight}")
        if self.halving_steps < 1:
            raise ValueError(f"bound.halving_steps must be at least 1, got {self.halving_steps}")
        if not self.max_slope > 0.0:
            raise ValueError(f"bound.max_slope must be positive, got {self.max_slope}")

    def weight_after(self, num_steps: int) -> float:
        """The weight of the reconstruction after `num_steps` steps."""
        return 1.0 + self.extra_weight * 0.5 ** (num_steps // self.halving_steps)


class State(NamedTuple):
    """Everything that is learned or carried along."""

    params: Params
    adam: Moments
    running: Params  # averages of normalisation


class Summary(NamedTuple):
    """What has been seen of each class: sums over its instances, so that more can be added."""

    totals: Tensor  # [N, W, H]
    counts: Tensor  # [N, W]


class Batch(NamedTuple):
    """Sets that are normalised together."""

    sets: Tensor  # [S, K, ...]
    shots: int  # those of each set that a class is recognised by in the training score; the others are asked about


class NeuralStatistician:
    """A learner that maximises a lower bound on the likelihood of sets. It uses no labels but which set is which.

    A task's adaptation is the sum of its instances for each class: the statistic network's mean, not yet divided.
    """

    def __init__(
        self, model: Statistician, adam: AdamConfig, bound: BoundConfig, threads: Threads, device: torch.device
    ):
        self.model, self._adam, self._bound = model, adam, bound
        self._threads, self._device = threads, device

    def init(self, key: Key) -> State:
        params = to_device(self.model.init(key.torch_generator()), self._device)
        return State(params, init_moments(flatten(params)), init_averages(params))

    def ascend(self, state: State, batches: Sequence[Batch], key: Key) -> tuple[State, dict[str, float]]:
        """Take one step of Adam on the mean bound of one observation; each batch has a thread and is normalised by
        itself."""
        leaves, num_steps = as_leaves(state.params), int(state.adam.num_steps)
        weight = self._bound.weight_after(num_steps)

        def of_batch(place: int) -> tuple[Tensor, Params, dict[str, float]]:
            return self._slope(leaves, batches[place], weight, key.torch_generator(place, NOISE), state.running)

        slopes, moments, metrics = zip(*self._threads.map(of_batch, range(len(batches))), strict=True)
        slope = mean_of(slopes).clamp_(-self._bound.max_slope, self._bound.max_slope)
        vector, adam = adam_step(flatten(state.params), slope, state.adam, self._adam, self._threads)
        share = max(MOMENTUM, 1.0 / (num_steps + 1))  # at first a plain average, since there is nothing before
        running = {
            name: value + share * (mean_of([each[name] for each in moments]) - value)
            for name, value in state.running.items()
        }
        means = {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}
        moved = State(unflatten(vector, state.params), adam, running)
        return moved, means | {"gradient_norm": slope.norm().item()}

    def begin(self, state: State, num_tasks: int, key: Key) -> Summary:
        """No class, of which nothing has been seen."""
        return self.summary_of_nothing(num_tasks, 0)

    def summary_of_nothing(self, num_tasks: int, num_classes: int) -> Summary:
        shape = (num_tasks, num_classes)
        totals = torch.zeros(*shape, self.model.sizes.hidden_size, device=self._device)
        return Summary(totals, torch.zeros(shape, device=self._device))

    def num_gradient_steps(self, adapted: Summary) -> int:
        return 0

    def instances(self, state: State, observations: Tensor) -> Tensor:
        """What the statistic is a sum of: observations [..., K, ...] of the coder's to [..., K, H]."""
        return instances_of(self.model, state.params, state.running, observations)

    def about(self, state: State, seen: Summary) -> Gaussian:
        """q(c | D) of each class, [N, W, C]; the prior where nothing has been seen."""
        return posteriors_of(self.model, state.params, state.running, seen)

    def believed(self, state: State, instances: Tensor, kept: Tensor) -> Gaussian:
        """q(c | D), [S, C], of sets of instances [S, K, H] without those where `kept` [S, K] is 0."""
        totals, counts = torch.einsum("skh,sk->sh", instances, kept), kept.sum(dim=-1)
        return take_task(self.about(state, Summary(totals.unsqueeze(0), counts.unsqueeze(0))), 0)

    def imagine(self, state: State, contexts: Tensor, num: int, key: Key) -> Tensor:
        """The means of `num` new observations of each set, [S, num, ...], given its context [S, C]: z is drawn from its
        prior."""
        sizes = self.model.sizes
        shape = (sizes.num_latents, len(contexts), num, sizes.latent_size)
        noise = torch.randn(shape, generator=key.torch_generator()).to(contexts.device)
        with torch.no_grad():
            found = self.model.imagine(state.params, contexts, noise, by_averages(state.params, state.running))
        return found.unflatten(0, (len(contexts), num))

    def _slope(
        self, leaves: Params, batch: Batch, weight: float, generator: torch.Generator, running: Params
    ) -> tuple[Tensor, Params, dict[str, float]]:
        """The gradient [P] of one batch's loss, the moments of its normalisation, and what is to be logged."""
        moments: Params = {}
        num_sets, size = batch.sets.shape[:2]
        count = num_sets * size
        noise = to_device(draw_noise(self.model.sizes, num_sets, size, generator), batch.sets.device)
        with torch.enable_grad():
            bound, instances, means = self.model.bound(leaves, batch.sets, noise, by_batch(leaves, moments))
            parts = Bound(*(part.sum() / count for part in bound))
            loss = (parts.context + parts.latents) / weight - weight * parts.reconstruction
            slopes = torch.autograd.grad(loss, list(leaves.values()))
        values = {name: part.item() for name, part in parts._asdict().items()}
        metrics = {"bound": parts.total.item(), **{f"bound_{name}": value for name, value in values.items()}}
        metrics |= self.score_of(leaves, running, batch, instances.detach(), means)
        return torch.cat([slope.reshape(-1) for slope in slopes]), moments, metrics

    def score_of(
        self, params: Params, running: Params, batch: Batch, instances: Tensor, means: Tensor
    ) -> dict[str, float]:
        """Further metrics of a batch in training, from its instances [S, K, H] and the means that it is decoded to."""
        return {}


def draw_noise(sizes: Sizes, num_sets: int, size: int, generator: torch.Generator) -> Noise:
    """Everything random in one evaluation of the bound. Sample dropout keeps 1 .. K observations of each set, each
    number as likely as any other."""
    ranks = torch.rand(num_sets, size, generator=generator).argsort(dim=-1)
    number = torch.randint(1, size + 1, (num_sets, 1), generator=generator)
    context = torch.randn(num_sets, sizes.context_size, generator=generator)
    latents = torch.randn(sizes.num_latents, num_sets, size, sizes.latent_size, generator=generator)
    return Noise((ranks < number).float(), context, latents)


def instances_of(model: Statistician, params: Params, running: Params, observations: Tensor) -> Tensor:
    """[N, B, ...] to [N, B, H]."""
    normalise = by_averages(params, running)
    with torch.no_grad():
        features = model.coder.encode(params, observations.flatten(0, 1), normalise)
        return model.instances(params, features, normalise).unflatten(0, observations.shape[:2])


def posteriors_of(model: Statistician, params: Params, running: Params, seen: Summary) -> Gaussian:
    """q(c | D) of each class, [N, W, C]; the prior where nothing has been seen."""
    counts = seen.counts.flatten()
    means = seen.totals.flatten(0, 1) / counts.clamp(min=1.0).unsqueeze(-1)
    with torch.no_grad():
        found = model.context(params, means, counts, by_averages(params, running))
    is_seen = (counts > 0).unsqueeze(-1)
    return Gaussian(*(torch.where(is_seen, each, 0.0).unflatten(0, seen.counts.shape) for each in found))


def carried(state: State, num_tasks: int) -> Params:
    """Everything that has been learned, for the actor of so many tasks: the same for all."""
    return stack(state.params | {f"{AVERAGES}{name}": value for name, value in state.running.items()}, num_tasks)


def learned(params: Params) -> tuple[Params, Params]:
    """The parameters and the averages of normalisation; the inverse of `carried`."""
    own = take_task(params, 0)
    running = {name.removeprefix(AVERAGES): value for name, value in own.items() if name.startswith(AVERAGES)}
    return own, running


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """The mean in the order of the tensors, so that its bits depend on nothing else."""
    total = tensors[0]
    for each in tensors[1:]:
        total = total + each
    return total / len(tensors)
