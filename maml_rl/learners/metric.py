"""The shared part of learners that compare pictures by features: training by episodes, memory of the support."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, Protocol

import torch
import tyro
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Learner, Previous, Report
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import Params, as_leaves, flatten, num_tasks, stack, take_task, to_device, unflatten
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.learners import entry
from maml_rl.networks.convnet import (
    ConvConfig,
    Normalise,
    by_batch,
    by_statistics,
    init_encoder,
    init_statistics,
    moved_statistics,
    unnormalised,
)
from maml_rl.supervised.classification import PictureShape, cross_entropy, encode_presented, is_right
from maml_rl.supervised.encoder_pass import EncoderPass, gradient
from maml_rl.supervised.episodes import Episode, EpisodeConfig, Examples, empty_support, together

RUNNING, SUPPORT = "running/", "support/"
"""Prefixes of what an actor carries beside the encoder's parameters: averages of normalisation, and the support."""


@dataclass(frozen=True)
class Config:
    """Settings of a learner that compares features."""

    outer: GradientOuter = field(default_factory=GradientOuter)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: ConvConfig("pooled", norm="running")
    )


class Encoded(NamedTuple):
    """Features of episodes; axes before those shown are the episodes'."""

    support: Tensor  # [..., S, F]
    labels: Tensor  # [..., S, ways]: 1 at the class, else 0
    query: Tensor  # [..., B, F]


class Comparison(Protocol):
    """A comparison of queries' features with those of the support: a value that can be pickled."""

    def init(self, generator: torch.Generator, num_features: int) -> Params:
        """Parameters besides the encoder's."""

    def log_probs(self, params: Params, encoded: Encoded) -> Tensor:
        """The queries' log-probabilities: [..., B, ways]."""


class MetricState(NamedTuple):
    """Everything that is learned or carried along."""

    params: Params
    adam: Moments
    running: Params  # averages of normalisation; empty where there are none


@dataclass(frozen=True)
class MetricNetwork(FeedForward):
    """An encoder and a comparison; the support is among the parameters."""

    config: ConvConfig
    comparison: Comparison

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Log-probabilities [N, B, ways] of the pictures."""
        images, labels = params[f"{SUPPORT}images"], params[f"{SUPPORT}labels"]
        if not labels.shape[1]:
            raise ValueError("the support must hold pictures, got none: adapt before acting")
        shared = {name: value for name, value in params.items() if not name.startswith(SUPPORT)}
        own = take_task(shared, 0)  # learned once, for all tasks
        statistics = {name.removeprefix(RUNNING): v for name, v in own.items() if name.startswith(RUNNING)}
        support = Examples(images, labels, images[:, :0])
        features = self._features(own, support, observation, _normalise(own, statistics))
        return self.comparison.log_probs(own, encoded(features, support)), ()

    def _features(self, params: Params, support: Examples, query: Examples, normalise: Normalise) -> Tensor:
        """Features [N, S + B, F], with support and query normalised as one batch, or each query beside the support."""
        config = self.config
        if config.norm == "support":
            parts = [
                encode_presented(params, part.images, part.context, config, normalise) for part in (support, query)
            ]
            return torch.cat(parts, dim=-2)
        both = torch.cat([support.images, query.images], dim=-4)
        return encode_presented(params, both, support.context, config, normalise)


class MetricLearner(Learner):
    """A learner whose encoder is trained so that comparing features gives the right class. It adapts by remembering the
    support, nothing else."""

    def __init__(
        self,
        config: ConvConfig,
        adam: AdamConfig,
        comparison: Comparison,
        shape: PictureShape,
        collector: Collector,
        threads: Threads,
        device: torch.device,
    ):
        self.network = MetricNetwork(config, comparison)
        self._adam, self._shape, self._collector, self._threads = adam, shape, collector, threads
        self._device = device

    def init(self, key: Key) -> MetricState:
        generator = key.torch_generator()
        config, comparison = self.network.config, self.network.comparison
        params = init_encoder(generator, config, self._shape.num_channels)
        params |= comparison.init(generator, config.num_features(self._shape.side))
        running = init_statistics(config) if config.norm == "running" else {}
        params, running = to_device((params, running), self._device)
        return MetricState(params, init_moments(flatten(params)), running)

    def meta_step(self, state: MetricState, tasks: Sequence[Episode], key: Key) -> tuple[MetricState, Report]:
        """Take one step of Adam on the mean over the episodes of -log p(class of a query)."""
        clock = Clock()
        with clock("sample_seconds"):
            support = self._collector.collect(tasks, None, key.at_phase(0))
            query = self._collector.collect(tasks, None, key.at_phase(1))
        with clock("outer_seconds"):
            leaves, passes = as_leaves(state.params), self._passes(state.params, support, query)
            features = torch.cat([each.features for each in passes], dim=1)
            log_probs = self.network.comparison.log_probs(leaves, encoded(features, support))
            loss = cross_entropy(log_probs, query.labels)
            slope = gradient(loss, leaves, passes)
            vector, moments = adam_step(flatten(state.params), slope, state.adam, self._adam)
            running = moved_statistics(state.running, passes[0].moments) if state.running else {}
        metrics = {
            "accuracy_after": is_right(log_probs, query.labels).double().mean().item(),
            "loss": loss.item(),
            "gradient_norm": slope.norm().item(),
        }
        return MetricState(unflatten(vector, state.params), moments, running), Report(metrics, clock.seconds)

    def begin(self, state: MetricState, num_tasks: int, key: Key) -> Examples:
        """An empty support."""
        return empty_support(num_tasks, self._shape.side, self._shape.num_channels, self._device)

    def adapt(self, state: MetricState, adapted: Examples, data: Examples, key: Key) -> Examples:
        """The support with more pictures in it."""
        return together(adapted, data)

    def actor(self, state: MetricState, adapted: Examples, key: Key) -> Actor:
        learned = state.params | {f"{RUNNING}{name}": value for name, value in state.running.items()}
        support = {f"{SUPPORT}images": adapted.images, f"{SUPPORT}labels": adapted.labels}
        return Actor(self.network, stack(learned, num_tasks(adapted)) | support)

    def _passes(self, theta: Params, support: Examples, query: Examples) -> list[EncoderPass]:
        """Passes through the encoder, with derivatives: support and query normalised as one batch, or the support and
        then each query beside it."""
        config = self.network.config
        if config.norm == "support":
            batches = [(support.images, support.context), (query.images, query.context)]
        else:
            batches = [(torch.cat([support.images, query.images], dim=1), support.context)]
        return [EncoderPass(theta, images, context, config, self._threads) for images, context in batches]


def encoded(features: Tensor, support: Examples) -> Encoded:
    """Split features [..., S + B, F], those of the support first, into support and query."""
    size = support.labels.shape[-1]
    one_hot = torch.nn.functional.one_hot(support.labels).to(features.dtype)
    return Encoded(features[..., :size, :], one_hot, features[..., size:, :])


def _normalise(params: Params, statistics: Params) -> Normalise:
    if statistics:
        return by_statistics(params, statistics)
    return by_batch(params) if "norm0.scale" in params else unnormalised


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """Squared distances of all pairs: [..., A, F] and [..., B, F] to [..., A, B]."""
    return (left.unsqueeze(-2) - right.unsqueeze(-3)).square().sum(dim=-1)


def make_entry(
    name: str,
    summary: str,
    config: Callable[[], Any],
    comparison: Callable[[Any], Comparison],
    train_ways: Callable[[int], int],
    faster: Callable[[Any], Any],
) -> entry.Entry:
    """A line of the table for a learner that compares features.

    Args:
        config: makes its default settings.
        comparison: of settings.
        train_ways: classes in an episode of training, for those of the test.
        faster: changes the paper's settings to some that learn faster.
    """

    def build(context: entry.Context, config: Any) -> MetricLearner:
        shape, collector = context.details.shape, context.family.collector
        outer = config.outer.gradient
        return MetricLearner(
            config.network, outer, comparison(config), shape, collector, context.threads, context.device
        )

    def omniglot(ways: int, shots: int) -> entry.Protocol:
        """The protocol of both papers."""
        return entry.Protocol(
            num_iterations=20_000,
            num_tasks=1,
            episodes=EpisodeConfig(ways=ways, shots=shots, train_ways=train_ways(ways), queries=5, test_queries=15),
            evaluation=EvaluationConfig(num_tasks=100, num_steps=0),
            config=config(),
        )

    def fast(paper: entry.Protocol) -> entry.Protocol:
        """The protocol with a third of the pictures in an episode, and a larger learning rate that decays to zero."""
        episodes = replace(paper.episodes, train_ways=20)
        return paper._replace(num_iterations=FAST_ITERATIONS, episodes=episodes, config=faster(paper.config))

    return entry.Entry(
        name,
        summary,
        {"pictures": config},
        build,
        any_ways=True,
        paper=omniglot,
        presets={"fast": fast},
    )


HALVED = GradientOuter(gradient=AdamConfig(decay="halve", decay_steps=2000))
FAST_ITERATIONS = 9000
FAST_OUTER = GradientOuter(gradient=AdamConfig(learning_rate=2e-3, decay="cosine", decay_steps=FAST_ITERATIONS))
