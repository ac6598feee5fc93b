"""From a config to a learner: which there are, and what each needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from maml_rl.config import OMNIGLOT, SINUSOID, RunConfig, Setting, flag_of
from maml_rl.core.lift import Threads
from maml_rl.core.protocols import INITIALISATION, Key, TaskFamily
from maml_rl.fewshot.gradient import JointClassifier, MAMLClassifier
from maml_rl.fewshot.matching import Matching
from maml_rl.fewshot.pixels import PixelNeighbour
from maml_rl.fewshot.protocol import FewShotLearner
from maml_rl.fewshot.prototypical import Prototypical
from maml_rl.fewshot.reptile import ReptileClassifier
from maml_rl.supervised.classification import ClassificationFamily

INNER_STEPS: dict[str, dict[str, Any]] = {
    "maml": {},
    "fomaml": {"first_order": True},
    "anil": {"only": ("head",)},
    "meta-sgd": {"learn_step_sizes": True},
}
"""The core's learner under its names, with the settings of `inner` that tell one from the others."""

CPU_ONLY = ("prototypical", "matching", "pixels")
"""Learners of which one episode at a time is too little for a GPU."""


def few_shot_learner(config: RunConfig, family: ClassificationFamily, threads: Threads) -> FewShotLearner:
    stream, network, inner, outer = family.stream, config.network, config.inner, config.outer
    sizes = config.evaluation.step_sizes
    if config.learner == "reptile":
        return ReptileClassifier(family, inner, config.inner_optimiser, outer.reptile, sizes, threads)
    if config.learner == "joint":
        return JointClassifier(family, inner, outer.gradient, sizes, threads)
    if config.learner == "prototypical":
        return Prototypical(stream, network, outer.gradient, threads)
    if config.learner == "matching":
        return Matching(stream, network, outer.gradient, config.matching, threads)
    if config.learner == "pixels":
        return PixelNeighbour(stream)
    return MAMLClassifier(family, inner, outer, sizes, threads)


def require_learner(config: RunConfig) -> None:
    """
    Raises:
        ValueError: if the learner is asked for what it cannot do, or the settings are another learner's.
    """
    name, inner = config.learner, config.inner
    if name not in INNER_STEPS and not config.is_few_shot:
        raise ValueError(
            f"learner {name} classifies pictures, but the run's environment is {config.env}: take --env omniglot, or a "
            f"learner among {list(INNER_STEPS)}"
        )
    wanted = INNER_STEPS.get(name, {})
    found = {setting: getattr(inner, setting) for setting in wanted}
    if found != wanted:
        raise ValueError(
            f"learner {name} needs {_in_words(wanted)} in inner, got {_in_words(found)}: set that or leave it"
        )
    if not config.is_few_shot or name in ("prototypical", "matching"):
        return
    episodes = config.episodes
    if name not in ("joint", "pixels") and episodes.training.ways < episodes.ways:
        raise ValueError(
            f"train_ways must be at least ways, {episodes.ways}, for learner {name}, got {episodes.training.ways}: its "
            "last layer has an output for each class of a training episode"
        )
    if config.network.norm == "running":
        raise ValueError(
            f"norm must be batch, support or none for learner {name}, got running: averages from before adaptation do "
            "not fit the adapted weights"
        )


class Use(NamedTuple):
    """Who reads some settings."""

    paths: tuple[Setting, ...]  # or beginnings of them
    is_read: bool  # in the run that is asked about
    readers: str
    asked: str  # what this run has in their place


def uses(config: RunConfig) -> list[Use]:
    """The settings that not every run reads."""
    is_rl = config.env != SINUSOID and not config.is_few_shot
    name, inner, outer, sampler = config.learner, config.inner, config.outer, config.sampling.sampler
    is_maml, takes_steps = name in INNER_STEPS, name not in CPU_ONLY
    uses_adam = name in ("joint", "prototypical", "matching") or (is_maml and outer.step == "gradient")
    uses_reptile = name == "reptile" or (is_maml and outer.step == "reptile")
    env, learner, step = f"--env {config.env}", f"--learner {name}", f"--outer.step {outer.step}"
    where, kin = f"--sampler {sampler}", f"learners {', '.join(INNER_STEPS)}"
    matching, optimiser = config.matching, config.inner_optimiser

    def use(paths: str, is_read: bool, readers: str, asked: str) -> Use:
        return Use(tuple(tuple(path.split(".")) for path in paths.split()), is_read, readers, asked)

    return [
        use("policy advantage inner.estimator sampling.sampler", is_rl, "task environments", env),
        use("sampling.episodes_per_task sampling.horizon", is_rl, "task environments", env),
        use("sampling.num_workers sampling.task_timeout sampling.ray_address", is_rl, "task environments", env),
        use("evaluation.split evaluation.episodes_per_task", is_rl, "task environments", env),
        use("sampling.num_workers sampling.task_timeout", sampler != "local", "--sampler processes or ray", where),
        use("sampling.ray_address", sampler == "ray", "--sampler ray", where),
        use("sinusoid", config.env == SINUSOID, f"--env {SINUSOID}", env),
        use("episodes.split", config.env == OMNIGLOT, f"--env {OMNIGLOT}", env),
        use("episodes network", config.is_few_shot, "few-shot classification", env),
        use("network", name != "pixels", "learners with a network", learner),
        use("network.head_std", is_maml or name == "reptile", "learners that adapt a last layer", learner),
        use("inner.num_steps inner.step_size", is_maml or name == "reptile", f"{kin}, and reptile", learner),
        use("inner.first_order inner.learn_step_sizes outer.step", is_maml, kin, learner),
        use("inner.first_order", outer.step != "reptile", "--outer.step trust_region or gradient", step),
        use("inner.only evaluation.num_steps", takes_steps, "learners that take gradient steps on a task", learner),
        use(
            "evaluation.first_step_size evaluation.later_step_size",
            takes_steps and not inner.learn_step_sizes,
            "learners that take gradient steps of a given size on a task",
            learner,
        ),
        use("outer.trust_region", is_maml and outer.step == "trust_region", "--outer.step trust_region", step),
        use("outer.gradient", uses_adam, "learners whose outer step is Adam's", f"{learner} {step}"),
        use("outer.gradient.decay_steps", outer.gradient.decay != "none", "a learning rate that decays", "decay none"),
        use("outer.reptile", uses_reptile, "learners whose outer step is Reptile's", f"{learner} {step}"),
        use("inner_optimiser", name == "reptile", "--learner reptile", learner),
        use("inner_optimiser.beta2 inner_optimiser.epsilon", optimiser.kind == "adam", "kind adam", "kind sgd"),
        use("matching", name == "matching", "--learner matching", learner),
        use("matching.scale", matching.distance == "cosine", "distance cosine", f"distance {matching.distance}"),
        use("matching.num_readings", matching.full_context, "--matching.full-context", "a run without it"),
    ]


def require_read(config: RunConfig, given: Mapping[Setting, Any], flag: Callable[[Setting], str] = flag_of) -> None:
    """Refuse settings that nothing in such a run would read.

    Args:
        given: settings that the user gave, where they differ from what holds otherwise.
        flag: how they are called on the command line.
    Raises:
        ValueError: if nothing in such a run reads one of them.
    """
    ignored: dict[Setting, str] = {}
    for use in uses(config):
        for path, value in given.items():
            if not use.is_read and any(path[: len(beginning)] == beginning for beginning in use.paths):
                ignored.setdefault(path, f"{flag(path)} {_value(value)} applies to {use.readers}, not to {use.asked}")
    if ignored:
        raise ValueError(f"{'; '.join(ignored.values())}: leave {'it' if len(ignored) == 1 else 'them'} out")


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def require_adapting(config: RunConfig, family: TaskFamily) -> None:
    """
    Raises:
        ValueError: if no parameter adapts.
    """
    config.inner.sizes_for(family.init_params(Key(config.seed, INITIALISATION, 0)), ())


def _in_words(settings: dict[str, Any]) -> str:
    return " and ".join(f"{name} {value}" for name, value in settings.items())
