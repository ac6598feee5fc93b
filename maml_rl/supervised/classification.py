"""Few-shot classification as a task family: episodes, a convolutional network, cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.core.acting import Answered, FeedForward, answer
from maml_rl.core.contracts import Actor, Forecast, Previous
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads, takes_stacked
from maml_rl.core.output_map import AutogradMap, OutputMap
from maml_rl.core.trees import Params, to_device
from maml_rl.networks.convnet import (
    ConvConfig,
    Normalise,
    NormPolicy,
    by_batch,
    encode,
    init_encoder,
    init_head,
    unnormalised,
)
from maml_rl.networks.mlp import linear
from maml_rl.supervised.episodes import Episode, EpisodeStream, Examples, gather
from maml_rl.supervised.images import ImageSet


class EpisodeSource:
    """p(T): episodes of the training classes, and of others that training never draws."""

    def __init__(self, training: EpisodeStream, held_out: EpisodeStream):
        self._training, self._held_out = training, held_out

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Episode]:
        return self._training.sample(num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Episode]:
        return self._held_out.sample(num_tasks, rng)


class EpisodeCollector:
    """The pictures of episodes: the support in phase 0, else the queries."""

    resamples = False

    def __init__(self, data: ImageSet | None, norm: NormPolicy, device: torch.device, threads: Threads):
        """
        Args:
            norm: with "support", every query comes with the support beside it.
        """
        self.data, self._norm, self._device, self._threads = data, norm, device, threads

    def collect(self, tasks: Sequence[Episode], actor: Actor | None, key: Key) -> Examples | Answered:
        assert self.data is not None, "episodes are of pictures"
        found = support_of(self.data, tasks) if key.phase == 0 else query_of(self.data, tasks, self._norm)
        examples = to_device(found, self._device)
        if actor is None:
            return examples
        answered = answer(actor, examples, self._threads)
        # a network may have outputs for more classes than an episode has: these take the first
        return answered._replace(outputs=answered.outputs[..., : len(tasks[0].classes)])


class GivenEpisodes:
    """Episodes whose pictures are given instead of drawn: support and query of each, one task at a time."""

    resamples = False

    def __init__(self, pairs: Mapping[str, tuple[Examples, Examples]], device: torch.device, threads: Threads):
        self._pairs, self._device, self._threads = pairs, device, threads

    def collect(self, tasks: Sequence[str], actor: Actor | None, key: Key) -> Examples | Answered:
        (name,) = tasks
        examples = to_device(self._pairs[name][min(key.phase, 1)], self._device)
        return examples if actor is None else answer(actor, examples, self._threads)


class Accuracy:
    """The measure of classification: 1 for a right answer, 0 for a wrong one."""

    metric = "accuracy"
    higher_is_better = True

    def score(self, data: Answered) -> Tensor:
        """[N, B]"""
        return is_right(data.outputs, data.examples.labels)

    def further_scores(self, data: Answered) -> dict[str, Tensor]:
        return {}

    def forecast(self, data: Answered) -> Forecast:
        """The log-probability of the right class, and of each example the event that the likeliest class is right."""
        log_probs, labels = data.outputs.log_softmax(dim=-1), data.examples.labels.unsqueeze(-1)
        confidence = log_probs.amax(dim=-1, keepdim=True).exp()
        return Forecast(log_probs.gather(-1, labels).squeeze(-1), confidence, self.score(data).unsqueeze(-1))

    def mixture(self, outputs: Sequence[Tensor]) -> Tensor:
        """The log of the mean of the draws' probabilities, [N, B, ways]."""
        if len(outputs) == 1:
            return outputs[0]
        log_probs = torch.stack(list(outputs)).log_softmax(dim=-1)
        return log_probs.logsumexp(dim=0) - math.log(len(outputs))

    def describe(self, experience: Sequence[Any]) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class ConvNetwork(FeedForward):
    """A Conv4 with a linear head, each task under its own parameters."""

    config: ConvConfig

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Logits [N, B, ways] of the pictures."""
        return self.logits(params, observation), ()

    def logits(self, params: Params, examples: Examples) -> Tensor:
        """[..., B, ways], of one task or of stacked ones."""
        config = self.config
        assert config.norm != "running", "running averages are no function of the parameters"
        normalise = unnormalised if config.norm == "none" else by_batch(params)
        features = encode_presented(params, examples.images, examples.context, config, normalise)
        return linear(features, params["head.weight"], params["head.bias"])


class PictureShape(NamedTuple):
    """The facts about its pictures that a network must know."""

    side: int  # [pixels]
    num_channels: int
    ways: int  # classes in an episode of training


class PictureSpec(NamedTuple):
    """The pictures that a learner is built for."""

    shape: PictureShape
    data: ImageSet | None  # None where only what has been learned is used
    classes: NDArray[np.int64]  # of training, among those of the data


class ClassificationModel:
    """Cross-entropy of a Conv4 with a linear head; the action is the prediction and there is no transition."""

    head: tuple[str, ...] = ("head.",)

    def __init__(self, config: ConvConfig, shape: PictureShape, device: torch.device):
        self.network, self.shape, self.device = ConvNetwork(config), shape, device

    def init_params(self, key: Key) -> Params:
        generator = key.torch_generator()
        config = self.network.config
        params = init_encoder(generator, config, self.shape.num_channels)
        params |= init_head(generator, config.num_features(self.shape.side), self.shape.ways, config.head_std)
        return to_device(params, self.device)

    def prepare(self, params: Params, data: Examples) -> Examples:
        return data

    def trim(self, params: Params, batch: Examples) -> Params:
        """The head's first outputs, as many as the episodes have classes."""
        ways = int(batch.labels.max()) + 1
        return {name: value[..., :ways] if name.startswith("head.") else value for name, value in params.items()}

    def part(self, batch: Examples, share: float) -> Examples:
        count = max(1, round(share * batch.labels.shape[1]))
        return batch._replace(images=batch.images[:, :count], labels=batch.labels[:, :count])

    @takes_stacked
    def outputs(self, params: Params, batch: Examples) -> Tensor:
        """[..., B, ways] logits."""
        return self.network.logits(params, batch)

    def linearize(self, params: Params, batch: Examples) -> OutputMap:
        return AutogradMap(self.outputs, params, batch)

    def inner_loss_at(self, outputs: Tensor, batch: Examples) -> Tensor:
        return cross_entropy(outputs, batch.labels)

    def outer_loss_at(self, outputs: Tensor, batch: Examples) -> Tensor:
        return self.inner_loss_at(outputs, batch)

    def divergence(self, old_outputs: Tensor, outputs: Tensor, batch: Examples) -> Tensor:
        """KL between the categorical distributions."""
        old, new = old_outputs.log_softmax(dim=-1), outputs.log_softmax(dim=-1)
        return (old.exp() * (old - new)).sum(dim=-1).mean()

    def describe(self, batches: Sequence[Examples]) -> dict[str, float]:
        return {}


def encode_presented(
    params: Params, images: Tensor, context: Tensor, network: ConvConfig, normalise: Normalise
) -> Tensor:
    """Features [..., B, features] of pictures, normalised together with those that `network.norm` says.

    Args:
        images: [..., B, H, W, C].
        context: [..., S, H, W, C]: with norm "support", every picture is normalised in one batch with these alone; if
            there are none, with the other pictures.
    """
    if network.norm != "support" or not context.shape[-4]:
        return encode(params, images, network, normalise)
    shape = (*images.shape[:-3], *context.shape[-4:])
    company = torch.cat([context.unsqueeze(-5).expand(shape), images.unsqueeze(-4)], dim=-4)  # [..., B, S + 1, H, W, C]
    return encode(params, company, network, normalise)[..., -1, :]


def support_of(data: ImageSet, tasks: Sequence[Episode]) -> Examples:
    images, labels = gather(data, list(tasks), "support")
    return Examples(images, labels, images[:, :0])


def query_of(data: ImageSet, tasks: Sequence[Episode], norm: NormPolicy) -> Examples:
    """The queries, with the support beside them if normalisation needs it."""
    images, labels = gather(data, list(tasks), "query")
    context = gather(data, list(tasks), "support")[0] if norm == "support" else images[:, :0]
    return Examples(images, labels, context)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over [B] of -log softmax(logits [B, ways]) at the labels [B]."""
    return -logits.log_softmax(dim=-1).gather(-1, labels.unsqueeze(-1)).mean()


def is_right(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(dim=-1) == labels).float()
