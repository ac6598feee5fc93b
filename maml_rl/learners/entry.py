"""A learner's entry in the table: its names, settings, kinds of tasks and its paper's protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from numpy.typing import NDArray

from maml_rl.core.contracts import Learner, TaskFamily
from maml_rl.core.lift import Threads
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.supervised.episodes import EpisodeConfig

Kind = Literal["reinforcement", "regression", "pictures", "density"]
"""Kinds of tasks: episodes of an environment; sinusoids; few-shot classification of pictures; densities of numbers."""


@dataclass(frozen=True)
class Context:
    """Everything a learner is built from besides its own settings."""

    kind: Kind
    family: TaskFamily  # of training
    num_adaptations: int  # at test
    threads: Threads
    device: torch.device
    details: Any  # reinforcement: PolicySpec; pictures: PictureSpec; others: the settings of the tasks
    numbers_of: Callable[[Any], NDArray] | None = None
    """A task in numbers, where an environment's tasks are trained on; it raises ValueError if a task has none."""


class Protocol(NamedTuple):
    """A paper's way to train and test on pictures."""

    num_iterations: int
    num_tasks: int  # in an outer update
    episodes: EpisodeConfig
    evaluation: EvaluationConfig
    config: Any  # the learner's own settings
    evaluate_every: int = 500  # iterations


def omniglot_protocol(ways: int, shots: int, num_iterations: int, num_steps: int, config: Any) -> Protocol:
    """The form of the MAML paper's protocol on Omniglot: as many queries as shots, fewer tasks where classes are many.

    Args:
        num_steps: gradient steps at test.
        config: the learner's settings.
    """
    return Protocol(
        num_iterations,
        num_tasks=32 if ways < 10 else 16,
        episodes=EpisodeConfig(ways=ways, shots=shots, queries=shots),
        evaluation=EvaluationConfig(num_tasks=100, num_steps=num_steps),
        config=config,
    )


def require_classes(learner: str, episodes: EpisodeConfig) -> None:
    """Refuse episodes without classes of the data, for learners that learn from these.

    Raises:
        ValueError: if pictures can be read two ways.
    """
    if episodes.rotations == "ambiguous":
        raise ValueError(
            f"rotations must be classes, random or none for learner {learner}, got ambiguous: it learns from the "
            "classes of an episode, which a character that can be read two ways does not have; take --learner maml or "
            "platipus"
        )


TRAINING_ONLY = ("adam/", "inner_kl")
"""Prefixes of an outer step's memory among a state's tensors."""

SECOND = "learners that differentiate through the steps"
WHOLE_PATH = "learners that weigh the losses before the steps, too"


def _nothing(*settings: Any) -> None:
    """Accept any settings."""


@dataclass(frozen=True)
class Entry:
    """One learner in the table."""

    name: str
    summary: str  # one line for --help
    configs: Mapping[Kind, Callable[[], Any]]  # the kinds of tasks that it takes, with the default settings for each
    build: Callable[[Context, Any], Learner]  # (context, settings)
    devices: tuple[str, ...] = ("cpu", "cuda")
    gradient_steps: bool = False  # it takes them on each task, so the evaluator may score after each of them
    any_ways: bool = False  # once trained, it classifies any number of classes
    draws: bool = False  # its actors are draws from a posterior: on given data evaluation takes several of them
    outer_steps: tuple[str, ...] = ("trust_region", "proximal", "gradient")  # that it may take where it has a choice
    unread: Mapping[str, str] = field(default_factory=dict)
    """Settings that it has beside others of their group and never reads: names with dots, in words who reads them."""
    training_only: tuple[str, ...] = TRAINING_ONLY
    """Prefixes of the names of tensors in its state that predictions do not need, so that shipped runs may lack them"""
    in_a_row: bool = False  # it plays a task's episodes one after the other and keeps its memory between them
    require: Callable[[Any], None] = _nothing  # raises ValueError for settings that are another learner's
    require_episodes: Callable[[Any, EpisodeConfig, int], None] = _nothing
    """(settings, episodes, number in an outer update): raises ValueError if these pictures are not for it"""
    paper: Callable[[int, int], Protocol] | None = None  # (ways, shots) -> its protocol on Omniglot
    presets: Mapping[str, Callable[[Protocol], Protocol]] = field(default_factory=dict)  # by name, from the paper's

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(self.configs)
