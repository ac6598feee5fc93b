"""Prototypical Networks (Snell, Swersky and Zemel 2017): a class is the mean of its features."""

from __future__ import annotations

from torch import Tensor

from maml_rl.core.params import Params
from maml_rl.fewshot.metric import Encoded, MetricLearner, squared_distance


class Prototypical(MetricLearner):
    """p(class | x) is the softmax of -|f(x) - c|^2, c being the mean of f over the class's support (equation 2)."""

    def log_probs(self, params: Params, encoded: Encoded) -> Tensor:
        return (-squared_distance(encoded.query, prototypes(encoded))).log_softmax(dim=-1)


def prototypes(encoded: Encoded) -> Tensor:
    """[..., ways, F]."""
    totals = encoded.labels.mT @ encoded.support
    return totals / encoded.labels.sum(dim=-2).unsqueeze(-1)
