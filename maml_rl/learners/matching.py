"""Matching Networks (Vinyals et al. 2016): attention over the support's labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maml_rl.core.trees import Params
from maml_rl.learners import metric
from maml_rl.learners.metric import Encoded, squared_distance

MAX_READINGS = 1000  # each is kept in memory for the gradient


@dataclass(frozen=True)
class MatchingConfig:
    """Settings of the matching of queries with the support."""

    distance: Literal["cosine", "squared"] = "cosine"  # Cosine of features, or minus their squared distance.
    scale: float = 10.0
    """Factor of the cosine: 10, since with 1, as printed, one class of 20 can have a probability of at most 0.28."""
    full_context: bool = False
    """Full context embeddings: LSTMs change every feature in the light of the whole support, which makes predictions
    depend on the order of the support."""
    num_readings: int = 5  # Readings of the support by the query's LSTM.

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < float("inf"):
            raise ValueError(f"matching.scale must be positive and finite, got {self.scale}")
        if self.num_readings < 1:
            raise ValueError(f"matching.num_readings must be at least 1, got {self.num_readings}")
        if self.num_readings > MAX_READINGS:
            raise ValueError(f"matching.num_readings must be at most {MAX_READINGS}, got {self.num_readings}")


@dataclass(frozen=True)
class Config(metric.Config):
    """Settings of Matching Networks."""

    matching: MatchingConfig = field(default_factory=MatchingConfig)


@dataclass(frozen=True)
class Attention:
    """Class probabilities as the attention on each class's support, summed (their equations 1 and 2); the loss is minus
    the log, as for a mixture."""

    config: MatchingConfig

    def init(self, generator: torch.Generator, num_features: int) -> Params:
        if not self.config.full_context:
            return {}
        return {
            **_init_lstm("forward", num_features, num_features, generator),
            **_init_lstm("backward", num_features, num_features, generator),
            **_init_lstm("reading", num_features, 2 * num_features, generator),
        }

    def log_probs(self, params: Params, encoded: Encoded) -> Tensor:
        support, query = encoded.support, encoded.query
        if self.config.full_context:
            support = embed_support(params, support)
            query = embed_query(params, query, support, self.config.num_readings)
        if self.config.distance == "cosine":
            similarity = self.config.scale * F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).mT
        else:
            similarity = -squared_distance(query, support)
        attention = similarity.log_softmax(dim=-1)  # [..., B, S]
        of_class = encoded.labels.log().unsqueeze(-3)  # [..., 1, S, ways]: 0 at the class, else minus infinity
        return (attention.unsqueeze(-1) + of_class).logsumexp(dim=-2)


def embed_support(params: Params, support: Tensor) -> Tensor:
    """g(x_i, S): feature plus the states, at its place, of an LSTM that runs over the support in each direction.

    Args:
        support: [..., S, F], in an order that matters.
    Source: Vinyals et al. 2016, appendix A.2.
    """
    forward = _run_lstm(params, "forward", support)
    backward = _run_lstm(params, "backward", support.flip(-2)).flip(-2)
    return support + forward + backward


def embed_query(params: Params, query: Tensor, support: Tensor, num_readings: int) -> Tensor:
    """f(x, S): an LSTM that attends to the embedded support before each of its steps.

    Args:
        query, support: [..., B, F], [..., S, F].
    Source: Vinyals et al. 2016, appendix A.1; the first state is the feature itself.
    """
    hidden, cell = query, torch.zeros_like(query)
    for _ in range(num_readings):
        read = (hidden @ support.mT).softmax(dim=-1) @ support
        hidden, cell = _lstm_cell(params, "reading", query, torch.cat([hidden, read], dim=-1), cell)
        hidden = hidden + query
    return hidden


def _init_lstm(name: str, width: int, recurrent: int, generator: torch.Generator) -> Params:
    """Weights uniform within +-1 / sqrt(width), as in torch.nn.LSTM."""
    bound = width**-0.5
    shapes = {"input": (width, 4 * width), "hidden": (recurrent, 4 * width), "bias": (4 * width,)}
    return {
        f"{name}.{part}": (2.0 * torch.rand(shape, generator=generator) - 1.0) * bound for part, shape in shapes.items()
    }


def _run_lstm(params: Params, name: str, inputs: Tensor) -> Tensor:
    """Inputs [..., S, F] to the states after each, [..., S, F]."""
    hidden = cell = torch.zeros_like(inputs[..., 0, :])
    states = []
    for i in range(inputs.shape[-2]):
        hidden, cell = _lstm_cell(params, name, inputs[..., i, :], hidden, cell)
        states.append(hidden)
    return torch.stack(states, dim=-2)


def _lstm_cell(params: Params, name: str, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step (Hochreiter and Schmidhuber 1997, with a forget gate): new state and cell."""
    gates = inputs @ params[f"{name}.input"] + hidden @ params[f"{name}.hidden"] + params[f"{name}.bias"]
    let_in, forget, value, let_out = gates.chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + let_in.sigmoid() * value.tanh()
    return let_out.sigmoid() * cell.tanh(), cell


def faster(config: Config) -> Config:
    """The faster settings of Prototypical Networks, with three times the factor of the cosine."""
    return replace(config, outer=metric.FAST_OUTER, matching=replace(config.matching, scale=30.0))


ENTRY = metric.make_entry(
    "matching",
    "Matching Networks (Vinyals et al. 2016)",
    config=lambda: Config(outer=metric.HALVED),
    comparison=lambda config: Attention(config.matching),
    train_ways=lambda ways: max(20, ways),
    faster=faster,
)
