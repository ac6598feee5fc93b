"""Feed-forward policies: (params, observation) to a distribution over actions. Pure functions of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.contracts import Previous
from maml_rl.core.output_map import OutputMap
from maml_rl.core.trees import Params
from maml_rl.networks.mlp import LinearizedMLP, init_mlp, mlp, xavier_uniform
from maml_rl.policies.distribution import Distribution


@dataclass(frozen=True)
class PolicyConfig:
    """The policy network (Finn et al. 2017, appendix A.2: two hidden layers of 100 units, ReLU)."""

    hidden_sizes: tuple[int, ...] = (100, 100)  # Units in each hidden layer.
    activation: Literal["relu", "tanh"] = "relu"  # Nonlinearity between layers.
    init_std: float = 1.0  # Initial standard deviation of a Gaussian policy, in units of the action bound.
    min_std: float = 1e-6  # Smallest standard deviation, also of adapted policies.
    network: str | None = None
    """Your own torch.nn.Module in place of the multilayer perceptron, as module:Class: called with the sizes of
    observation and output."""

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"policy.hidden_sizes must be at least 1 each, got {self.hidden_sizes}")
        if not 0.0 < self.min_std <= self.init_std < float("inf"):
            raise ValueError(
                "policy.min_std and init_std must satisfy 0 < min_std <= init_std < inf, "
                f"got {self.min_std} and {self.init_std}"
            )


class PolicySpec(NamedTuple):
    """The sizes and the distribution that an environment's spaces require of a policy."""

    observation_size: int  # O
    distribution: Distribution  # of actions


class Policy(Protocol):
    """A network whose outputs describe a distribution over actions.

    In `outputs`, observations are [B, O] for one task or [N, B, O] with parameters stacked over N tasks.
    """

    @property
    def is_recurrent(self) -> bool: ...

    @property
    def spec(self) -> PolicySpec: ...

    @property
    def head(self) -> tuple[str, ...]:
        """Prefixes of the names of the last layer's parameters."""

    def init(self, generator: torch.Generator) -> Params: ...
    def outputs(self, params: Params, observations: Tensor) -> Tensor: ...
    def linearize(self, params: Params, observations: Tensor) -> OutputMap: ...
    def start(self, params: Params, num_episodes: int) -> tuple[()]: ...
    def step(
        self, params: Params, memory: tuple[()], observation: Tensor, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]: ...


@dataclass(frozen=True)
class MLPPolicy(FeedForward):
    """A multilayer perceptron."""

    spec: PolicySpec
    hidden_sizes: tuple[int, ...]
    activation: str

    @property
    def head(self) -> tuple[str, ...]:
        own = self.spec.distribution.own_params
        return (f"{len(self.hidden_sizes)}.", *([own] if own else []))

    def init(self, generator: torch.Generator) -> Params:
        sizes = (self.spec.observation_size, *self.hidden_sizes, self.spec.distribution.network_width)
        return init_mlp(sizes, xavier_uniform(generator)) | self.spec.distribution.init_params()

    def outputs(self, params: Params, observations: Tensor) -> Tensor:
        return with_own_params(self.spec.distribution, params, mlp(params, observations, self.activation))

    def linearize(self, params: Params, observations: Tensor) -> OutputMap:
        return LinearizedMLP(params, observations, self.activation, appended=self.spec.distribution.own_params)

    def step(
        self, params: Params, memory: tuple[()], observation: Tensor, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        return self.outputs(params, observation), ()


def with_own_params(distribution: Distribution, params: Params, values: Tensor) -> Tensor:
    """A network's numbers [..., B, width] with the distribution's own parameter behind them, the same in every row."""
    name = distribution.own_params
    if name is None:
        return values
    own = params[name].unsqueeze(-2)
    return torch.cat([values, own.expand(*values.shape[:-1], own.shape[-1])], dim=-1)
