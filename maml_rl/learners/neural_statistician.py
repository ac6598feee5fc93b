"""The Neural Statistician (Edwards and Storkey 2017): a variational autoencoder of sets, which classifies by comparing
what it believes about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from maml_rl.core.acting import FeedForward
from maml_rl.core.adam import AdamConfig, Moments, adam_step, init_moments
from maml_rl.core.clock import Clock
from maml_rl.core.contracts import Actor, Collector, Previous, Report
from maml_rl.core.gaussians import Gaussian, kl
from maml_rl.core.keys import Key
from maml_rl.core.lift import Threads
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import Params, as_leaves, flatten, num_tasks, stack, take_task, unflatten
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.learners.entry import Context, Entry, Protocol
from maml_rl.networks.blocks import by_averages, by_batch, init_averages
from maml_rl.networks.convnet import NormPolicy
from maml_rl.networks.statistician import Bound, Noise, PictureCoder, Sizes, Statistician, pooled
from maml_rl.supervised.augmentation import AugmentationConfig, augmented, binarised
from maml_rl.supervised.classification import PictureShape
from maml_rl.supervised.episodes import Episode, EpisodeConfig, Examples
from maml_rl.supervised.images import ImageConfig

AVERAGES, CLASSES = "averages/", "classes/"
"""Prefixes of what an actor carries beside the networks' parameters: averages of normalisation, and the classes."""

MOMENTUM = 0.02  # of these averages: the least weight of the latest batch

AUGMENTATION, NOISE = 0, 1
"""Places below a key for the randomness of a batch."""


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of the networks; the defaults are the paper's for Omniglot."""

    norm: ClassVar[NormPolicy] = "running"
    num_filters: int = 64
    """Channels of the convolutions at full size; twice and four times as many at a half and a quarter of it."""
    sizes: Sizes = field(default_factory=Sizes)

    def __post_init__(self) -> None:
        if self.num_filters < 1:
            raise ValueError(f"num_filters must be at least 1, got {self.num_filters}")

    def num_features(self, image_size: int) -> int:
        return PictureCoder(image_size, self.num_filters).num_features

    def first_map_bytes(self, image_size: int) -> int:
        """Size of one picture's first map, which is the largest. [bytes]"""
        return 4 * self.num_filters * image_size**2


@dataclass(frozen=True)
class BoundConfig:
    """The lower bound as a training objective."""

    extra_weight: float = 1.0
    """Extra weight a of the reconstruction in the beginning: it counts 1 + a times, the divergences 1 / (1 + a) times."""
    halving_steps: int = 300  # Iterations after which the extra weight is halved, again and again; an epoch of the paper's.
    max_slope: float = 0.5  # Largest entry of the gradient; larger ones are cut to it, as in the published code.

    def __post_init__(self) -> None:
        if not 0.0 <= self.extra_weight < float("inf"):
            raise ValueError(f"bound.extra_weight must be at least 0 and finite, got {self.extra_weight}")
        if self.halving_steps < 1:
            raise ValueError(f"bound.halving_steps must be at least 1, got {self.halving_steps}")
        if not self.max_slope > 0.0:
            raise ValueError(f"bound.max_slope must be positive, got {self.max_slope}")

    def weight_after(self, num_steps: int) -> float:
        """The weight of the reconstruction after `num_steps` steps."""
        return 1.0 + self.extra_weight * 0.5 ** (num_steps // self.halving_steps)


@dataclass(frozen=True)
class Config:
    """Settings of the Neural Statistician on pictures."""

    outer: GradientOuter = field(default_factory=GradientOuter)
    network: Annotated[NetworkConfig, tyro.conf.arg(name="")] = field(default_factory=NetworkConfig)
    bound: BoundConfig = field(default_factory=BoundConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    divergence: Literal["of_class", "of_query"] = "of_class"
    """Divergence by which the nearest class is chosen. of_class: KL(q(c | class) || q(c | query)), as in Algorithm 4.
    of_query: the other way round."""


class State(NamedTuple):
    """Everything that is learned or carried along."""

    params: Params
    adam: Moments
    running: Params  # averages of normalisation


class Summary(NamedTuple):
    """What has been seen of each class: sums over its instances, so that more can be added."""

    totals: Tensor  # [N, W, H]
    counts: Tensor  # [N, W]


class Batch(NamedTuple):
    """Sets that are normalised together."""

    sets: Tensor  # [S, K, ...]
    shots: int  # those of each set that a class is recognised by in the training score; the others are asked about


class NeuralStatistician:
    """A learner that maximises a lower bound on the likelihood of sets. It uses no labels but which set is which.

    A task's adaptation is the sum of its instances for each class: the statistic network's mean, not yet divided.
    """

    def __init__(self, model: Statistician, adam: AdamConfig, bound: BoundConfig, threads: Threads):
        self.model, self._adam, self._bound, self._threads = model, adam, bound, threads

    def init(self, key: Key) -> State:
        params = self.model.init(_generator(key))
        return State(params, init_moments(flatten(params)), init_averages(params))

    def ascend(self, state: State, batches: Sequence[Batch], key: Key) -> tuple[State, dict[str, float]]:
        """Take one step of Adam on the mean bound of one observation; each batch has a thread and is normalised by
        itself."""
        leaves, num_steps = as_leaves(state.params), int(state.adam.num_steps)
        weight = self._bound.weight_after(num_steps)

        def of_batch(place: int) -> tuple[Tensor, Params, dict[str, float]]:
            return self._slope(leaves, batches[place], weight, _generator(key, place, NOISE), state.running)

        slopes, moments, metrics = zip(*self._threads.map(of_batch, range(len(batches))), strict=True)
        slope = _mean(slopes).clamp_(-self._bound.max_slope, self._bound.max_slope)
        vector, adam = adam_step(flatten(state.params), slope, state.adam, self._adam)
        share = max(MOMENTUM, 1.0 / (num_steps + 1))  # at first a plain average, since there is nothing before
        running = {
            name: value + share * (_mean([each[name] for each in moments]) - value)
            for name, value in state.running.items()
        }
        means = {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}
        moved = State(unflatten(vector, state.params), adam, running)
        return moved, means | {"gradient_norm": slope.norm().item()}

    def begin(self, state: State, num_tasks: int, key: Key) -> Summary:
        """No class, of which nothing has been seen."""
        return Summary(torch.zeros(num_tasks, 0, self.model.sizes.hidden_size), torch.zeros(num_tasks, 0))

    def num_gradient_steps(self, adapted: Summary) -> int:
        return 0

    def instances(self, state: State, observations: Tensor) -> Tensor:
        """What the statistic is a sum of: observations [..., K, ...] of the coder's to [..., K, H]."""
        return _instances(self.model, state.params, state.running, observations)

    def about(self, state: State, seen: Summary) -> Gaussian:
        """q(c | D) of each class, [N, W, C]; the prior where nothing has been seen."""
        return _about(self.model, state.params, state.running, seen)

    def imagine(self, state: State, seen: Summary, num: int, key: Key) -> Tensor:
        """The means of `num` new observations of each class: [N, W, num, ...].

        The context is the posterior's mean, and z is drawn from its prior given the context.
        """
        context = self.about(state, seen).mean.flatten(0, 1)
        shape = (self.model.sizes.num_latents, len(context), num, self.model.sizes.latent_size)
        noise = torch.randn(shape, generator=_generator(key))
        with torch.no_grad():
            found = self.model.imagine(state.params, context, noise, by_averages(state.params, state.running))
        return found.unflatten(0, (*seen.counts.shape, num))

    def _slope(
        self, leaves: Params, batch: Batch, weight: float, generator: torch.Generator, running: Params
    ) -> tuple[Tensor, Params, dict[str, float]]:
        """The gradient [P] of one batch's loss, the moments of its normalisation, and what is to be logged."""
        moments: Params = {}
        noise = draw_noise(self.model.sizes, *batch.sets.shape[:2], generator)
        count = batch.sets.shape[0] * batch.sets.shape[1]
        with torch.enable_grad():
            bound, instances, means = self.model.bound(leaves, batch.sets, noise, by_batch(leaves, moments))
            parts = Bound(*(part.sum() / count for part in bound))
            loss = (parts.context + parts.latents) / weight - weight * parts.reconstruction
            slopes = torch.autograd.grad(loss, list(leaves.values()))
        values = {name: part.item() for name, part in parts._asdict().items()}
        metrics = {"bound": parts.total.item(), **{f"bound_{name}": value for name, value in values.items()}}
        metrics |= self.score_of(leaves, running, batch, instances.detach(), means)
        return torch.cat([slope.reshape(-1) for slope in slopes]), moments, metrics

    def score_of(
        self, params: Params, running: Params, batch: Batch, instances: Tensor, means: Tensor
    ) -> dict[str, float]:
        """Further metrics of a batch in training, from its instances [S, K, H] and what it is decoded to."""
        raise NotImplementedError


class PictureStatistician(NeuralStatistician):
    """The learner on few-shot episodes: all drawings of a class in an episode, support and query, are a set."""

    def __init__(
        self, config: Config, shape: PictureShape, collector: Collector, threads: Threads
    ):
        model = Statistician(PictureCoder(shape.side, config.network.num_filters), config.network.sizes)
        super().__init__(model, config.outer.gradient, config.bound, threads)
        self._config, self._collector = config, collector

    def meta_step(self, state: State, tasks: Sequence[Episode], key: Key) -> tuple[State, Report]:
        clock = Clock()
        with clock("sample_seconds"):
            parts = [self._collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1)]
            by_class = [part.images.unflatten(1, (len(tasks[0].classes), -1)) for part in parts]
            shots = by_class[0].shape[2]
            batches = []
            for place, sets in enumerate(torch.cat(by_class, dim=2)):  # [ways, K + Q, H, W, 1]
                generator = _generator(key, place, AUGMENTATION)
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
        counts = torch.full((1, len(known)), float(batch.shots))
        classes = _about(self.model, detached, running, Summary(known.sum(dim=1).unsqueeze(0), counts))
        flat = asked.flatten(0, 1).unsqueeze(0)
        queries = _about(self.model, detached, running, Summary(flat, torch.ones(flat.shape[:2])))
        answers = _closeness(classes, queries, self._config.divergence).argmax(dim=-1)
        right = answers[0] == torch.arange(len(known)).repeat_interleave(asked.shape[1])
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
        learned = state.params | {f"{AVERAGES}{name}": value for name, value in state.running.items()}
        classes = {f"{CLASSES}{name}": value for name, value in self.about(state, adapted)._asdict().items()}
        network = NearestPosterior(self.model, self._config.divergence)
        return Actor(network, stack(learned, num_tasks(adapted)) | classes)


@dataclass(frozen=True)
class NearestPosterior(FeedForward):
    """A network that scores each class by minus the divergence between what is believed about it and about the picture
    (Algorithm 4). The classes are among its parameters."""

    model: Statistician
    divergence: Literal["of_class", "of_query"]

    def step(
        self, params: Params, memory: tuple[()], observation: Examples, previous: Previous | None
    ) -> tuple[Tensor, tuple[()]]:
        """Scores [N, B, ways] of the pictures."""
        classes = Gaussian(*(params[f"{CLASSES}{name}"] for name in Gaussian._fields))
        if not classes.mean.shape[1]:
            raise ValueError("the support must hold pictures, got none: adapt before acting")
        learned = {name: value for name, value in params.items() if not name.startswith(CLASSES)}
        own = take_task(learned, 0)  # learned once, for all tasks
        running = {name.removeprefix(AVERAGES): v for name, v in own.items() if name.startswith(AVERAGES)}
        found = _instances(self.model, own, running, observation.images)
        queries = _about(self.model, own, running, Summary(found, torch.ones(found.shape[:2])))
        return _closeness(classes, queries, self.divergence), ()


def draw_noise(sizes: Sizes, num_sets: int, size: int, generator: torch.Generator) -> Noise:
    """Everything random in one evaluation of the bound. Sample dropout keeps 1 .. K observations of each set, each number
    as likely as any other."""
    ranks = torch.rand(num_sets, size, generator=generator).argsort(dim=-1)
    number = torch.randint(1, size + 1, (num_sets, 1), generator=generator)
    context = torch.randn(num_sets, sizes.context_size, generator=generator)
    latents = torch.randn(sizes.num_latents, num_sets, size, sizes.latent_size, generator=generator)
    return Noise((ranks < number).float(), context, latents)


def _instances(model: Statistician, params: Params, running: Params, observations: Tensor) -> Tensor:
    """[N, B, ...] to [N, B, H]."""
    normalise = by_averages(params, running)
    with torch.no_grad():
        features = model.coder.encode(params, observations.flatten(0, 1), normalise)
        return model.instances(params, features, normalise).unflatten(0, observations.shape[:2])


def _about(model: Statistician, params: Params, running: Params, seen: Summary) -> Gaussian:
    """q(c | D) of each class, [N, W, C]; the prior where nothing has been seen."""
    counts = seen.counts.flatten()
    means = seen.totals.flatten(0, 1) / counts.clamp(min=1.0).unsqueeze(-1)
    with torch.no_grad():
        found = model.context(params, means, counts, by_averages(params, running))
    is_seen = (counts > 0).unsqueeze(-1)
    return Gaussian(*(torch.where(is_seen, each, 0.0).unflatten(0, seen.counts.shape) for each in found))


def _closeness(classes: Gaussian, queries: Gaussian, divergence: Literal["of_class", "of_query"]) -> Tensor:
    """Minus the divergence of every query [N, B, C] and class [N, W, C]: [N, B, W]."""
    known, asked = Gaussian(*(x.unsqueeze(1) for x in classes)), Gaussian(*(x.unsqueeze(2) for x in queries))
    return -(kl(known, asked) if divergence == "of_class" else kl(asked, known))


def _generator(key: Key, *path: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(key.rng(*path).integers(2**63)))


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean in the order of the tensors, so that its bits depend on nothing else."""
    total = tensors[0]
    for each in tensors[1:]:
        total = total + each
    return total / len(tensors)


def build(context: Context, config: Any) -> PictureStatistician:
    shape = context.details.shape
    if shape.num_channels != 1:
        raise ValueError(
            f"channels must be grey for learner {ENTRY.name}, whose pixels are ink or paper, but the pictures are in "
            "colour: add --channels grey"
        )
    return PictureStatistician(config, shape, context.family.collector, context.threads)


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
    """The protocol with a quarter of the channels, half of the iterations and a learning rate that decays to zero."""
    outer = GradientOuter(gradient=AdamConfig(decay="cosine", decay_steps=FAST_ITERATIONS))
    config = replace(paper.config, outer=outer, network=NetworkConfig(num_filters=16))
    return paper._replace(num_iterations=FAST_ITERATIONS, config=config)


FAST_ITERATIONS = 20_000

ENTRY = Entry(
    "neural-statistician",
    "Neural Statistician (Edwards and Storkey 2017)",
    {"pictures": Config},
    build,
    devices=("cpu",),
    any_ways=True,
    paper=omniglot,
    presets={"fast": faster},
)
