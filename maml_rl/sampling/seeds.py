"""All noise of an episode from (run seed, stream, iteration, phase, task, episode), drawn before the episode begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.core.keys import Key
from maml_rl.policies.distribution import ActionSource
from maml_rl.sampling.trajectory import Shape


class EpisodeNoise(NamedTuple):
    """The randomness of a block of episodes, B = tasks x episodes."""

    reset_seeds: list[int]  # [B], for the environments
    actions: NDArray[np.float32]  # [T, B, noise], for the policy


def episode_noise(key: Key, first_task: int, num_tasks: int, shape: Shape, actions: ActionSource) -> EpisodeNoise:
    """The noise of all episodes of the tasks first_task .. first_task + num_tasks - 1."""
    seeds: list[int] = []
    num_episodes = shape.num_episodes
    noise = np.empty((shape.horizon, num_tasks * num_episodes, actions.noise_size), dtype=np.float32)
    for row in range(num_tasks * num_episodes):
        task, episode = divmod(row, num_episodes)
        sequence = key.seed_sequence(first_task + task, episode)
        seeds.append(int(sequence.generate_state(1, np.uint64)[0]))
        rng = np.random.Generator(np.random.Philox(sequence))
        noise[:, row] = actions.draw_noise(rng, shape.horizon)
    return EpisodeNoise(seeds, noise)
