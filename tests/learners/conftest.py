"""One of each learner of pictures on small drawings."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pictures import drawings
from torch import Tensor

from maml_rl.core.acting import answer
from maml_rl.core.adam import AdamConfig
from maml_rl.core.contracts import Learner, State, TaskFamily
from maml_rl.core.inner import InnerConfig
from maml_rl.core.keys import EVALUATION, INITIALISATION, TASKS, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter, ReptileOuter
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.experiments.build import picture_spec
from maml_rl.experiments.table import LEARNERS
from maml_rl.learners import joint, matching, memory, metric, neural_statistician, pixels, platipus, reptile
from maml_rl.learners.entry import Context
from maml_rl.learners.maml import PicturesConfig
from maml_rl.networks.convnet import ConvConfig, NormPolicy
from maml_rl.networks.statistician import Sizes
from maml_rl.supervised.classification import Accuracy, EpisodeCollector, EpisodeSource, query_of, support_of
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream, Examples
from maml_rl.supervised.images import ImageSet

SIZE, PER_CLASS, NUM_TRAIN, NUM_TEST = 16, 8, 30, 15
GRADIENT = ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "platipus")
METRIC = ("prototypical", "matching", "full-context")
NAMES = (*GRADIENT, *METRIC, "memory", "neural-statistician", "pixels")
KEY = Key(0, EVALUATION, 0)

INNER = {
    "maml": InnerConfig(step_size=0.5),
    "fomaml": InnerConfig(step_size=0.5, first_order=True),
    "anil": InnerConfig(step_size=0.5, only=("head",)),
    "meta-sgd": InnerConfig(step_size=0.5, learn_step_sizes=True),
    "reptile": InnerConfig(num_steps=5, step_size=0.003),
    "joint": InnerConfig(step_size=0.5),
    "platipus": InnerConfig(step_size=0.5),
}
OUTER = GradientOuter(gradient=AdamConfig(learning_rate=0.01))


def drawn(noise: float, size: int) -> ImageSet:
    count = NUM_TRAIN + NUM_TEST
    pictures = drawings(count, PER_CLASS, size, np.random.default_rng(0), noise)
    first = np.arange(0, (count + 1) * PER_CLASS, PER_CLASS)
    return ImageSet(pictures.reshape(-1, size, size, 1), first, tuple(f"c{i}" for i in range(count)))


class Problem(NamedTuple):
    learner: Any  # a Learner
    family: TaskFamily
    training: EpisodeStream
    test: EpisodeStream
    norm: NormPolicy
    scored_after: Sequence[int]  # numbers of adaptations
    tasks_per_step: int
    threads: Threads

    @property
    def state(self) -> State:
        return self.learner.init(Key(1, INITIALISATION, 0))

    def episodes(self, count: int, seed: int = 0) -> tuple[Examples, Examples]:
        """Support and query of fresh ones."""
        episodes = self.test.sample(count, np.random.default_rng(seed))
        return support_of(self.test.data, episodes), query_of(self.test.data, episodes, self.norm)

    def trained(self, num_steps: int, state: State | None = None) -> State:
        """The state after so many meta-steps, from the learner's own first one or another."""
        state = self.state if state is None else state
        for i in range(num_steps):
            key = Key(1, TRAINING, i)
            state, _ = self.learner.meta_step(state, self.training.sample(self.tasks_per_step, key.rng(TASKS)), key)
        return state

    def predict(self, state: State, support: Examples, query: Examples) -> Tensor:
        """[scored, N, B, ways]: outputs after each number of adaptations, of as many classes as the support has."""
        learner: Learner = self.learner
        adapted, rows = learner.begin(state, len(support.labels), KEY), []
        for count in range(self.scored_after[-1] + 1):
            if count in self.scored_after:
                rows.append(answer(learner.actor(state, adapted, KEY), query, self.threads).outputs)
            if count < self.scored_after[-1]:
                adapted = learner.adapt(state, adapted, support, KEY.at_phase(count))
        return torch.stack([row[..., : int(support.labels.max()) + 1] for row in rows])


def config_of(name: str, norm: NormPolicy | None) -> Any:
    """Small settings of the learner called so; full-context is a kind of matching."""
    if name == "pixels":
        return pixels.Config()
    if name == "memory":
        settings = memory.MemoryConfig(size=256, key_size=32, dropout=0.0, examples_per_step=0)
        network = ConvConfig("pooled", 16, norm="none" if norm == "none" else "running")
        return memory.Config(OUTER, settings, network)
    if name == "neural-statistician":
        network = neural_statistician.NetworkConfig(8, 2, Sizes(context_size=32, hidden_size=64))
        return neural_statistician.Config(OUTER, network)
    if name in METRIC:
        network = ConvConfig("pooled", 16, norm=norm or "running")
        if name == "prototypical":
            return metric.Config(OUTER, network)
        return matching.Config(OUTER, network, matching.MatchingConfig(full_context=name == "full-context"))
    network, inner = ConvConfig(num_filters=16, norm=norm or "batch", head_std=0.1), INNER[name]
    if name == "reptile":
        network, outer = dataclasses.replace(network, features="flatten"), ReptileOuter(reptile=ReptileConfig(1.0))
        return reptile.Config(inner, outer=outer, network=network)
    if name == "platipus":
        return platipus.PicturesConfig(inner, OUTER, dataclasses.replace(platipus.ON_PICTURES, num_draws=2), network)
    return joint.Config(inner, OUTER, network) if name == "joint" else PicturesConfig(inner, OUTER, network)


def make(
    name: str,
    norm: NormPolicy | None = None,
    shots: int = 1,
    noise: float = 0.1,
    num_threads: int = 1,
    size: int = SIZE,
    change: Callable[[Any], Any] = lambda config: config,
) -> Problem:
    data, config = drawn(noise, size), change(config_of(name, norm))
    queries, is_gradient = 2 if name in GRADIENT else 4, name in GRADIENT
    train_shots = 4 if name == "reptile" else shots
    training = EpisodeStream(data, np.arange(NUM_TRAIN), "classes", EpisodeSize(5, train_shots, queries))
    held_out = np.arange(NUM_TRAIN, NUM_TRAIN + NUM_TEST)
    test = EpisodeStream(data, held_out, "classes", EpisodeSize(5, shots, 3))
    threads, device = Threads(num_threads), torch.device("cpu")
    norm = "batch" if name == "pixels" else config.network.norm
    collector = EpisodeCollector(data, norm, device, threads)
    family = TaskFamily(EpisodeSource(training, test), collector, Accuracy())
    scored_after = range((15 if name == "reptile" else 3) + 1) if is_gradient else (1,)
    context = Context("pictures", family, scored_after[-1], threads, device, picture_spec(training))
    learner = LEARNERS["matching" if name == "full-context" else name].build(context, config)
    return Problem(learner, family, training, test, norm, scored_after, 8 if is_gradient else 1, threads)


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    """(name, norm=None, shots=1, ..., change=a function of the settings) -> the learner with its episodes."""
    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`picture_learner` is every one of them, `gradient_learner` and `metric_learner` those of a kind."""
    for argument, names in (("picture_learner", NAMES), ("gradient_learner", GRADIENT), ("metric_learner", METRIC)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names)
