"""From a config to a learner: which there are, and what each needs."""

from __future__ import annotations

from typing import Any

from maml_rl.config import RunConfig
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


def require_adapting(config: RunConfig, family: TaskFamily) -> None:
    """
    Raises:
        ValueError: if no parameter adapts.
    """
    config.inner.sizes_for(family.init_params(Key(config.seed, INITIALISATION, 0)), ())


def _in_words(settings: dict[str, Any]) -> str:
    return " and ".join(f"{name} {value}" for name, value in settings.items())
