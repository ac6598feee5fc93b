"""The Neural Statistician (Edwards and Storkey 2017): a variational autoencoder of sets, which classifies by comparing
what it believes about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.adam import AdamConfig
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Learner, Previous, Report
from maml_rl.core.gaussians import Gaussian, kl
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import Params, num_tasks
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.learners.entry import Context, Entry, Protocol, require_classes
from maml_rl.learners.number_statistician import NumberConfig, NumberStatistician
from maml_rl.learners.statistic import (
    AUGMENTATION,
    Batch,
    BoundConfig,
    NeuralStatistician,
    State,
    Summary,
    carried,
    instances_of,
    learned,
    posteriors_of,
)
from maml_rl.networks.coders import PictureCoder, Precision
from maml_rl.networks.convnet import NormPolicy
from maml_rl.networks.statistician import Sizes, Statistician
from maml_rl.supervised.augmentation import AugmentationConfig, augmented, binarised
from maml_rl.supervised.classification import PictureShape
from maml_rl.supervised.episodes import Episode, EpisodeConfig, Examples
from maml_rl.supervised.images import ImageConfig

Divergence = Literal["of_class", "of_query"]

CLASSES = "classes/"
"""Prefix of what is believed about the classes among what an actor carries."""


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of the networks; the defaults are the paper's for Omniglot."""

    norm: ClassVar[NormPolicy] = "running"
    num_filters: int = 64
    """Channels of the convolutions at full size; twice and four times as many at a half and a quarter of it."""
    num_convolutions: int = 3
    """Convolutions at each of three sizes, on the way down and again on the way up; the last one halves or doubles."""
    sizes: Sizes = field(default_factory=Sizes)
    precision: Precision = "float32"
    """Numbers that the convolutions' maps consist of, in training and at test. bfloat16 has 8 significant bits; a
    processor or card with matrix units for it takes less than half the time, another one longer. float32 gives the same
    bits on more machines."""

    def __post_init__(self) -> None:
        for name in ("num_filters", "num_convolutions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def coder(self, image_size: int) -> PictureCoder:
        return PictureCoder(image_size, self.num_filters, self.num_convolutions, self.precision)

    def num_features(self, image_size: int) -> int:
        return self.coder(image_size).num_features

    def first_map_bytes(self, image_size: int) -> int:
        """Size of one picture's first map, which is the largest. [bytes]"""
        return (2 if self.precision == "bfloat16" else 4) * self.num_filters * image_size**2


@dataclass(frozen=True)
class Config:
    """Settings of the Neural Statistician on pictures."""

    outer: GradientOuter = field(default_factory=GradientOuter)
    network: Annotated[NetworkConfig, tyro.conf.arg(name="")] = field(default_factory=NetworkConfig)
    bound: BoundConfig = field(default_factory=BoundConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    divergence: Divergence = "of_class"
    """Divergence by which the nearest class is chosen. of_class: KL(q(c | class) || q(c | query)), as in Algorithm 4.
    of_query: the other way round."""


class PictureStatistician(NeuralStatistician):
    """The learner on few-shot episodes: all drawings of a class in an episode, support and query, are a set."""

    def __init__(
        self, config: Config, shape: PictureShape, collector: Collector, threads: Threads, device: torch.device
    ):
        model = Statistician(config.network.coder(shape.side), config.network.sizes)
        super().__init__(model, config.outer.gradient, config.bound, threads, device)
        self._config, self._collector = config, collector

    def meta_step(self, state: State, tasks: Sequence[Episode], key: Key) -> tuple[State, Report]:
        clock = Clock()
        with clock("sample_seconds"):
            parts = [self._collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1)]
            by_class = [part.images.unflatten(1, (len(tasks[0].classes), -1)) for part in parts]
            shots = by_class[0].shape[2]
            batches = []
            for place, sets in enumerate(torch.cat(by_class, dim=2)):  # [ways, K + Q, H, W, 1]
                generator = key.torch_generator(place, AUGMENTATION)
                changed = augmented(sets, self._config.augmentation, generator)
                batches.append(Batch(binarised(changed, generator), shots))
        with clock("outer_seconds"):
            state, metrics = self.ascend(state, batches, key)
        return state, Report(metrics, clock.seconds)

    def score_of(
        self, params: Params, running: Params, batch: Batch, instances: Tensor, means: Tensor
    ) -> dict[str, float]:
        """The share of drawings behind the first that are recognised by these, and how much ink there is in what is
        decoded, as a multiple of the data's."""
        detached = {name: value.detach() for name, value in params.items()}
        known, asked = instances[:, : batch.shots], instances[:, batch.shots :]
        counts = known.new_full((1, len(known)), float(batch.shots))
        classes = posteriors_of(self.model, detached, running, Summary(known.sum(dim=1).unsqueeze(0), counts))
        flat = asked.flatten(0, 1).unsqueeze(0)
        queries = posteriors_of(self.model, detached, running, Summary(flat, flat.new_ones(flat.shape[:2])))
        answers = _closeness(classes, queries, self._config.divergence).argmax(dim=-1)
        right = answers[0] == torch.arange(len(known), device=known.device).repeat_interleave(asked.shape[1])
        ink = means.mean() / batch.sets.mean().clamp(min=1e-6)
        return {"accuracy_after": right.double().mean().item(), "ink": ink.item()}

    def adapt(self, state: State, adapted: Summary, data: Examples, key: Key) -> Summary:
        """What has been seen with more pictures in it."""

        def of_chunk(start: int, stop: int) -> Tensor:
            return self.instances(state, data.images[start:stop])

        found = torch.cat(self._threads.over_chunks(of_chunk, data))
        ways = max(adapted.counts.shape[1], int(data.labels.max()) + 1)
        one_hot = F.one_hot(data.labels, ways).to(found.dtype)
        more = ways - adapted.counts.shape[1]
        totals, counts = F.pad(adapted.totals, (0, 0, 0, more)), F.pad(adapted.counts, (0, more))
        return Summary(totals + one_hot.mT @ found, counts + one_hot.sum(dim=1))

    def actor(self, state: State, adapted: Summary, key: Key) -> Actor:
        classes = {f"{CLASSES}{name}": value for name, value in self.about(state, adapted)._asdict().items()}
        network = NearestPosterior(self.model, self._config.divergence)
        return Actor(network, carried(state, num_tasks(adapted)) | classes)


@dataclass(frozen=True)
class NearestPosterior(FeedForward):
    """A network that scores each class by minus the divergence between what is believed about it and about the picture
    (Algorithm 4). The classes are among its parameters."""

    model: Statistician
    divergence: Divergence

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Scores [N, B, ways] of the pictures."""
        classes = Gaussian(*(params[f"{CLASSES}{name}"] for name in Gaussian._fields))
        if not classes.mean.shape[1]:
            raise ValueError("the support must hold pictures, got none: adapt before acting")
        own, running = learned({name: value for name, value in params.items() if not name.startswith(CLASSES)})
        found = instances_of(self.model, own, running, observation.images)
        queries = posteriors_of(self.model, own, running, Summary(found, found.new_ones(found.shape[:2])))
        return _closeness(classes, queries, self.divergence), ()


def _closeness(classes: Gaussian, queries: Gaussian, divergence: Divergence) -> Tensor:
    """Minus the divergence of every query [N, B, C] and class [N, W, C]: [N, B, W]."""
    known, asked = Gaussian(*(x.unsqueeze(1) for x in classes)), Gaussian(*(x.unsqueeze(2) for x in queries))
    return -(kl(known, asked) if divergence == "of_class" else kl(asked, known))


def build(context: Context, config: Any) -> Learner:
    """
    Raises:
        ValueError: if the pictures are in colour.
    """
    if context.kind == "density":
        return NumberStatistician(config, context.family.collector, context.threads, context.device)
    shape = context.details.shape
    if shape.num_channels != 1:
        raise ValueError(
            f"channels must be grey for learner {ENTRY.name}, whose pixels are ink or paper, but the pictures are in "
            "colour: add --channels grey"
        )
    return PictureStatistician(config, shape, context.family.collector, context.threads, context.device)


def omniglot(ways: int, shots: int) -> Protocol:
    """The paper's protocol with the published code's batch of 32 sets, in two halves that are normalised each by itself
    on two cores: sets of 5, 300 epochs of 1,200 characters in four rotations."""
    return Protocol(
        num_iterations=45_000,
        num_tasks=2,
        episodes=EpisodeConfig(
            images=ImageConfig(resize="area"),
            ways=ways,
            shots=shots,
            train_ways=16,
            train_shots=4,
            queries=1,
            test_queries=15,
        ),
        evaluation=EvaluationConfig(num_tasks=100, num_steps=0),
        config=Config(),
    )


def faster(paper: Protocol) -> Protocol:
    """The protocol with a quarter of the channels, two thirds of the convolutions, sets mirrored but not turned,
    and twice the learning rate, which decays to zero. A drawing has 4 latent variables in place of 16, and the extra
    weight of the reconstruction stays for longer, so that the context has to say what all drawings of a set share."""
    outer = GradientOuter(gradient=AdamConfig(learning_rate=2e-3, decay="cosine", decay_steps=FAST_ITERATIONS))
    config = replace(
        paper.config,
        outer=outer,
        network=NetworkConfig(num_filters=16, num_convolutions=2, sizes=Sizes(latent_size=4)),
        bound=BoundConfig(halving_steps=FAST_ITERATIONS // 8),
        augmentation=AugmentationConfig(max_angle=0.0),
    )
    return paper._replace(num_iterations=FAST_ITERATIONS, config=config)


FAST_ITERATIONS = 20_000

ENTRY = Entry(
    "neural-statistician",
    "Neural Statistician (Edwards and Storkey 2017)",
    {"pictures": Config, "density": NumberConfig},
    build,
    any_ways=True,
    require_episodes=lambda config, episodes, num_tasks: require_classes("neural-statistician", episodes),
    paper=omniglot,
    presets={"fast": faster},
)
