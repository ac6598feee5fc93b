"""Policies: (params, observation) to a distribution over actions. Pure functions of values; nothing is stored."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from maml_rl.core.output_map import OutputMap
from maml_rl.core.params import Params
from maml_rl.networks import LinearizedMLP, init_mlp, mlp, xavier_uniform


@dataclass(frozen=True)
class PolicyConfig:
    """The policy network (Finn et al. 2017, appendix A.2: two hidden layers of 100 units, ReLU)."""

    hidden_sizes: tuple[int, ...] = (100, 100)  # Units in each hidden layer.
    activation: Literal["relu", "tanh"] = "relu"  # Nonlinearity between layers.
    init_std: float = 1.0  # Initial standard deviation of a Gaussian policy, in units of the action bound.
    min_std: float = 1e-6  # Least standard deviation, of adapted policies, too.

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"policy.hidden_sizes must be at least 1 each, got {self.hidden_sizes}")
        if not 0.0 < self.min_std <= self.init_std < float("inf"):
            raise ValueError(
                "policy.min_std and init_std must satisfy 0 < min_std <= init_std < inf, "
                f"got {self.min_std} and {self.init_std}"
            )


MAX_NORMALISED = 10.0
"""Normalised observations are clipped here, as in OpenAI's Baselines and Stable-Baselines3: an entry that hardly moved
while it was measured must not drown the others later."""


@dataclass(frozen=True)
class ObservationScale:
    """Normalisation of observations, measured once and then fixed: (x - mean) / std, clipped to +-10."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(map(math.isfinite, self.mean)):
            raise ValueError("observation_scale must have as many finite means as standard deviations")
        if not all(0.0 < std < float("inf") for std in self.std):
            raise ValueError("observation_scale must have positive and finite standard deviations")

    def __call__(self, observations: Tensor) -> Tensor:
        """[..., O] of any type to [..., O] float32."""
        mean, std = self._tensors
        # in double precision: a small change on top of a large number is lost in single
        scaled = (observations.double() - mean) / std
        # inf - inf is nan: what is not finite must not pass for a large number
        return (scaled.clamp(-MAX_NORMALISED, MAX_NORMALISED) + (scaled - scaled)).float()

    @functools.cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.std, dtype=torch.float64)


class Policy(Protocol):
    """Outputs [..., width] describe the action distribution; the rest are functions of them.

    In `outputs`, observations are as `see` returns them: [B, O] for one task or [N, B, O] with parameters stacked over
    N tasks.
    """

    @property
    def observation_size(self) -> int: ...
    @property
    def action_width(self) -> int:
        """Numbers in a stored action."""

    @property
    def noise_size(self) -> int:
        """Random numbers needed for one action."""

    def see(self, observations: Tensor) -> Tensor:
        """The environment's observations [..., O], on the CPU, as the network takes them: float32."""

    def init(self, generator: torch.Generator) -> Params: ...
    def outputs(self, params: Params, observations: Tensor) -> Tensor: ...
    def linearize(self, params: Params, observations: Tensor) -> OutputMap: ...
    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray: ...
    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor: ...
    def mean_action(self, outputs: Tensor) -> Tensor: ...
    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor: ...
    def kl(self, old_outputs: Tensor, outputs: Tensor) -> Tensor: ...
    def entropy(self, outputs: Tensor) -> Tensor: ...


class _Seeing:
    scale: ObservationScale | None

    def see(self, observations: Tensor) -> Tensor:
        return observations.float() if self.scale is None else self.scale(observations)


@dataclass(frozen=True)
class GaussianPolicy(_Seeing):
    """A diagonal Gaussian whose mean is a network and whose log standard deviation does not depend on the state.

    Outputs [..., 2A]: mean and log standard deviation of A independent actions, the latter before it is bounded from
    below; actions [..., A], unclipped.
    """

    observation_size: int
    action_size: int
    config: PolicyConfig
    scale: ObservationScale | None = None

    @property
    def action_width(self) -> int:
        return self.action_size

    @property
    def noise_size(self) -> int:
        return self.action_size

    def init(self, generator: torch.Generator) -> Params:
        sizes = (self.observation_size, *self.config.hidden_sizes, self.action_size)
        params = init_mlp(sizes, xavier_uniform(generator))
        params["log_std"] = torch.full((self.action_size,), math.log(self.config.init_std))
        return params

    def outputs(self, params: Params, observations: Tensor) -> Tensor:
        mean = mlp(params, observations, self.config.activation)
        return torch.cat([mean, params["log_std"].unsqueeze(-2).expand_as(mean)], dim=-1)

    def linearize(self, params: Params, observations: Tensor) -> OutputMap:
        return LinearizedMLP(params, observations, self.config.activation, appended="log_std")

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, the latter at least the bound: [..., 2A] to [..., A] twice."""
        mean, log_std = outputs.chunk(2, dim=-1)
        return mean, log_std.clamp(min=math.log(self.config.min_std))

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        return rng.standard_normal((num_steps, self.noise_size), dtype=np.float32)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self.split(outputs)
        return mean + log_std.exp() * noise

    def mean_action(self, outputs: Tensor) -> Tensor:
        return self.split(outputs)[0]

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = self.split(outputs)
        scaled = (actions - mean) * (-log_std).exp()
        # sum, not mean: the densities of independent actions multiply
        return -0.5 * (scaled.square() + 2.0 * log_std + math.log(2.0 * math.pi)).sum(dim=-1)

    def kl(self, old_outputs: Tensor, outputs: Tensor) -> Tensor:
        """KL(old || new), summed over actions: [..., 2A], [..., 2A] to [...]."""
        old_mean, old_log_std = self.split(old_outputs)
        mean, log_std = self.split(outputs)
        precision = (-2.0 * log_std).exp()
        squares = ((2.0 * old_log_std).exp() + (old_mean - mean).square()) * precision
        return (log_std - old_log_std + 0.5 * (squares - 1.0)).sum(dim=-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        log_std = self.split(outputs)[1]
        return (log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(dim=-1)


@dataclass(frozen=True)
class CategoricalPolicy(_Seeing):
    """A distribution over a finite number of actions. Outputs [..., C]: logits; actions [..., 1], indices."""

    observation_size: int
    num_actions: int
    config: PolicyConfig
    scale: ObservationScale | None = None

    @property
    def action_width(self) -> int:
        return 1

    @property
    def noise_size(self) -> int:
        return 1

    def init(self, generator: torch.Generator) -> Params:
        sizes = (self.observation_size, *self.config.hidden_sizes, self.num_actions)
        return init_mlp(sizes, xavier_uniform(generator))

    def outputs(self, params: Params, observations: Tensor) -> Tensor:
        return mlp(params, observations, self.config.activation)

    def linearize(self, params: Params, observations: Tensor) -> OutputMap:
        return LinearizedMLP(params, observations, self.config.activation)

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        return rng.random((num_steps, self.noise_size), dtype=np.float32)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        """Invert the cumulative distribution at uniform noise in [0, 1)."""
        below = outputs.softmax(dim=-1).cumsum(dim=-1) <= noise
        return below.sum(dim=-1, keepdim=True).clamp(max=self.num_actions - 1).to(outputs.dtype)

    def mean_action(self, outputs: Tensor) -> Tensor:
        """The most probable action."""
        return outputs.argmax(dim=-1, keepdim=True).to(outputs.dtype)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return outputs.log_softmax(dim=-1).gather(-1, actions.long()).squeeze(-1)

    def kl(self, old_outputs: Tensor, outputs: Tensor) -> Tensor:
        """KL(old || new): [..., C], [..., C] to [...]."""
        old, new = old_outputs.log_softmax(dim=-1), outputs.log_softmax(dim=-1)
        return (old.exp() * (old - new)).sum(dim=-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        log_probs = outputs.log_softmax(dim=-1)
        return -(log_probs.exp() * log_probs).sum(dim=-1)


@dataclass(frozen=True)
class MultiCategoricalPolicy(_Seeing):
    """Several independent choices at once, each from a finite number of actions. Outputs [..., sum of C]: their logits,
    one choice behind the other; actions [..., A], indices."""

    observation_size: int
    num_actions: tuple[int, ...]  # of each choice
    config: PolicyConfig
    scale: ObservationScale | None = None

    @property
    def action_width(self) -> int:
        return len(self.num_actions)

    @property
    def noise_size(self) -> int:
        return len(self.num_actions)

    def init(self, generator: torch.Generator) -> Params:
        return self._joint.init(generator)

    def outputs(self, params: Params, observations: Tensor) -> Tensor:
        return self._joint.outputs(params, observations)

    def linearize(self, params: Params, observations: Tensor) -> OutputMap:
        return self._joint.linearize(params, observations)

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        return rng.random((num_steps, self.noise_size), dtype=np.float32)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        chosen = zip(self._choices, self._split(outputs), noise.split(1, dim=-1), strict=True)
        return torch.cat([choice.sample(logits, uniform) for choice, logits, uniform in chosen], dim=-1)

    def mean_action(self, outputs: Tensor) -> Tensor:
        """The most probable of every choice."""
        parts = zip(self._choices, self._split(outputs), strict=True)
        return torch.cat([choice.mean_action(logits) for choice, logits in parts], dim=-1)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        # sum, not mean: the probabilities of independent choices multiply
        parts = zip(self._choices, self._split(outputs), actions.split(1, dim=-1), strict=True)
        return _sum([choice.log_prob(logits, action) for choice, logits, action in parts])

    def kl(self, old_outputs: Tensor, outputs: Tensor) -> Tensor:
        """KL(old || new), summed over choices: [..., sum of C] twice to [...]."""
        parts = zip(self._choices, self._split(old_outputs), self._split(outputs), strict=True)
        return _sum([choice.kl(old, new) for choice, old, new in parts])

    def entropy(self, outputs: Tensor) -> Tensor:
        parts = zip(self._choices, self._split(outputs), strict=True)
        return _sum([choice.entropy(logits) for choice, logits in parts])

    @functools.cached_property
    def _joint(self) -> CategoricalPolicy:
        """Its network is this one's."""
        return CategoricalPolicy(self.observation_size, sum(self.num_actions), self.config)

    @functools.cached_property
    def _choices(self) -> list[CategoricalPolicy]:
        return [CategoricalPolicy(self.observation_size, number, self.config) for number in self.num_actions]

    def _split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return outputs.split(self.num_actions, dim=-1)


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(dim=0)


def acting_by_mean(policy: Policy) -> Policy:
    """The same policy, but for its mean (or most probable) action wherever an action would be drawn."""
    return cast(Policy, _MeanPolicy(policy))


class _MeanPolicy:
    def __init__(self, policy: Policy):
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle asks for such names before there is a policy to ask
            raise AttributeError(name)
        return getattr(self._policy, name)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        return self._policy.mean_action(outputs)
