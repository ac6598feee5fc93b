"""One of each learner on small drawings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pictures import drawings

from maml_rl.convnet import ConvConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.core.lift import Threads
from maml_rl.core.maml import OuterConfig
from maml_rl.core.outer.gradient import GradientConfig
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.core.protocols import INITIALISATION, TASKS, TRAINING, Key, State
from maml_rl.fewshot.gradient import JointClassifier, MAMLClassifier
from maml_rl.fewshot.matching import Matching, MatchingConfig
from maml_rl.fewshot.pixels import PixelNeighbour
from maml_rl.fewshot.prototypical import Prototypical
from maml_rl.fewshot.reptile import InnerOptimiserConfig, ReptileClassifier
from maml_rl.supervised.classification import ClassificationFamily, query_of, support_of
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream, Examples
from maml_rl.supervised.images import ImageSet

SIZE, PER_CLASS, NUM_TRAIN, NUM_TEST = 16, 8, 30, 15
GRADIENT = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint")
METRIC = ("prototypical", "matching", "full-context")
LEARNERS = (*GRADIENT, *METRIC, "pixels")

INNER = {
    "maml": InnerConfig(step_size=0.5),
    "fomaml": InnerConfig(step_size=0.5, first_order=True),
    "anil": InnerConfig(step_size=0.5, only=("head",)),
    "meta-sgd": InnerConfig(step_size=0.5, learn_step_sizes=True),
    "reptile": InnerConfig(num_steps=5, step_size=0.003),
    "joint": InnerConfig(step_size=0.5),
}


def drawn(noise: float, size: int) -> ImageSet:
    count = NUM_TRAIN + NUM_TEST
    pictures = drawings(count, PER_CLASS, size, np.random.default_rng(0), noise)
    first = np.arange(0, (count + 1) * PER_CLASS, PER_CLASS)
    return ImageSet(pictures.reshape(-1, size, size, 1), first, tuple(f"c{i}" for i in range(count)))


class Problem(NamedTuple):
    learner: Any
    training: EpisodeStream
    test: EpisodeStream
    network: ConvConfig
    tasks_per_step: int

    @property
    def state(self) -> State:
        return self.learner.init(Key(1, INITIALISATION, 0))

    def episodes(self, count: int, seed: int = 0) -> tuple[Examples, Examples]:
        """Support and query of fresh ones."""
        episodes = self.test.sample(count, np.random.default_rng(seed))
        return support_of(self.test, episodes), query_of(self.test, episodes, self.network)

    def trained(self, num_steps: int) -> State:
        state = self.state
        for i in range(num_steps):
            key = Key(1, TRAINING, i)
            state, _ = self.learner.meta_step(state, self.training.sample(self.tasks_per_step, key.rng(TASKS)), key)
        return state


def make(
    name: str,
    norm: str | None = None,
    shots: int = 1,
    noise: float = 0.1,
    distance: str = "cosine",
    num_threads: int = 1,
    size: int = SIZE,
) -> Problem:
    data = drawn(noise, size)
    queries = 2 if name in GRADIENT else 4
    train_shots = 4 if name == "reptile" else shots
    training = EpisodeStream(data, np.arange(NUM_TRAIN), "classes", EpisodeSize(5, train_shots, queries))
    held_out = np.arange(NUM_TRAIN, NUM_TRAIN + NUM_TEST)
    test = EpisodeStream(data, held_out, "classes", EpisodeSize(5, shots, 3))
    threads, outer = Threads(num_threads), GradientConfig(learning_rate=0.01)
    if name in GRADIENT:
        kind = {"features": "flatten"} if name == "reptile" else {}
        network = ConvConfig(num_filters=16, norm=norm or "batch", head_std=0.1, **kind)
        family, inner = ClassificationFamily(training, network, torch.device("cpu")), INNER[name]
        sizes = [inner.step_size] * (15 if name == "reptile" else 3)
        if name == "reptile":
            learner = ReptileClassifier(family, inner, InnerOptimiserConfig(), ReptileConfig(1.0), sizes, threads)
        elif name == "joint":
            learner = JointClassifier(family, inner, outer, sizes, threads)
        else:
            learner = MAMLClassifier(family, inner, OuterConfig(step="gradient", gradient=outer), sizes, threads)
        return Problem(learner, training, test, network, 8)
    network = ConvConfig("pooled", 16, norm=norm or "running")
    if name == "prototypical":
        return Problem(Prototypical(training, network, outer, threads), training, test, network, 1)
    if name == "pixels":
        return Problem(PixelNeighbour(training), training, test, network, 1)
    matching = MatchingConfig(distance=distance, full_context=name == "full-context")
    return Problem(Matching(training, network, outer, matching, threads), training, test, network, 1)


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """(learner, norm=None, shots=1, ...) -> the learner with its episodes."""
    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`learner` is every one of them, `gradient_learner` and `metric_learner` those of a kind."""
    for argument, names in (("learner", LEARNERS), ("gradient_learner", GRADIENT), ("metric_learner", METRIC)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names)
