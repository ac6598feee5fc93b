"""Probabilistic MAML, PLATIPUS (Finn, Xu and Levine 2018): MAML that begins with draws of the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

import optree
import torch
import tyro
from torch import Tensor

from maml_rl.core.acting import Answered
from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Measure, Model, Report
from maml_rl.core.gaussians import divergence
from maml_rl.core.inner import InnerConfig, InnerStep, StepSize, adapt, adapt_tasks, scale, subtract
from maml_rl.core.keys import DRAWS, INITIALISATION, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.output_map import LossAtOutputs
from maml_rl.core.statistics import spread
from maml_rl.core.trees import (
    Params,
    device_of,
    flatten,
    map_params,
    num_tasks,
    stack,
    take_tasks,
    to_device,
    unflatten,
)
from maml_rl.learners import maml
from maml_rl.learners.entry import TRAINING_ONLY, WHOLE_PATH, Context, Entry, Protocol
from maml_rl.networks.convnet import ConvConfig, laid_out


@dataclass(frozen=True)
class PosteriorConfig:
    """Settings of the distributions over a task's parameters before its gradient steps."""

    num_draws: int = 4  # Draws of each task's parameters in an outer update.
    kl_weight: float = 1.0
    """Weight of the divergence between the two distributions against the sum of the queries' negative log-likelihoods;
    1 gives the evidence lower bound."""
    std: float = 0.05  # Standard deviation of every parameter, in both distributions, at the beginning.
    rate: float = 0.01  # Size of the step from mu to the mean of each distribution at the beginning.
    curvature: Literal["exact", "sampled"] = "exact"
    """Second derivatives in an outer update. exact: through every gradient step. sampled: through the adaptation of one
    draw of every other chunk of tasks, which gives the same expectation, and none through the steps to the means; it
    takes half the time."""

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ValueError(f"posterior.num_draws must be at least 1, got {self.num_draws}")
        if not 0.0 <= self.kl_weight < float("inf"):
            raise ValueError(f"posterior.kl_weight must be at least 0 and finite, got {self.kl_weight}")
        if not 0.0 < self.std < float("inf"):
            raise ValueError(f"posterior.std must be positive and finite, got {self.std}")
        if not 0.0 <= self.rate < float("inf"):
            raise ValueError(f"posterior.rate must be at least 0 and finite, got {self.rate}")


class Learned(NamedTuple):
    """Everything that the outer update moves. What does not adapt has neither variances nor rates."""

    params: Params  # mu
    prior_log_variance: Params  # log sigma^2, shaped like mu
    prior_rate: Params  # gamma_p, [1] for each tensor
    posterior_log_variance: Params  # log v_q, shaped like mu
    posterior_rate: Params  # gamma_q, [1] for each tensor


class PlatipusState(NamedTuple):
    """Everything that PLATIPUS has learned or carries along."""

    params: Params
    prior_log_variance: Params
    prior_rate: Params
    posterior_log_variance: Params
    posterior_rate: Params
    adam: Moments

    @property
    def learned(self) -> Learned:
        return Learned(*self[:-1])


class PlatipusAdapted(NamedTuple):
    """N tasks: the mean of p(theta | support), and the data for the gradient steps that follow a draw from it."""

    mean: Params  # [N, ...]
    supports: tuple[Any, ...]  # a batch for each step
    num_steps: Tensor  # [N] int64


class Platipus:
    """Probabilistic MAML (Finn, Xu and Levine 2018, Algorithms 1 and 2).

    In training theta is drawn from q = N(mu - gamma_q grad L(mu, query), v_q), at test from
    p = N(mu - gamma_p grad L(mu, support), sigma^2); a draw then takes MAML's gradient steps on the support, to phi.
    The outer update descends L(phi, query) + KL(q || p), L being a mean over examples and the divergence scaled to fit.

    Departures: gamma_p and gamma_q are one number for each tensor of parameters; several draws may be averaged; with
    `curvature` sampled, second derivatives are estimated or left out. What MAML does not adapt has no distribution.
    """

    def __init__(
        self,
        model: Model,
        collector: Collector,
        measure: Measure,
        inner: InnerConfig,
        posterior: PosteriorConfig,
        adam: AdamConfig,
        nats_per_loss: float,
        threads: Threads,
    ):
        """
        Args:
            nats_per_loss: an example's negative log-likelihood as a multiple of its part in the model's loss.
        """
        if inner.learn_step_sizes:
            raise ValueError("inner.learn_step_sizes must be left out for platipus, whose steps have a set size")
        self.model, self.collector, self.measure, self.threads = model, collector, measure, threads
        self.inner, self.posterior = inner, posterior
        self._adam, self._nats_per_loss = adam, nats_per_loss

    def init(self, key: Key) -> PlatipusState:
        params = self.model.init_params(key)
        sizes = self._sizes(params, [1.0])[0]
        adapting = {name: p for name, p in params.items() if not isinstance(sizes, dict) or sizes[name]}
        log_variance = 2.0 * math.log(self.posterior.std)
        variances = [map_params(lambda p: p.new_full(p.shape, log_variance), adapting) for _ in range(2)]
        rates = [map_params(lambda p: p.new_full((1,), self.posterior.rate), adapting) for _ in range(2)]
        learned = Learned(params, variances[0], rates[0], variances[1], rates[1])
        return PlatipusState(*learned, adam=init_moments(_vector(learned)))

    def meta_step(self, state: PlatipusState, tasks: Sequence[Any], key: Key) -> tuple[PlatipusState, Report]:
        """Take one step of Adam on the mean over the tasks of the objective."""
        clock = Clock()
        learned = Learned(*(laid_out(tree) for tree in state.learned))
        with clock("sample_seconds"):
            support, query = (
                self.collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, max(1, self.inner.num_steps))
            )

        def one_chunk(start: int, stop: int, curved: float) -> Bound:
            noise = draw_noise(learned.posterior_log_variance, range(start, stop), self.posterior.num_draws, key)
            own = take_tasks(support, start, stop), take_tasks(query, start, stop)
            return self.bound(learned, *own, noise, curved)

        with clock("outer_seconds"):
            pieces = self.threads.chunks(query)
            chunks = self.threads.map(one_chunk, *zip(*pieces, strict=True), self._curved(len(pieces)))
            total = chunks[0].gradient.double()
            for chunk in chunks[1:]:  # in the order of the tasks
                total = total + chunk.gradient.double()
            vector = _vector(learned)
            gradient = (total / len(tasks)).to(vector.dtype)
            moved, moments = adam_step(vector, gradient, state.adam, self._adam)
        in_mu = gradient[: flatten(state.params).numel()]
        metrics = self._metrics(chunks, support, query) | {"gradient_norm": in_mu.norm().item()}
        return PlatipusState(*_learned(moved, learned), adam=moments), Report(metrics, clock.seconds)

    def begin(self, state: PlatipusState, num_tasks: int, key: Key) -> PlatipusAdapted:
        """The prior N(mu, sigma^2), before any data."""
        some = next(iter(state.params.values()))
        return PlatipusAdapted(stack(state.params, num_tasks), (), some.new_zeros(num_tasks).long())

    def adapt(self, state: PlatipusState, adapted: PlatipusAdapted, data: Any, key: Key) -> PlatipusAdapted:
        """Keep the data for one more gradient step; the first data also give the mean of p(theta | support)."""
        batch, mean = self.model.prepare(adapted.mean, data), adapted.mean
        if not adapted.supports:
            mean = self.model.trim(mean, batch)
            mean = adapt_tasks(self.model, mean, [batch], [_whole(state.prior_rate, state.params)], self.threads)
        return PlatipusAdapted(mean, (*adapted.supports, batch), adapted.num_steps + 1)

    def actor(self, state: PlatipusState, adapted: PlatipusAdapted, key: Key) -> Actor:
        """Draw theta from p(theta | support), and take the gradient steps."""
        count, log_variance = self.num_gradient_steps(adapted), state.prior_log_variance
        noise = draw_noise(log_variance, range(len(adapted.num_steps)), 1, key)
        if adapted.supports:
            log_variance, noise = (self.model.trim(tree, adapted.supports[0]) for tree in (log_variance, noise))
        theta = map_params(lambda p: p.flatten(0, 1), _drawn(adapted.mean, log_variance, noise))
        sizes = self._sizes(theta, self.inner.test_step_sizes(count))
        return Actor(self.model.network, adapt_tasks(self.model, theta, adapted.supports, sizes, self.threads))

    def num_gradient_steps(self, adapted: PlatipusAdapted) -> int:
        return int(adapted.num_steps[0])

    def _curved(self, num_chunks: int) -> list[float]:
        """For each chunk of tasks, the number of chunks that its second derivatives stand for: if they are sampled,
        those of every other chunk stand for all."""
        if self.posterior.curvature == "exact":
            return [1.0] * num_chunks
        share = num_chunks / len(range(0, num_chunks, 2))
        return [share if chunk % 2 == 0 else 0.0 for chunk in range(num_chunks)]

    def bound(self, learned: Learned, support: Any, query: Any, noise: Params, curved: float) -> Bound:
        """The objective and its gradient on n tasks.

        Args:
            noise: [n, S, ...], standard normal, for what adapts.
            curved: the number of such sets of tasks that the second derivatives stand for; 0 to leave them out.
        """
        exact = self.posterior.curvature == "exact" and not self.inner.first_order
        mu = laid_out(stack(learned.params, num_tasks(query)))
        at_query, at_support = (InnerStep(self.model, mu, batch, exact) for batch in (query, support))
        posterior_rate, prior_rate = (_whole(rate, mu) for rate in (learned.posterior_rate, learned.prior_rate))
        to_posterior, to_prior = scale(at_query.gradient, posterior_rate), scale(at_support.gradient, prior_rate)
        log_variances = learned.posterior_log_variance, learned.prior_log_variance
        gap = divergence(subtract(to_prior, to_posterior), *log_variances)
        center = subtract(mu, to_posterior)
        groups = [self._descended(learned, center, noise, support, query, group) for group in self._groups(curved)]
        losses, outputs = (torch.cat(column, dim=1) for column in zip(*(group[:2] for group in groups), strict=True))
        num_draws = losses.shape[1]
        slope, along = (
            map_params(lambda *sums: sum(sums[1:], sums[0]) / num_draws, *trees)
            for trees in zip(*(group[2:] for group in groups), strict=True)
        )

        weight = self.posterior.kl_weight / (self._nats_per_loss * outputs.shape[2])
        in_mu = slope
        in_prior_mean = {name: -weight * gap.in_shift[name] for name in noise}
        in_posterior_mean = {name: slope[name] - in_prior_mean[name] for name in noise}
        if exact:  # the means move with mu, and so do the gradients that they lie along
            for step, rate, in_mean in (
                (at_query, posterior_rate, in_posterior_mean),
                (at_support, prior_rate, in_prior_mean),
            ):
                in_mu = subtract(in_mu, step.hessian_product(scale(_whole(in_mean, mu), rate)))
        gradient = Learned(
            map_params(lambda p: p.sum(dim=0), in_mu),
            scale(gap.in_other, weight),
            {name: -(in_prior_mean[name] * at_support.gradient[name]).sum().view(1) for name in noise},
            {name: along[name] + weight * gap.in_one[name] for name in noise},
            {name: -(in_posterior_mean[name] * at_query.gradient[name]).sum().view(1) for name in noise},
        )
        return Bound(_vector(gradient), losses, gap.values, at_support.outputs, outputs)

    def _groups(self, curved: float) -> list[_Group]:
        """The draws, by whether second derivatives are followed: if these are sampled, through the first at most."""
        count, inner = self.posterior.num_draws, self.inner
        if self.posterior.curvature == "exact" or inner.first_order:
            return [_Group(slice(0, count), inner, 1.0)]
        num_curved, flat = 1 if curved else 0, replace(inner, first_order=True)
        groups = _Group(slice(0, num_curved), inner, count * curved), _Group(slice(num_curved, count), flat, 1.0)
        return [group for group in groups if group.draws.start < group.draws.stop]

    def _descended(
        self, learned: Learned, center: Params, noise: Params, support: Any, query: Any, group: _Group
    ) -> _Descended:
        """Adapt from some draws around `center` [n, ...], and follow the slope of the query loss back to them."""
        inner, noise = group.inner, map_params(lambda p: p[:, group.draws], noise)
        theta = _drawn(center, learned.posterior_log_variance, noise)
        shape = next(iter(theta.values())).shape[:2]
        support, query = (_repeated(data, shape[1]) for data in (support, query))
        start = map_params(lambda p: p.flatten(0, 1), theta)
        sizes = self._sizes(start, inner.step_sizes)
        steps: list[InnerStep] = []

        def recorded_gradient(params: Params, batch: Any) -> Params:
            steps.append(InnerStep(self.model, params, batch, with_hessian=not inner.first_order))
            return steps[-1].gradient

        phi = adapt(recorded_gradient, start, [support] * len(sizes), sizes)
        at_phi = self.model.linearize(phi, query)
        loss = LossAtOutputs(self.model.outer_loss_at, at_phi.outputs.detach(), query)
        in_phi = in_theta = at_phi.pull(loss.slope)
        if not inner.first_order:
            for step, size in zip(reversed(steps), reversed(sizes), strict=True):
                in_theta = subtract(in_theta, step.hessian_product(scale(in_theta, size)))
        if group.weight != 1.0:  # all draws are alike: the mean over them keeps its expectation
            in_theta = map_params(lambda full, first: first + group.weight * (full - first), in_theta, in_phi)
        in_theta = map_params(lambda p: p.unflatten(0, shape), in_theta)
        stds = map_params(_std, learned.posterior_log_variance)
        return _Descended(
            loss.values.unflatten(0, shape),
            at_phi.outputs.detach().unflatten(0, shape),
            map_params(lambda p: sum(p.unbind(dim=1)[1:], p[:, 0]), in_theta),
            {name: 0.5 * std * _product(in_theta[name], noise[name]) for name, std in stds.items()},
        )

    def _sizes(self, params: Params, sizes: Sequence[float]) -> Sequence[StepSize]:
        return self.inner.sizes_for(params, sizes, self.model.head)

    def _metrics(self, chunks: Sequence[Bound], support: Any, query: Any) -> dict[str, float]:
        """Scores on the support at mu, and on the query by all draws from q together, which has seen the query: only
        evaluation tells how well p predicts."""
        metric = self.measure.metric
        _, losses, divergences, before, after = (torch.cat(column) for column in zip(*chunks, strict=True))
        begun = Answered(support, before)
        answered = Answered(query, self.measure.mixture(after.unbind(dim=1)))
        forecast = self.measure.forecast(answered)
        return {
            **spread(f"{metric}_before", self.measure.score(begun)),
            **spread(f"{metric}_after", self.measure.score(answered)),
            **({} if forecast is None else {"nll_after": -forecast.log_likelihood.double().mean().item()}),
            "surrogate_loss_before": losses.double().mean().item(),
            "kl": divergences.double().mean().item(),
        }


class Bound(NamedTuple):
    """The objective on a few tasks, and its gradient summed over them."""

    gradient: Tensor  # [L], in the order of `Learned`
    losses: Tensor  # [n, S]: of the query, by draw
    divergences: Tensor  # [n]: KL(q || p) [nats]
    before: Tensor  # [n, B, width]: outputs on the support at mu
    after: Tensor  # [n, S, B, width]: outputs on the query


class _Group(NamedTuple):
    """Some of the draws."""

    draws: slice
    inner: InnerConfig  # first-order, or as set
    weight: float  # the number of draws whose second derivatives each of these stands for


class _Descended(NamedTuple):
    """Some draws for each of n tasks after adaptation, and slopes of the query loss summed over them."""

    losses: Tensor  # [n, r]
    outputs: Tensor  # [n, r, B, width]
    in_mean: Params  # [n, ...]: in q's mean
    in_log_variance: Params  # in log v_q, summed over the tasks as well


def draw_noise(like: Params, tasks: range, num_draws: int, key: Key) -> Params:
    """Standard normal numbers [n, num_draws, ...] of the tasks, each task's from its place below the key. They lie in
    memory as those of `like` do, and are drawn in that order."""
    noise = map_params(lambda p: torch.empty(len(tasks), num_draws, p.numel(), dtype=p.dtype), like)
    for row, task in enumerate(tasks):
        generator = key.torch_generator(task, DRAWS)
        for values in noise.values():
            values[row].normal_(generator=generator)  # three times as fast as numpy's
    shaped = map_params(
        lambda n, p: n.as_strided((*n.shape[:2], *p.shape), (*n.stride()[:2], *p.stride())), noise, like
    )
    return to_device(shaped, device_of(like))


def _drawn(mean: Params, log_variance: Params, noise: Params) -> Params:
    """Draws [n, S, ...] around means [n, ...]; what has no variance stays at its mean."""
    num_draws = next(iter(noise.values())).shape[1]
    return {
        name: torch.addcmul(value.unsqueeze(1), _std(log_variance[name]), noise[name])
        if name in noise
        else value.unsqueeze(1).expand(-1, num_draws, *value.shape[1:])
        for name, value in mean.items()
    }


def _std(log_variance: Tensor) -> Tensor:
    return (0.5 * log_variance).exp()


def _product(ones: Tensor, others: Tensor) -> Tensor:
    """The product of two stacks [n, S, ...], summed over tasks and draws: without a stack of products in between."""
    pairs = zip(ones.unbind(dim=1), others.unbind(dim=1), strict=True)
    one, other = next(pairs)
    total = one * other
    for one, other in pairs:
        total.addcmul_(one, other)
    return total.sum(dim=0)


def _repeated(data: Any, count: int) -> Any:
    """Every task `count` times in a row."""
    return data if count == 1 else optree.tree_map(lambda leaf: leaf.repeat_interleave(count, dim=0), data)


def _whole(tree: Params, like: Params) -> Params:
    """The tree with zeros for the parameters that it lacks."""
    return {name: tree[name] if name in tree else torch.zeros_like(value) for name, value in like.items()}


def _vector(learned: Learned) -> Tensor:
    return torch.cat([flatten(tree) for tree in learned])


def _learned(vector: Tensor, like: Learned) -> Learned:
    """The inverse of `_vector`."""
    pieces = vector.split([flatten(tree).numel() for tree in like])
    return Learned(*(unflatten(piece, tree) for piece, tree in zip(pieces, like, strict=True)))


# --- settings and the table's line ------------------------------------------------------------------------------


@dataclass(frozen=True)
class RegressionConfig:
    """Settings of PLATIPUS in regression."""

    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: GradientOuter = field(default_factory=GradientOuter)
    posterior: PosteriorConfig = field(default_factory=PosteriorConfig)


ON_PICTURES = PosteriorConfig(kl_weight=0.1, std=0.02, curvature="sampled")
"""A small weight, as the divergence is a sum over a hundred thousand parameters."""


@dataclass(frozen=True)
class PicturesConfig:
    """Settings of PLATIPUS on pictures."""

    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: GradientOuter = field(default_factory=GradientOuter)
    posterior: PosteriorConfig = field(default_factory=lambda: ON_PICTURES)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(default_factory=ConvConfig)


def build(context: Context, config: RegressionConfig | PicturesConfig) -> Platipus:
    """
    Raises:
        ValueError: if the settings do not go together, or no parameter adapts.
    """
    model, family = maml.make_model(context, config), context.family
    config.inner.sizes_for(model.init_params(Key(0, INITIALISATION, 0)), (), model.head)
    nats_per_loss = 1.0
    if context.kind == "regression":  # the loss is the squared error: without noise, unit variance is taken
        nats_per_loss = 0.5 / (context.details.noise_std or 1.0) ** 2
    adam, threads = config.outer.gradient, context.threads
    return Platipus(
        model, family.collector, family.measure, config.inner, config.posterior, adam, nats_per_loss, threads
    )


def omniglot(ways: int, shots: int) -> Protocol:
    """MAML's protocol: the paper has no experiment on Omniglot."""
    of_maml = maml.omniglot(ways, shots)
    config = PicturesConfig(inner=of_maml.config.inner)
    return of_maml._replace(config=config)


def from_maml(paper: Protocol) -> Protocol:
    """The protocol for a warm start from MAML's preset of that name: the same network, steps and learning rate."""
    num_iterations, warm = 1000, maml.from_prototypes(paper)
    adam = replace(warm.config.outer.gradient, decay_steps=num_iterations)
    config = replace(warm.config, outer=GradientOuter(gradient=adam))
    return warm._replace(num_iterations=num_iterations, evaluate_every=100, config=config)


def require(config: Any) -> None:
    if isinstance(config, PicturesConfig):
        maml.require_fitting_norm("platipus", config.network)


ENTRY = Entry(
    "platipus",
    "Probabilistic MAML: draws of the parameters (Finn, Xu and Levine 2018)",
    {"regression": RegressionConfig, "pictures": lambda: omniglot(5, 1).config},
    build,
    gradient_steps=True,
    unread={"method.inner.before_weight": WHOLE_PATH},
    draws=True,
    training_only=(*TRAINING_ONLY, "posterior_log_variance/", "posterior_rate/"),  # of q, which knows the query
    require=require,
    paper=omniglot,
    presets={"warm": from_maml},
)
