"""Trajectories: what a sampler returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.contracts import Memory


class Trajectory(NamedTuple):
    """Episodes of N tasks: E episodes a task, T steps at most. After an episode's end its rows are zero and masked."""

    observations: Tensor  # [N, E, T, O] float32, seen before acting, as the actor sees them
    actions: Tensor  # [N, E, T, A] float32, as drawn: neither clipped nor scaled
    rewards: Tensor  # [N, E, T] float64: a small difference beside a large offset is a signal, too
    mask: Tensor  # [N, E, T] float32: 1 where a step was taken
    last_observations: Tensor  # [N, E, O] float32: seen after the last step
    terminated: Tensor  # [N, E] bool: the environment ended the episode
    truncated: Tensor  # [N, E] bool: the clock did
    successes: Tensor  # [N, E, 1] bool: the task was done at some step; [N, E, 0] where that is not reported
    memory: Memory  # the actor's after its last step: [N, ...]; () for a feed-forward one


BY_EPISODE = tuple(name for name in Trajectory._fields if name != "memory")
"""The fields with an axis of episodes."""


class Shape(NamedTuple):
    """The size of one task's experience."""

    num_episodes: int  # E
    horizon: int  # T, steps after which the environment truncates
    observation_size: int  # O
    action_width: int  # A
    reports_success: bool  # whether the environment does


def blank_trajectory(num_tasks: int, shape: Shape) -> Trajectory:
    """A trajectory in which no step has been taken yet, for `rollout` to write into."""
    episodes = (num_tasks, shape.num_episodes)
    steps = (*episodes, shape.horizon)
    return Trajectory(
        torch.zeros(*steps, shape.observation_size),
        torch.zeros(*steps, shape.action_width),
        torch.zeros(steps, dtype=torch.float64),
        torch.zeros(steps),
        torch.zeros(*episodes, shape.observation_size),
        torch.zeros(episodes, dtype=torch.bool),
        torch.zeros(episodes, dtype=torch.bool),
        torch.zeros(*episodes, int(shape.reports_success), dtype=torch.bool),
        (),
    )


class SamplingError(RuntimeError):
    """Sampling cannot go on: a number that is not finite, physics that diverged, a worker's error. Says which task
    and which episode, if it was one."""

    def __init__(self, message: str, task: int | None, episode: int | None):
        super().__init__(message)
        self.task, self.episode = task, episode
