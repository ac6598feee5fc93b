"""A preset fitted to the user's folder of pictures: it asks for no more classes and pictures than there are."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

from maml_rl.experiments.config import IMAGES, RunConfig
from maml_rl.supervised.episodes import EpisodeConfig, Supply, supplies

FITTED = ("ways", "train_ways", "train_shots", "queries", "test_queries")
"""Settings of episodes that are lowered from a preset's where the user has fewer pictures."""


def fitted_to_folder(
    default: RunConfig,
    given: RunConfig,
    default_for: Callable[[int], RunConfig],
    with_given: Callable[[RunConfig], RunConfig],
) -> tuple[RunConfig, RunConfig]:
    """Default settings that ask for no more pictures than the user's folder has, and the user's settings on top of
    them; a note on stderr says what is lower than in `given`. Tasks other than the user's pictures stay as they are.

    Args:
        default: a preset's settings.
        given: the same with what the user gave.
        default_for: makes a preset's settings for a number of classes in an episode.
        with_given: puts what the user gave on top of default settings.
    Raises:
        DataError: if the user's folder is missing or has no pictures.
    """
    if given.env != IMAGES:
        return default, given
    supply = supplies(given.task)
    default = default_for(most_ways(given.task, *supply))
    default = dataclasses.replace(default, task=fitted(default.task, given.task, *supply))
    config = with_given(default)
    if note := fitting_in_words(given.task, config.task, *supply):
        print(f"note: {note}", file=sys.stderr)
    return default, config


def most_ways(chosen: EpisodeConfig, train: Supply, held_out: Supply) -> int:
    """The largest number of classes in an episode, up to the chosen one, that the pictures allow."""
    few = held_out.num_classes if chosen.train_ways else min(train.num_classes, held_out.num_classes)
    return max(2, min(chosen.ways, few))


def fitted(chosen: EpisodeConfig, given: EpisodeConfig, train: Supply, held_out: Supply) -> EpisodeConfig:
    """`chosen` with no more training classes, and no more pictures of a class, than there are.

    Args:
        chosen: a preset's.
        given: the same with what the user gave, which is left as it is.
        train, held_out: the classes to learn from, and those that evaluate.
    """
    now = {name: getattr(given, name) for name in FITTED[1:]}
    free = {name for name, value in now.items() if value is not None and value == getattr(chosen, name)}

    def limit(name: str, most: int, least: int = 1) -> None:
        if name in free:
            now[name] = max(least, min(now[name], most))

    limit("train_ways", train.num_classes, least=2)
    limit("queries", train.fewest - (now["train_shots"] or given.shots))
    limit("train_shots", train.fewest - now["queries"])
    limit("test_queries", held_out.fewest - given.shots)
    return dataclasses.replace(chosen, **{name: now[name] for name in free})


def fitting_in_words(before: EpisodeConfig, after: EpisodeConfig, train: Supply, held_out: Supply) -> str | None:
    """A sentence on what `fitted` and `most_ways` have lowered, if anything."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in FITTED}
    lowered = [f"{name} is {new} in place of {old}" for name, (old, new) in pairs.items() if old != new]
    if not lowered:
        return None
    return f"{', '.join(lowered)}: there are {train} to train on, and {held_out} to evaluate on"
