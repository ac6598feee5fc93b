"""The memory module (Kaiser, Nachum, Roy and Bengio 2017, "Learning to Remember Rare Events"): an encoder is trained so
that the nearest key of a memory has the right class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Previous, Report
from maml_rl.core.keys import AGES, DROPPED, ORDER, Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import (
    Params,
    as_leaves,
    concatenate_tasks,
    flatten,
    stack,
    take_task,
    take_tasks,
    to_device,
    unflatten,
)
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.learners.entry import Context, Entry, Protocol, require_classes
from maml_rl.networks.convnet import (
    ConvConfig,
    by_statistics,
    encode,
    init_encoder,
    init_statistics,
    moved_statistics,
    unnormalised,
)
from maml_rl.networks.key_memory import (
    EMPTY,
    Memory,
    class_log_probs,
    empty_memory,
    margin_loss,
    remember,
    with_room,
)
from maml_rl.supervised.classification import PictureShape
from maml_rl.supervised.encoder_pass import CHUNK_PICTURES, EncoderPass, gradient
from maml_rl.supervised.episodes import Episode, EpisodeConfig, Examples, rotated_class
from maml_rl.supervised.images import ImageConfig
from maml_rl.supervised.showings import between, in_showings

RUNNING, MEMORY = "running/", "memory/"
"""Prefixes of what an actor carries beside the parameters: averages of normalisation, and the memory."""


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of the memory and of training with it."""

    size: int = 8192  # Slots.
    key_size: int = 256
    """Numbers in a key: 256, with which the authors replicate the paper; their code has 128 for speed."""
    margin: float = 0.1  # Cosine by which the nearest key of the right class is to be nearer than any other.
    age_noise: float = 8.0  # Largest number of steps added to or taken from an age to choose the slot to replace.
    keep: bool = False
    """Keep the memory from one iteration to the next (life-long use), with each class's number in the data set as its
    value; test episodes begin with it. By default each iteration and each test episode begins with an empty memory."""
    dropout: float = 0.7  # Share of an embedding's numbers that are set to zero in training.
    examples_per_step: int = 1
    """Pictures of each episode between gradient steps: 1 as in the released code, 0 for one step in an iteration."""
    max_gradient_norm: float = 5.0  # Length to which longer gradients are shortened.

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("key_size", 1), ("examples_per_step", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"memory.{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("margin", "age_noise"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"memory.{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"memory.dropout must lie in [0, 1), got {self.dropout}")
        if not self.max_gradient_norm > 0.0:
            raise ValueError(f"memory.max_gradient_norm must be positive, got {self.max_gradient_norm}")


@dataclass(frozen=True)
class Config:
    """Settings of the memory module; the defaults are those of the released code."""

    outer: GradientOuter = field(
        default_factory=lambda: GradientOuter(gradient=AdamConfig(learning_rate=1e-4, epsilon=1e-4))
    )
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    network: Annotated[ConvConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: ConvConfig("paired", features="flatten", norm="none")
    )


class MemoryState(NamedTuple):
    """Everything that is learned or carried along."""

    params: Params
    adam: Moments
    running: Params  # averages of normalisation; empty where there are none
    memory: Memory  # [1, size]; without slots unless it is kept


class Remembered(NamedTuple):
    """What N tasks have been shown."""

    memory: Memory  # [N, n]
    num_classes: Tensor  # [N] int64: one more than the largest label


@dataclass(frozen=True)
class MemoryNetwork(FeedForward):
    """An encoder and a memory, which is among the parameters and is only read."""

    config: ConvConfig

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Log-probabilities [N, B, ways] of the classes shown so far."""
        slots = Memory(*(params[f"{MEMORY}{name}"] for name in Memory._fields))
        num_classes = int(params[f"{MEMORY}num_classes"].max())
        if not num_classes:
            raise ValueError("the memory must hold examples, got none: adapt before acting")
        learned = take_task({name: v for name, v in params.items() if not name.startswith(MEMORY)}, 0)
        return class_log_probs(slots, self.queries(learned, observation.images), num_classes), ()

    def queries(self, params: Params, images: Tensor) -> Tensor:
        """Queries [..., D] of length 1 of pictures [..., H, W, C], each computed by itself."""
        statistics = {name.removeprefix(RUNNING): v for name, v in params.items() if name.startswith(RUNNING)}
        normalise = by_statistics(params, statistics) if statistics else unnormalised
        return as_queries(params, encode(params, images, self.config, normalise), None)


def as_queries(params: Params, features: Tensor, kept: Tensor | None) -> Tensor:
    """Queries [..., D] of length 1 from features [..., F].

    Args:
        kept: [..., D] factors of the embedding, for dropout.
    """
    embedding = features @ params["embedding.weight"] + params["embedding.bias"]
    return F.normalize((embedding if kept is None else embedding * kept) @ params["query.weight"], dim=-1)


class MemoryLearner:
    """A learner that adapts by writing into a memory of keys, values and ages, and answers with the nearest key's
    value.

    In training all episodes of an iteration are shown to one memory at once, picture by picture, their classes being
    different values. After every few pictures there is a gradient step on the margin between the nearest key of the
    right class and that of a wrong one; keys are constants.
    """

    def __init__(
        self, config: Config, shape: PictureShape, collector: Collector, threads: Threads, device: torch.device
    ):
        self.network, self.config = MemoryNetwork(config.network), config
        self._shape, self._collector, self._threads, self._device = shape, collector, threads, device

    def init(self, key: Key) -> MemoryState:
        generator = key.torch_generator()
        network, settings = self.config.network, self.config.memory
        params = init_encoder(generator, network, self._shape.num_channels)
        width, num_features = settings.key_size, network.num_features(self._shape.side)
        for name, size in (("embedding", num_features), ("query", width)):
            bound = (6.0 / (size + width)) ** 0.5  # Glorot and Bengio 2010
            params[f"{name}.weight"] = (2.0 * torch.rand(size, width, generator=generator) - 1.0) * bound
        params["embedding.bias"] = torch.zeros(width)
        running = init_statistics(network) if network.norm == "running" else {}
        memory = empty_memory(1, settings.size if settings.keep else 0, width)
        params, running, memory = to_device((params, running, memory), self._device)
        return MemoryState(params, init_moments(flatten(params)), running, memory)

    def meta_step(self, state: MemoryState, tasks: Sequence[Episode], key: Key) -> tuple[MemoryState, Report]:
        """Show the episodes to a memory, with a gradient step after every few pictures."""
        clock, settings = Clock(), self.config.memory
        with clock("sample_seconds"):
            support = self._collector.collect(tasks, None, key.at_phase(0))
            query = self._collector.collect(tasks, None, key.at_phase(1))
            sequence = in_showings(support, query, key.rng(ORDER))
            sequence = sequence._replace(labels=self._values(tasks, sequence.labels))
        with clock("outer_seconds"):
            length = sequence.labels.shape[1]
            memory = with_room(state.memory, sequence.labels.numel(), settings.size)
            each = settings.examples_per_step or length
            noises = _age_noise(memory, length, settings, key)
            now, steps = state._replace(memory=memory), []
            for start in range(0, length, each):
                part = between(sequence, start, start + each)
                noise = None if noises is None else noises[start : start + each]
                now, step = self._gradient_step(now, part, noise, key.rng(DROPPED, start))
                steps.append(step)
        right = torch.cat([step.right for step in steps])[support.labels.numel() :]  # of the showings after the shots
        metrics = {
            "accuracy_after": right.double().mean().item(),
            "loss": float(np.mean([step.loss for step in steps])),
            "gradient_norm": float(np.mean([step.gradient_norm for step in steps])),
        }
        kept = now.memory if settings.keep else state.memory
        return now._replace(memory=kept), Report(metrics, clock.seconds)

    def begin(self, state: MemoryState, num_tasks: int, key: Key) -> Remembered:
        """The memory of training if it is kept, else an empty one. The classes in it are not those of the tasks."""
        keys, values, ages = state.memory
        values = torch.where(values == EMPTY, EMPTY, EMPTY - 1 - values)
        shared = (part.expand(num_tasks, *part.shape[1:]) for part in (keys, values, ages))
        return Remembered(Memory(*shared), torch.zeros(num_tasks, dtype=torch.int64, device=values.device))

    def adapt(self, state: MemoryState, adapted: Remembered, data: Examples, key: Key) -> Remembered:
        """Write the pictures into each task's memory, one after the other.

        Raises:
            ValueError: if there are more classes than slots.
        """
        num_shown, settings = data.labels.shape[1], self.config.memory
        num_classes = torch.maximum(adapted.num_classes, data.labels.amax(dim=1) + 1)
        require_slots(settings, int(num_classes.max()), "classes of an episode", "ways")
        learned, memory = self._learned(state), with_room(adapted.memory, num_shown, settings.size)
        noises = _age_noise(memory, num_shown, settings, key)

        def one_chunk(start: int, stop: int) -> Memory:
            known, own = take_tasks(memory, start, stop), take_tasks(data, start, stop)
            with torch.no_grad():
                queries = self.network.queries(learned, own.images)
            noise = None if noises is None else noises[:, start:stop]
            return remember(known, queries.unsqueeze(2), own.labels.unsqueeze(2), noise)[0]

        return Remembered(concatenate_tasks(self._threads.over_chunks(one_chunk, data)), num_classes)

    def actor(self, state: MemoryState, adapted: Remembered, key: Key) -> Actor:
        num_tasks = len(adapted.num_classes)
        slots = {f"{MEMORY}{name}": part for name, part in adapted.memory._asdict().items()}
        learned = stack(self._learned(state), num_tasks)
        return Actor(self.network, learned | slots | {f"{MEMORY}num_classes": adapted.num_classes})

    def num_gradient_steps(self, adapted: Remembered) -> int:
        return 0

    def _learned(self, state: MemoryState) -> Params:
        return state.params | {f"{RUNNING}{name}": value for name, value in state.running.items()}

    def _values(self, tasks: Sequence[Episode], labels: Tensor) -> Tensor:
        """The pictures' classes as values of one memory: by their numbers in the data set if it is kept, else by
        episode and label."""
        if self.config.memory.keep:
            numbers = torch.tensor([rotated_class(task) for task in tasks], device=labels.device)
            return numbers.gather(1, labels)
        return labels + int(labels.max() + 1) * torch.arange(len(tasks), device=labels.device).unsqueeze(1)

    def _gradient_step(
        self, state: MemoryState, shown: Examples, noise: Tensor | None, rng: np.random.Generator
    ) -> tuple[MemoryState, _Step]:
        """Take one step of Adam on pictures [N, T], and write them into the memory."""
        settings, adam = self.config.memory, self.config.outer.gradient
        leaves, images = as_leaves(state.params), shown.images.transpose(0, 1).flatten(0, 1).unsqueeze(0)
        count = images.shape[1]
        at_once = min(CHUNK_PICTURES, max(1, count // 2))  # two threads share the few pictures of the paper's steps
        run = EncoderPass(state.params, images, images[:, :0], self.config.network, self._threads, at_once)
        queries = as_queries(leaves, run.features, self._kept(count, rng))  # [1, T N, D]
        labels = shown.labels.T.unsqueeze(0)  # [1, T, N]
        in_steps = queries.detach().unflatten(1, labels.shape[1:])
        memory, readings = remember(state.memory, in_steps, labels, noise)
        loss = margin_loss(queries, readings, settings.margin)
        slope = gradient(loss, leaves, [run])
        length = slope.norm()
        shortened = slope * (settings.max_gradient_norm / length).clamp(max=1.0)
        vector, moments = adam_step(flatten(state.params), shortened, state.adam, adam)
        running = moved_statistics(state.running, run.moments) if state.running else {}
        after = MemoryState(unflatten(vector, state.params), moments, running, memory)
        return after, _Step(readings.right.flatten(), loss.item(), length.item())

    def _kept(self, count: int, rng: np.random.Generator) -> Tensor | None:
        """Factors [count, D] of dropout: 0, or what keeps the mean."""
        share = self.config.memory.dropout
        if not share:
            return None
        kept = rng.random((count, self.config.memory.key_size), dtype=np.float32) >= share
        return torch.from_numpy(kept).to(self._device).float() / (1.0 - share)


class _Step(NamedTuple):
    """A gradient step."""

    right: Tensor  # [T N] bool
    loss: float
    gradient_norm: float


def _age_noise(memory: Memory, num_steps: int, settings: MemoryConfig, key: Key) -> Tensor | None:
    """Noise [T, M, n] of ages in `num_steps` steps; None where slots are left empty, which come before all others."""
    if memory.keys.shape[1] < settings.size or not settings.age_noise:
        return None
    shape = (num_steps, *memory.values.shape)
    noise = torch.from_numpy(key.rng(AGES).uniform(-settings.age_noise, settings.age_noise, shape))
    return noise.to(memory.values.device)


def require_slots(settings: MemoryConfig, count: int, of_what: str, remedy: str) -> None:
    """Refuse more classes than slots.

    Raises:
        ValueError: if there are.
    """
    if count > settings.size:
        raise ValueError(
            f"memory.size must be at least the number of {of_what}, {count}, got {settings.size}: raise it, or lower "
            f"{remedy}"
        )


def require_episodes(config: Config, episodes: EpisodeConfig, num_tasks: int) -> None:
    """Refuse episodes that do not show class by class, or whose classes do not fit into the memory.

    Raises:
        ValueError: if there are more classes than slots, in training or at test, or if pictures can be read two ways.
    """
    require_classes("memory", episodes)
    require_slots(config.memory, episodes.ways, "classes of an episode", "ways")
    of_training = num_tasks * episodes.training.ways
    require_slots(config.memory, of_training, f"classes of {num_tasks} training episodes", "num_tasks or train_ways")


def require(config: Config) -> None:
    if config.network.norm not in ("running", "none"):
        raise ValueError(
            f"norm must be running or none for learner memory, got {config.network.norm}: it keeps keys of pictures, "
            "not the pictures, and is asked about one at a time"
        )


def build(context: Context, config: Config) -> MemoryLearner:
    return MemoryLearner(config, context.details.shape, context.family.collector, context.threads, context.device)


def omniglot(ways: int, shots: int) -> Protocol:
    """The released code's settings: 16 episodes of six showings at once. It asks for 30 pictures in an episode of 5
    classes; for more classes its authors only say that episodes must be longer."""
    queries = max(1, 6 - shots)
    return Protocol(
        num_iterations=100_000,
        num_tasks=16,
        episodes=EpisodeConfig(ways=ways, shots=shots, queries=queries),
        evaluation=EvaluationConfig(num_tasks=100, num_steps=0),
        config=Config(),
    )


FAST_ITERATIONS = 4_000


def faster(paper: Protocol) -> Protocol:
    """The normalised encoder of Prototypical Networks, without dropout, a wider margin, and one gradient step in an
    iteration, which spreads its pictures over the threads; and pictures in grey, as the released code has them."""
    config = Config(
        GradientOuter(gradient=AdamConfig(learning_rate=2e-3, decay="cosine", decay_steps=FAST_ITERATIONS)),
        replace(paper.config.memory, margin=0.5, dropout=0.0, examples_per_step=0),
        ConvConfig("pooled", norm="running"),
    )
    episodes = replace(paper.episodes, images=ImageConfig(resize="area"))
    return paper._replace(num_iterations=FAST_ITERATIONS, episodes=episodes, config=config)


ENTRY = Entry(
    "memory",
    "Memory module: the nearest key in a memory of what was shown (Kaiser et al. 2017)",
    {"pictures": Config},
    build,
    any_ways=True,
    require=require,
    require_episodes=require_episodes,
    paper=omniglot,
    presets={"fast": faster},
)
