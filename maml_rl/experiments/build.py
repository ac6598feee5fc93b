"""Assembly of everything that a run needs from its config."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from maml_rl.core.contracts import Learner, State, TaskFamily
from maml_rl.core.keys import EVALUATION, TASKS, TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.memory import Part, require_memory
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, evaluation_tasks
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.evaluation.showings import Showings
from maml_rl.experiments import footprint
from maml_rl.experiments.config import IMAGES, OMNIGLOT, RunConfig
from maml_rl.experiments.environments import make_sampling, search_here
from maml_rl.experiments.spaces import numbers_of_task
from maml_rl.experiments.table import learner_entry, names_for
from maml_rl.experiments.trust import imports_of
from maml_rl.learners.entry import Context, Entry
from maml_rl.networks.convnet import NormPolicy
from maml_rl.policies.distribution import MeanActions
from maml_rl.rl.experience import EpisodeSampler, Return
from maml_rl.runtime import product_threads
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.supervised.ambiguous import ambiguous_family
from maml_rl.supervised.classification import (
    Accuracy,
    EpisodeCollector,
    EpisodeSource,
    PictureShape,
    PictureSpec,
)
from maml_rl.supervised.distributions import DistributionCollector, DistributionSource, LogDensity
from maml_rl.supervised.episodes import EpisodeStream, data_folder, make_streams
from maml_rl.supervised.sinusoid import SinusoidCollector, SinusoidSource, SquaredError
from maml_rl.supervised.sinusoid_or_line import SinusoidOrLineConfig, SinusoidOrLineSource

PICTURES_AT_ONCE = 1000
"""The most pictures in episodes that are evaluated together, to limit memory."""


@dataclass(frozen=True)
class Built:
    """A learner with its tasks, ready to be trained and evaluated."""

    config: RunConfig
    learner: Learner
    family: TaskFamily  # of training
    evaluation: Evaluation
    threads: Threads
    device: torch.device
    close: Callable[[], None]  # its environments and threads
    needs: footprint.Needs  # of memory; there is enough for evaluation
    hold_copies: Callable[
        [], None
    ]  # makes the copies of a user's environment that training takes; ValueError if it cannot
    spec: PictureSpec | None = None  # the pictures, where there are any
    given: Sequence[object] | None = None  # tasks to evaluate on in place of drawn ones

    @property
    def headline(self) -> tuple[str, ...]:
        """Columns to display."""
        metric = self.family.measure.metric
        return (f"{metric}_before", f"{metric}_after", "kl", "steps_per_s")

    def tasks(self) -> Sequence[object]:
        """The tasks of every evaluation."""
        if self.given is not None:
            return self.given
        return evaluation_tasks(self.evaluation.family.source, self.config.evaluation)

    def key(self, iteration: int) -> Key:
        """The key of an evaluation's noise. For given pictures it is the same in all iterations."""
        return Key(self.config.evaluation.seed, EVALUATION, 0 if self.config.kind == "pictures" else iteration)

    def curve(self, state: State, iteration: int) -> AdaptationCurve:
        """Scores on held-out tasks."""
        return self.evaluation.curve(self.learner, state, self.tasks(), self.key(iteration))

    def evaluate(self, state: State, iteration: int) -> dict[str, float]:
        """The curve as columns for the log."""
        columns: dict[str, float] = {}
        for each in self.curve(state, iteration).measures:
            names = [f"eval_{each.metric}_{step}" for step in each.steps]
            columns |= dict(zip(names, each.mean, strict=True))
            columns |= {
                f"{name}_ci95": half for name, half in zip(names, each.ci95, strict=True) if not math.isnan(half)
            }
        return columns


@dataclass(frozen=True)
class _Tasks:
    """A kind of tasks, ready for a learner."""

    training: TaskFamily
    held_out: TaskFamily  # with the evaluation's number of episodes
    details: object  # everything a learner needs to know about them
    needs: footprint.Needs
    judge: EpisodeSampler | None = None
    block_size: int | None = None
    closers: Sequence[Callable[[], None]] = ()
    hold_copies: Callable[[], None] = lambda: None


def build(config: RunConfig, task_range: tuple[float, float] | None = None, mean_actions: bool = False) -> Built:
    """Make the tasks, their collectors and the learner.

    Args:
        task_range: draw tasks from here in place of the range of training.
        mean_actions: score policies by episodes without action noise; adaptation keeps the noise.
    Raises:
        ValueError: if the environment is unknown or the settings do not fit it.
    """
    entry = require_learner(config)
    device = find_device(config.device)
    with contextlib.ExitStack() as opened:
        opened.enter_context(product_threads(1))
        threads = opened.enter_context(contextlib.closing(Threads(config.num_threads)))
        tasks = _make_tasks(config, entry, device, threads, task_range, mean_actions)
        for close in tasks.closers:
            opened.callback(close)
        steps = num_adaptations(config, entry)
        context = Context(config.kind, tasks.training, steps, threads, device, tasks.details, numbers_of_task)
        learner = entry.build(context, config.method)
        close_all = opened.pop_all().close
    evaluation = Evaluation(
        tasks.held_out,
        scored_after(steps, entry, config),
        tasks.judge,
        getattr(config.evaluation, "num_draws", 1),
        tasks.block_size,
    )
    spec = tasks.details if isinstance(tasks.details, PictureSpec) else None
    return Built(
        config,
        learner,
        tasks.training,
        evaluation,
        threads,
        device,
        close_all,
        tasks.needs,
        tasks.hold_copies,
        spec,
    )


def by_showings(built: Built) -> Built:
    """The same, evaluated by showings instead of support and query; see `require_showings`."""
    given = built.evaluation
    evaluation = Showings(given.family, given.scored_after, block_size=given.block_size, threads=built.threads)
    return dataclasses.replace(built, evaluation=evaluation)


def require_showings(config: RunConfig) -> None:
    """Refuse to evaluate by showings where a learner cannot take one picture after another, or episodes have none.

    Raises:
        ValueError: if it takes gradient steps or classifies no pictures, or if pictures can be read two ways.
    """
    name = config.learner
    if config.kind != "pictures" or learner_entry(name, config.kind).gradient_steps:
        fitting = [each for each in names_for("pictures") if not learner_entry(each, "pictures").gradient_steps]
        raise ValueError(
            f"protocol showings needs a learner among {fitting}, which take one picture after another, got {name}: "
            "take protocol support-query"
        )
    if config.task.rotations == "ambiguous":
        raise ValueError(
            "rotations must be classes, random or none with protocol showings, got ambiguous: a showing has one "
            "picture of each class, which ambiguous queries do not make up; take protocol support-query"
        )


def normalised_by(method: Any, norm: NormPolicy) -> Any:
    """The learner's settings with queries normalised in another way at test: "batch" in place of "support", or the
    other way round.

    Raises:
        ValueError: if the learner was trained without normalisation, or with running averages, which stay as they are.
    """
    if not normalises_by_episode(method):
        found = getattr(getattr(method, "network", None), "norm", "none")
        raise ValueError(f"norm must stay {found}, with which the run was trained, got {norm}")
    return dataclasses.replace(method, network=dataclasses.replace(method.network, norm=norm))


def normalises_by_episode(method: Any) -> bool:
    """Whether pictures are normalised by the episode in hand, in a way that another may replace at test."""
    return getattr(getattr(method, "network", None), "norm", "none") in ("batch", "support")


def in_test_batches(method: Any, learner: str, size: int) -> Any:
    """The learner's settings with so many pictures of the support in each gradient step at test.

    Raises:
        ValueError: if the learner takes no steps on mini-batches, or the size is below 1.
    """
    if not takes_mini_batches(method):
        raise ValueError(
            f"--test-batch-size {size} applies to learners that take steps on mini-batches of the support, not to "
            f"--learner {learner}: leave it out"
        )
    return dataclasses.replace(method, optimiser=dataclasses.replace(method.optimiser, test_batch_size=size))


def takes_mini_batches(method: Any) -> bool:
    """Whether gradient steps are taken on mini-batches of the support."""
    return hasattr(method, "optimiser")


def require_learner(config: RunConfig) -> Entry:
    """The learner's line in the table.

    Raises:
        ValueError: if the learner is asked for what it cannot do, or the settings are another learner's.
    """
    entry = learner_entry(config.learner, config.kind)
    entry.require(config.method)
    if config.kind == "pictures":
        entry.require_episodes(config.method, config.task, config.training.num_tasks)
    if config.device.split(":")[0] not in entry.devices:
        raise ValueError(f"device must be {' or '.join(entry.devices)} for learner {entry.name}, got {config.device}")
    if config.kind == "pictures" and not entry.any_ways and config.task.training.ways < config.task.ways:
        raise ValueError(
            f"train_ways must be at least ways, {config.task.ways}, for learner {entry.name}, got "
            f"{config.task.training.ways}: its last layer has an output for each class of a training episode"
        )
    return entry


def num_adaptations(config: RunConfig, entry: Entry) -> int:
    """The number of adaptations to a task in evaluation: learners that take no steps see given pictures or numbers
    once."""
    is_given = config.kind in ("pictures", "density")
    return config.evaluation.num_steps if entry.gradient_steps or not is_given else 1


def scored_after(last: int, entry: Entry, config: RunConfig) -> tuple[int, ...]:
    """The numbers of adaptations after which tasks are scored: all; on pictures 0, 1, ... 10, 20, 30, ... and the last
    gradient step or, for learners that take no steps, once all pictures have been seen."""
    if config.kind == "pictures" and not entry.gradient_steps:
        return (last,)
    if config.kind != "pictures":
        return tuple(range(last + 1))
    return tuple(s for s in range(last + 1) if s <= 10 or s % 10 == 0 or s == last)


def _make_tasks(
    config: RunConfig,
    entry: Entry,
    device: torch.device,
    threads: Threads,
    task_range: tuple[float, float] | None,
    mean_actions: bool,
) -> _Tasks:
    if config.kind == "reinforcement":
        return _reinforcement(config, entry, threads, task_range, mean_actions)
    if mean_actions:
        raise ValueError(f"mean actions need a policy, but the run's environment is {config.env}: leave that out")
    if config.kind == "regression":
        return _regression(config, device, threads, task_range)
    if task_range is not None:
        raise ValueError(f"task ranges do not apply to {config.env}: leave them out")
    if config.kind == "density":
        return _density(config, device, threads)
    return _pictures(config, device, threads)


def _reinforcement(
    config: RunConfig,
    entry: Entry,
    threads: Threads,
    task_range: tuple[float, float] | None,
    mean_actions: bool,
) -> _Tasks:
    for each in imports_of(config):
        if each.purpose == "network":  # the environment is looked for here, too
            search_here(each.name.partition(":")[0])
    sampling = make_sampling(config, threads, task_range, entry.in_a_row)
    closers = [sampling.close]
    try:
        source, measure = sampling.source, Return()
        number = config.as_evaluated.task.sampling.episodes_per_task
        learning = judging = sampling.collector()
        training = TaskFamily(source, learning, measure)
        held_out, judge = training, None
        if config.as_evaluated != config:
            judging = sampling.collector(number)
            held_out = TaskFamily(source, judging, measure)
        if mean_actions:
            judge = sampling.collector(number, MeanActions(sampling.spec.distribution))
    except BaseException:
        sampling.close()
        raise

    def hold_copies() -> None:
        tasks_of = {learning: config.training.num_tasks}
        if config.training.evaluate_every:
            tasks_of[judging] = max(config.evaluation.num_tasks, tasks_of.get(judging, 0))
        for collector, num_tasks in tasks_of.items():
            collector.sampler.hold(num_tasks)

    return _Tasks(training, held_out, sampling.spec, sampling.needs, judge, closers=closers, hold_copies=hold_copies)


def _regression(
    config: RunConfig, device: torch.device, threads: Threads, task_range: tuple[float, float] | None
) -> _Tasks:
    settings = config.task
    if task_range is not None:
        settings = dataclasses.replace(settings, amplitude_range=task_range)
    needs = footprint.sinusoid(config)
    require_memory(needs.evaluation)
    has_lines = isinstance(settings, SinusoidOrLineConfig)
    source = SinusoidOrLineSource(settings) if has_lines else SinusoidSource(settings)
    collector, measure = SinusoidCollector(settings, device, threads), SquaredError(settings.noise_std)
    family = TaskFamily(source, collector, measure)
    return _Tasks(family, family, settings, needs)


def _density(config: RunConfig, device: torch.device, threads: Threads) -> _Tasks:
    needs = footprint.distributions(config)
    require_memory(needs.evaluation)
    collector = DistributionCollector(config.task, device, threads)
    family = TaskFamily(DistributionSource(config.task), collector, LogDensity())
    return _Tasks(family, family, config.task, needs)


def _pictures(config: RunConfig, device: torch.device, threads: Threads) -> _Tasks:
    """Tasks of few-shot classification.

    Raises:
        ValueError: if the data are missing, damaged or too few, or the settings do not fit.
    """
    network = getattr(config.method, "network", None)
    _require_size(config)
    streams = make_streams(config.task, config.env == OMNIGLOT)
    held_out = streams.of_part(config.task.evaluate_on)
    spec = picture_spec(streams.training)
    needs = footprint.few_shot(config, spec.shape.num_channels)
    require_memory(needs.evaluation)
    collector = EpisodeCollector(spec.data, "batch" if network is None else network.norm, device, threads)
    family = TaskFamily(EpisodeSource(streams.training, held_out), collector, Accuracy())
    if config.task.rotations == "ambiguous":
        family = ambiguous_family(streams.training, held_out, device, threads)
    ways, shots, queries = held_out.size
    return _Tasks(family, family, spec, needs, block_size=max(1, PICTURES_AT_ONCE // (ways * (shots + queries))))


def _require_size(config: RunConfig) -> None:
    """Refuse pictures that are too small or too large.

    Raises:
        ValueError: if pictures are too small for the network, or so large that not even one fits into memory.
    """
    network, size = getattr(config.method, "network", None), config.task.images.image_size
    if network is None:
        return
    network.num_features(size)
    needed = network.first_map_bytes(size)
    require_memory([Part("the network's first maps of one picture", needed, "lower num_filters or image_size")])


def with_pictures(config: RunConfig, built: Built) -> RunConfig:
    """The same config with its pictures named permanently: their folder by its absolute path and, if they are the
    user's own, their fingerprint."""
    if built.spec is None or built.spec.data is None:
        return config
    named = config.task.data_root is not None or config.env == IMAGES
    root = data_folder(config.task.data_root) if named else None  # every machine finds Omniglot by itself
    task = dataclasses.replace(
        config.task, data_root=None if root is None else str(root), fingerprint=built.spec.data.fingerprint
    )
    return dataclasses.replace(config, task=task)


def picture_spec(training: EpisodeStream) -> PictureSpec:
    """The facts about its pictures that a learner needs."""
    _, side, _, channels = training.data.images.shape
    return PictureSpec(PictureShape(side, channels, training.size.ways), training.data, training.classes)


def require_tasks(built: Built, in_training: bool) -> None:
    """Draw the tasks of the first iteration and of the evaluations once, as the run will.

    Args:
        in_training: whether the run is to be trained; otherwise it is evaluated only.
    Raises:
        ValueError: if there are not as many as the settings ask for.
    """
    config = built.config
    try:
        if in_training:
            rng = Key(config.seed, TRAINING, 0).rng(TASKS)
            built.family.source.sample_tasks(config.training.num_tasks, rng)
        if config.training.evaluate_every or not in_training:
            built.tasks()
    except SamplingError as error:
        raise ValueError(str(error)) from None


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: if torch cannot use it.
    """
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"device {name} must be a GPU that torch can use, but torch {torch.__version__} finds {count}: "
            "take --device cpu, or install the torch wheel that fits your CUDA"
        )
    if device.type == "cuda":  # by default torch rounds the factors of convolutions to 10 bits there
        torch.backends.cudnn.allow_tf32 = False
    return device
