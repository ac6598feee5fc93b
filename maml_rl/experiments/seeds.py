"""The runs of one experiment: equal settings, different seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maml_rl.experiments.config import RunConfig, forbidden_changes


def require_one_experiment(saved: Sequence[tuple[Path, RunConfig]]) -> None:
    """Refuse runs that differ in more than their seed, the runs that they begin with or learn from, and what a resumed
    run may change.

    Args:
        saved: each run's folder and settings.
    Raises:
        ValueError: if two runs differ in another setting, or have the same seed.
    """
    (first, own), *others = saved
    seeds = {own.seed: first}
    for path, config in others:
        if differences := differences_but_seed(own, config):
            raise ValueError(
                f"runs must be of one experiment and differ in their seed alone, but from {first} to {path} "
                f"{differences[0]}: evaluate each by itself"
            )
        if config.seed in seeds:
            raise ValueError(
                f"runs must differ in their seed, but {seeds[config.seed]} and {path} both have seed {config.seed}: "
                "leave one out"
            )
        seeds[config.seed] = path


def differences_but_seed(own: RunConfig, other: RunConfig) -> list[str]:
    """Sentences about the settings in which two runs differ, except the seed, the expert's run, the run that each
    begins with, if both begin with one, and what a resumed run may change."""
    left_out = ("seed ", "method.expert ", *(("init_from ",) if own.init_from and other.init_from else ()))
    return [each for each in forbidden_changes(own, other) if not each.startswith(left_out)]


def require_equal_progress(iterations: Sequence[tuple[Path, int]]) -> None:
    """Refuse last checkpoints that are of different iterations.

    Raises:
        ValueError: with two runs that are.
    """
    (first, reached), *others = iterations
    for path, iteration in others:
        if iteration != reached:
            raise ValueError(
                f"runs must have come equally far, but {first} is at iteration {reached} and {path} at {iteration}: "
                "train on, or take --checkpoint best"
            )
