"""Prototypical Networks (Snell, Swersky and Zemel 2017): each class is represented by the mean of its features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maml_rl.core.trees import Params
from maml_rl.learners import metric
from maml_rl.learners.entry import Context, Entry, Protocol
from maml_rl.learners.metric import Config, Encoded, MetricLearner, squared_distance


@dataclass(frozen=True)
class ToPrototypes:
    """Class probabilities softmax(-|f(x) - c|^2), where c is the mean of f over the class's support (equation 2)."""

    def init(self, generator: torch.Generator, num_features: int) -> Params:
        return {}

    def log_probs(self, params: Params, encoded: Encoded) -> Tensor:
        return (-squared_distance(encoded.query, prototypes(encoded))).log_softmax(dim=-1)


def prototypes(encoded: Encoded) -> Tensor:
    """The mean feature of each class: [..., ways, F]."""
    totals = encoded.labels.mT @ encoded.support
    return totals / encoded.labels.sum(dim=-2).unsqueeze(-1)


def build(context: Context, config: Config) -> MetricLearner:
    shape, collector = context.details.shape, context.family.collector
    return MetricLearner(config.network, config.outer.gradient, ToPrototypes(), shape, collector, context.threads)


def omniglot(ways: int, shots: int) -> Protocol:
    return metric.omniglot(ways, shots, 60, Config(outer=metric.HALVED))


def faster(paper: Protocol) -> Protocol:
    return metric.faster(paper, replace(paper.config, outer=metric.FAST_OUTER))


ENTRY = Entry(
    "prototypical",
    "Prototypical Networks (Snell et al. 2017)",
    {"pictures": lambda: Config(outer=metric.HALVED)},
    build,
    devices=("cpu",),
    any_ways=True,
    paper=omniglot,
    presets={"fast": faster},
)
