"""All noise of an episode from (run seed, stream, iteration, phase, task, episode), drawn before the episode begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.core.keys import Key, generators
from maml_rl.policies.distribution import ActionSource
from maml_rl.sampling.trajectory import Shape


class EpisodeNoise(NamedTuple):
    """The randomness of a block of episodes, B = tasks x episodes."""

    reset_seeds: list[int]  # [B], for the environments
    actions: NDArray[np.float32]  # [T, B, noise], for the policy


def episode_noise(key: Key, first_task: int, num_tasks: int, shape: Shape, actions: ActionSource) -> EpisodeNoise:
    """The noise of all episodes of the tasks first_task .. first_task + num_tasks - 1."""
    tasks, episodes = np.divmod(np.arange(num_tasks * shape.num_episodes), shape.num_episodes)
    words = key.words(2, first_task + tasks, episodes)
    noise = np.empty((shape.horizon, len(words), actions.noise_size), dtype=np.float32)
    for row, rng in enumerate(generators(words)):
        noise[:, row] = actions.draw_noise(rng, shape.horizon)
    return EpisodeNoise(words[:, 0].tolist(), noise)
