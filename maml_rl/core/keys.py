"""Keys: names of sources of randomness. All random numbers come from keys, none from a global generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from maml_rl.core.seed_words import seed_words

TRAINING, EVALUATION, INITIALISATION = 0, 1, 2
"""Independent streams of randomness."""

TASKS, BATCHES, ORDER, AGES, DROPPED, SHUFFLED = (2**32 - place for place in range(1, 7))
"""Places below a key beside those of tasks, which are counted from 0, so that no task's data share these numbers: the
choice of tasks, mini-batches, the order of pictures that are shown one by one, noise in ages, dropout, and the order of
the steps that an expert shows."""

DRAWS = ORDER
"""Place below a key and a task for draws of that task's parameters; nothing that draws them shows pictures one by
one."""

JUDGED = 2**20
"""Phase offset of episodes that are only scored, so that their noise differs from every gradient step's."""


class Key(NamedTuple):
    """The name of a source of randomness. Equal keys give equal numbers on every machine and any number of threads."""

    seed: int
    stream: int
    iteration: int
    phase: int = 0  # data collected after that many adaptations to the task

    def at_phase(self, phase: int) -> Key:
        return self._replace(phase=phase)

    def rng(self, *path: int) -> np.random.Generator:
        """A generator for the place `path` (task, episode, purpose, ...) below this key."""
        return np.random.Generator(np.random.Philox(self.seed_sequence(*path)))

    def torch_generator(self, *path: int) -> torch.Generator:
        """As `rng`, for draws of PyTorch."""
        return torch.Generator().manual_seed(int(self.rng(*path).integers(2**63)))

    def words(self, count: int, *path: int | NDArray[np.integer]) -> NDArray[np.uint64]:
        """The first words of many places' seed sequences, [places, count].

        Args:
            path: numbers, or arrays [places] of them.
        """
        return seed_words(self.seed, (self.stream, self.iteration, self.phase, *path), count)

    def seed_sequence(self, *path: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(self.stream, self.iteration, self.phase, *path))


def generators(words: NDArray[np.uint64]) -> Iterator[np.random.Generator]:
    """`Key.rng` of each of many places, from the first two of their `Key.words`, [places, 2].

    All are one generator that is set back, so each lasts until the next one is asked for.
    """
    bits = np.random.Philox(0)
    rng, state = np.random.Generator(bits), bits.state
    for first in words:
        state["state"]["key"] = first
        bits.state = state
        yield rng
