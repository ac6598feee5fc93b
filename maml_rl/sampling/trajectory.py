"""What a sampler hands over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.policies import Policy


class Trajectory(NamedTuple):
    """Episodes of N tasks: E episodes a task, T steps at most. After an episode's end its rows are zero and masked."""

    observations: Tensor  # [N, E, T, O] float32, seen before acting, as the policy sees them
    actions: Tensor  # [N, E, T, A] float32, as the policy drew them: neither clipped nor scaled
    rewards: Tensor  # [N, E, T] float64: a small difference beside a large offset is a signal, too
    mask: Tensor  # [N, E, T] float32: 1 where a step was taken
    terminated: Tensor  # [N, E] bool: the world ended the episode (otherwise the clock did)
    successes: Tensor  # [N, E, 1] bool: the task was done at some step; [N, E, 0] in worlds that do not report it


def blank_trajectory(
    num_tasks: int, num_episodes: int, horizon: int, policy: Policy, reports_success: bool
) -> Trajectory:
    """A trajectory in which no step has been taken yet, for `rollout` to write into."""
    episodes = (num_tasks, num_episodes)
    steps = (*episodes, horizon)
    return Trajectory(
        torch.zeros(*steps, policy.observation_size),
        torch.zeros(*steps, policy.action_width),
        torch.zeros(steps, dtype=torch.float64),
        torch.zeros(steps),
        torch.zeros(episodes, dtype=torch.bool),
        torch.zeros(*episodes, int(reports_success), dtype=torch.bool),
    )


class SamplingError(RuntimeError):
    """Sampling cannot go on: a number that is not finite, physics that diverged, a worker's error. Says which task
    and which episode, if it was one."""

    def __init__(self, message: str, task: int | None, episode: int | None):
        super().__init__(message)
        self.task, self.episode = task, episode
