"""Nearest neighbour on pixels: the baseline that any learner has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maml_rl.core.acting import FeedForward, answer
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Learner, Measure, Previous, Report
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.trees import Params
from maml_rl.learners.entry import Context, Entry, Protocol, omniglot_protocol
from maml_rl.supervised.classification import PictureShape
from maml_rl.supervised.episodes import Episode, Examples, empty_support, together


@dataclass(frozen=True)
class Config:
    """Settings of the nearest neighbour: none."""


@dataclass(frozen=True)
class NearestPicture(FeedForward):
    """A network that outputs minus the squared distance to each class's nearest picture; its parameters are the
    support."""

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """The scores of the classes: [N, B, ways]."""
        if not params["labels"].shape[-1]:
            raise ValueError("the support must hold pictures, got none: adapt before acting")
        near = -torch.cdist(observation.images.flatten(-3), params["images"].flatten(-3)).square()  # [N, B, S]
        ways = int(params["labels"].max()) + 1
        of_class = torch.nn.functional.one_hot(params["labels"], ways).bool().unsqueeze(-3)  # [N, 1, S, ways]
        return near.unsqueeze(-1).where(of_class, -torch.inf).amax(dim=-2), ()


class PixelNeighbour(Learner):
    """A learner that learns nothing: the class of the nearest support picture."""

    def __init__(
        self, shape: PictureShape, collector: Collector, measure: Measure, threads: Threads, device: torch.device
    ):
        self._shape, self._collector, self._measure = shape, collector, measure
        self._threads, self._device = threads, device

    def init(self, key: Key) -> tuple[()]:
        return ()

    def meta_step(self, state: tuple[()], tasks: Sequence[Episode], key: Key) -> tuple[tuple[()], Report]:
        clock = Clock()
        with clock("sample_seconds"):
            support = self._collector.collect(tasks, None, key.at_phase(0))
            query = self._collector.collect(tasks, None, key.at_phase(1))
        actor = self.actor(state, support, key)
        right = self._measure.score(answer(actor, query, self._threads))
        return state, Report({"accuracy_after": right.double().mean().item()}, clock.seconds)

    def begin(self, state: tuple[()], num_tasks: int, key: Key) -> Examples:
        """An empty support."""
        return empty_support(num_tasks, self._shape.side, self._shape.num_channels, self._device)

    def adapt(self, state: tuple[()], adapted: Examples, data: Examples, key: Key) -> Examples:
        """The support with more pictures in it."""
        return together(adapted, data)

    def actor(self, state: tuple[()], adapted: Examples, key: Key) -> Actor:
        return Actor(NearestPicture(), {"images": adapted.images, "labels": adapted.labels})


def build(context: Context, config: Config) -> PixelNeighbour:
    family = context.family
    return PixelNeighbour(context.details.shape, family.collector, family.measure, context.threads, context.device)


def omniglot(ways: int, shots: int) -> Protocol:
    return omniglot_protocol(ways, shots, num_iterations=0, num_steps=0, config=Config())


ENTRY = Entry(
    "pixels",
    "The nearest picture's class: no learning, the level to beat",
    {"pictures": Config},
    build,
    any_ways=True,
    paper=omniglot,
)
