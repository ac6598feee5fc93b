"""What a sampler hands over."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Trajectory(NamedTuple):
    """Episodes of N tasks: E episodes a task, T steps at most. After an episode's end its rows are zero and masked."""

    observations: Tensor  # [N, E, T, O] float32, seen before acting
    actions: Tensor  # [N, E, T, A] float32, as the policy drew them: neither clipped nor scaled
    rewards: Tensor  # [N, E, T] float32
    mask: Tensor  # [N, E, T] float32: 1 where a step was taken
    terminated: Tensor  # [N, E] bool: the world ended the episode (otherwise the clock did)


class SamplingError(RuntimeError):
    """Sampling met a number that is not finite, or physics that diverged. Says which task and episode."""

    def __init__(self, message: str, task: int, episode: int):
        super().__init__(message)
        self.task, self.episode = task, episode
