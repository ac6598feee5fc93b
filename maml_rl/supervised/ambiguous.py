"""Episodes that one picture of each class leaves open: a character upright or upside down, asked about lying down."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from maml_rl.core.acting import Answered, answer
from maml_rl.core.contracts import Actor, TaskFamily
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import to_device
from maml_rl.supervised.classification import Accuracy
from maml_rl.supervised.episodes import EpisodeStream, Examples, as_input
from maml_rl.supervised.images import ImageSet

Reading = Literal["upright", "upside down"]
"""The class that pictures lying down belong to in a task."""

UPRIGHT, LYING, UPSIDE_DOWN = 0, 1, 2  # quarters of a full turn, counter-clockwise


@dataclass(frozen=True)
class AmbiguousEpisode:
    """One task: a character upright is class 0, upside down class 1; lying down it is of one of them."""

    character: int  # a class of the data
    reading: Reading
    support: tuple[int, int]  # the number of each picture within the class
    query: tuple[tuple[int, int], ...]  # turn and number of each picture

    def label(self, turn: int) -> int:
        return turn // 2 if turn != LYING else int(self.reading == "upside down")

    def __str__(self) -> str:
        return f"{self.character}, lying with {self.reading}"


class AmbiguousSource:
    """p(T): a character, and with equal chances the class that its pictures lying down belong to.

    The support shows one picture upright and one upside down, which fits both readings. Half of the queries are lying
    down, and the others upright or upside down.
    """

    def __init__(self, training: EpisodeStream, held_out: EpisodeStream):
        """The characters are the streams' classes, and as many pictures are asked about as in their episodes."""
        self._training, self._held_out = training, held_out

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[AmbiguousEpisode]:
        return [_episode(self._training, rng) for _ in range(num_tasks)]

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[AmbiguousEpisode]:
        return [_episode(self._held_out, rng) for _ in range(num_tasks)]


def _episode(stream: EpisodeStream, rng: np.random.Generator) -> AmbiguousEpisode:
    character = int(rng.choice(stream.classes))
    order = rng.permutation(stream.data.class_sizes[character]).tolist()
    reading: Reading = "upright" if rng.random() < 0.5 else "upside down"
    turns = [(LYING, UPRIGHT, LYING, UPSIDE_DOWN)[i % 4] for i in range(2 * stream.size.queries)]
    numbers = itertools.islice(itertools.cycle(order[2:] or order), len(turns))  # a class may have few pictures
    return AmbiguousEpisode(character, reading, (order[0], order[1]), tuple(zip(turns, numbers, strict=True)))


class AmbiguousCollector:
    """The pictures of such episodes: the support in phase 0, else the queries."""

    resamples = False

    def __init__(self, data: ImageSet, device: torch.device, threads: Threads):
        self._data, self._device, self._threads = data, device, threads

    def collect(self, tasks: Sequence[AmbiguousEpisode], actor: Actor | None, key: Key) -> Examples | Answered:
        examples = to_device(self._pictures(tasks, key.phase == 0), self._device)
        return examples if actor is None else answer(actor, examples, self._threads)

    def _pictures(self, tasks: Sequence[AmbiguousEpisode], is_support: bool) -> Examples:
        images, labels = [], []
        for task in tasks:
            shown = tuple(zip((UPRIGHT, UPSIDE_DOWN), task.support, strict=True)) if is_support else task.query
            pictures = self._data.images[self._data.first[task.character] + np.array([number for _, number in shown])]
            images.append([np.rot90(picture, turn) for picture, (turn, _) in zip(pictures, shown, strict=True)])
            labels.append([task.label(turn) for turn, _ in shown])
        inputs = as_input(np.array(images))
        return Examples(inputs, torch.tensor(labels), inputs[:, :0])


def ambiguous_family(
    training: EpisodeStream, held_out: EpisodeStream, device: torch.device, threads: Threads
) -> TaskFamily:
    """Such episodes of the streams' classes."""
    collector = AmbiguousCollector(training.data, device, threads)
    return TaskFamily(AmbiguousSource(training, held_out), collector, Accuracy())
