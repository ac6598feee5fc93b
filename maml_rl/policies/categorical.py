"""Distributions over finitely many actions, one choice or several at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maml_rl.core.trees import Params


class _Indices:
    """Distributions over whole numbers: no parameters beside the network's, noise that is uniform in [0, 1)."""

    @property
    def noise_size(self) -> int:
        raise NotImplementedError

    @property
    def own_params(self) -> None:
        return None

    def init_params(self) -> Params:
        return {}

    def draw_noise(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        return rng.random((num_steps, self.noise_size), dtype=np.float32)

    def within_reach(self, outputs: Tensor) -> Tensor:
        """The outputs: every index is an action."""
        return outputs


@dataclass(frozen=True)
class Categorical(_Indices):
    """One choice among C actions. Outputs [..., C]: logits; actions [..., 1], indices."""

    num_actions: int

    @property
    def network_width(self) -> int:
        return self.num_actions

    @property
    def action_width(self) -> int:
        return 1

    @property
    def noise_size(self) -> int:
        return 1

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
class MultiCategorical(_Indices):
    """A independent choices at once. Outputs [..., sum of C]: their logits, one choice behind the other; actions
    [..., A], indices."""

    num_actions: tuple[int, ...]  # of each choice

    @property
    def network_width(self) -> int:
        return sum(self.num_actions)

    @property
    def action_width(self) -> int:
        return len(self.num_actions)

    @property
    def noise_size(self) -> int:
        return len(self.num_actions)

    def sample(self, outputs: Tensor, noise: Tensor) -> Tensor:
        chosen = zip(self._choices, self._split(outputs), noise.split(1, dim=-1), strict=True)
        return torch.cat([choice.sample(logits, uniform) for choice, logits, uniform in chosen], dim=-1)

    def mean_action(self, outputs: Tensor) -> Tensor:
        """The most probable option of each choice."""
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
    def _choices(self) -> list[Categorical]:
        return [Categorical(number) for number in self.num_actions]

    def _split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return outputs.split(self.num_actions, dim=-1)


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(dim=0)
