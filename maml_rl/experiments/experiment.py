"""An experiment on disk: one folder with a run folder for each training seed, and the settings that they share.

experiment.json    format version, seeds, settings        seed-1/, seed-2/, ...    run folders
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from maml_rl.experiments.config import RunConfig, forbidden_changes
from maml_rl.experiments.migration import migrated
from maml_rl.experiments.saved_config import FORMAT_VERSION, from_dict, to_dict
from maml_rl.storage.atomic import write_atomically
from maml_rl.storage.run_folder import ConfigError, RunFolder, RunFolderError, read_settings

FILE = "experiment.json"


class Experiment(NamedTuple):
    """The runs of several training seeds, which need not have begun."""

    path: Path
    config: RunConfig  # its seed is the first one
    seeds: tuple[int, ...]

    @property
    def runs(self) -> list[Path]:
        """The folders of the runs that have begun, in the order of the seeds."""
        return [folder for folder in map(self.folder_of, self.seeds) if (folder / "config.json").exists()]

    def folder_of(self, seed: int) -> Path:
        return self.path / f"seed-{seed}"

    def config_of(self, seed: int) -> RunConfig:
        return dataclasses.replace(self.config, seed=seed)

    def save(self) -> None:
        """Make the folder, if it is new, and write seeds and settings into it.

        Raises:
            RunFolderError: if it cannot be made.
        """
        about = {"format_version": FORMAT_VERSION, "seeds": list(self.seeds), "config": to_dict(self.config)}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / FILE, f"{json.dumps(about, indent=1, allow_nan=False)}\n".encode())
        except OSError as error:
            raise RunFolderError(f"experiment {self.path} cannot be made: {error.strerror or error}") from error


def is_experiment(path: Path) -> bool:
    return (path / FILE).exists()


def read_experiment(path: Path) -> Experiment:
    """The experiment in a folder.

    Raises:
        ConfigError: if there is none, or its file is refused.
    """
    version, saved = read_settings(path / FILE, "experiment")
    seeds = saved.get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path / FILE} must list seeds, whole numbers of at least 0, got {seeds!r}")
    return Experiment(path, from_dict(migrated(version, saved["config"])), tuple(seeds))


def with_seeds(experiment: Experiment) -> Experiment:
    """The experiment with the seeds that its folder already has before its own; an experiment in a new folder as it is.

    Raises:
        ValueError: if something else is in the folder, or an experiment with other settings.
    """
    if not is_experiment(experiment.path):
        RunFolder.require_new(experiment.path)
        return experiment
    saved = read_experiment(experiment.path)
    config = dataclasses.replace(experiment.config, seed=saved.seeds[0])
    if forbidden := forbidden_changes(saved.config, config):
        raise ValueError(
            f"{experiment.path} holds an experiment with other settings ({'; '.join(forbidden)}): choose another "
            "--output-dir"
        )
    return Experiment(experiment.path, config, distinct([*saved.seeds, *experiment.seeds]))


def runs_of(paths: Sequence[Path]) -> list[Path]:
    """Run folders as they are, and in place of an experiment those of its runs.

    Raises:
        ConfigError: if an experiment's file is refused, or none of its runs has begun.
    """
    found: list[Path] = []
    for path in paths:
        runs = read_experiment(path).runs if is_experiment(path) else [path]
        if not runs:
            raise ConfigError(f"experiment {path} has no run yet: train it, maml-rl train --resume {path}")
        found += runs
    return found


def distinct(seeds: Iterable[int]) -> tuple[int, ...]:
    """Each seed once, where it is first named."""
    return tuple(dict.fromkeys(seeds))
