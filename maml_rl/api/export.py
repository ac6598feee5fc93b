"""An agent as a torch module, and an environment's actions as its policy has them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from maml_rl.core.contracts import Actor
from maml_rl.policies.distribution import Distribution
from maml_rl.policies.scale import ObservationScale, normalised


class ExportedAgent(nn.Module):
    """An agent's mean action as a module that needs only the classes of this project."""

    def __init__(
        self, actor: Actor, distribution: Distribution, scale: ObservationScale | None, space: gymnasium.Space
    ):
        super().__init__()
        self._network, self._distribution, self._is_normalised = actor.network, distribution, scale is not None
        self._names = list(actor.params)
        for number, value in enumerate(actor.params.values()):
            self.register_parameter(f"param{number}", nn.Parameter(value.detach().clone(), requires_grad=False))
        self._is_box = isinstance(space, gymnasium.spaces.Box)
        low, high = (getattr(space, end, np.zeros(0)) for end in ("low", "high"))
        self.register_buffer("low", torch.from_numpy(np.array(low)).flatten())
        self.register_buffer("high", torch.from_numpy(np.array(high)).flatten())
        self.register_buffer("start", torch.as_tensor(np.asarray(getattr(space, "start", 0))))
        if scale is not None:
            for name, value in zip(("mean", "std"), scale.tensors, strict=True):
                self.register_buffer(name, value.clone())

    def forward(self, observations: Tensor) -> Tensor:
        """Mean actions for observations [B, O]: [B, A] of a Box, or whole numbers [B, A]."""
        params = {name: getattr(self, f"param{number}") for number, name in enumerate(self._names)}
        seen = observations.float()
        if self._is_normalised:
            seen = normalised(observations, self.get_buffer("mean"), self.get_buffer("std"))
        outputs, _ = self._network.step(params, (), seen.unsqueeze(0), None)
        actions = self._distribution.mean_action(outputs[0])
        if not self._is_box:
            return actions.long() + self.get_buffer("start")
        low, high = self.get_buffer("low"), self.get_buffer("high")
        centre, half_width = (high + low) / 2, (high - low) / 2
        return (centre + half_width * actions.clamp(-1.0, 1.0)).clamp(low, high)


def from_env(space: gymnasium.Space, actions: Any) -> Tensor:
    """An environment's actions [T, ...] as a policy has them [T, A]: the inverse of the rollout's mapping."""
    values = np.asarray(actions)
    if isinstance(space, gymnasium.spaces.Box):
        low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
        rows = values.reshape(len(values), -1)
        return torch.from_numpy((rows - (high + low) / 2) / ((high - low) / 2)).float()
    start = np.asarray(getattr(space, "start", 0))
    return torch.from_numpy((values - start).reshape(len(values), -1).astype(np.float32))
