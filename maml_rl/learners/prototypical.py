"""Prototypical Networks (Snell, Swersky and Zemel 2017): each class is represented by the mean of its features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maml_rl.core.trees import Params
from maml_rl.learners import metric
from maml_rl.learners.metric import Config, Encoded, squared_distance


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


ENTRY = metric.make_entry(
    "prototypical",
    "Prototypical Networks (Snell et al. 2017)",
    config=lambda: Config(outer=metric.HALVED),
    comparison=lambda config: ToPrototypes(),
    train_ways=lambda ways: 60,
    faster=lambda config: replace(config, outer=metric.FAST_OUTER),
)
