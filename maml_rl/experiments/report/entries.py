"""What a report compares: runs by themselves, and the runs of one experiment taken together."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.experiment import is_experiment, runs_of
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.seeds import differences_but_seed


class Entry(NamedTuple):
    """One or more runs that differ in their seed alone."""

    label: str
    home: Path  # the folder of the experiment or of the first run
    runs: tuple[Path, ...]
    configs: tuple[RunConfig, ...]  # of each run

    @property
    def config(self) -> RunConfig:
        return self.configs[0]

    @property
    def seeds(self) -> list[int]:
        return [config.seed for config in self.configs]


def entries_of(paths: Sequence[Path]) -> list[Entry]:
    """The entries of a report: each experiment, and runs that differ in their seed alone as one.

    Raises:
        ConfigError: if a folder holds neither a run nor an experiment.
        ValueError: if a run is named twice, or runs are of different tasks.
    """
    found: list[Entry] = []
    for path in paths:
        runs = tuple(runs_of([path]))
        entry = Entry(path.resolve().name, path, runs, tuple(map(read_config, runs)))
        twin = None if is_experiment(path) else next((each for each in found if _is_sibling(each, entry)), None)
        if twin is None:
            found.append(entry)
        else:
            both = twin._replace(runs=twin.runs + entry.runs, configs=twin.configs + entry.configs)
            found[found.index(twin)] = both
    _require_once([run for entry in found for run in entry.runs])
    _require_same_tasks(found)
    names = Counter(entry.label for entry in found)
    return [_labelled(entry, str(entry.home) if names[entry.label] > 1 else entry.label) for entry in found]


def tasks_of(config: RunConfig) -> str:
    """A phrase for the tasks that a run is about."""
    if config.kind != "pictures":
        return config.env
    size = config.task.test
    return f"{config.env} {size.ways}-way {size.shots}-shot"


def as_tested(config: RunConfig, data_root: str | None, queries: int | None = None) -> RunConfig:
    """The config with the test classes of its pictures, if it is about pictures.

    Args:
        data_root: the folder that the user has named for them.
        queries: of each class, where others than the run's own are to be asked.
    """
    if config.kind != "pictures":
        return config
    task = dataclasses.replace(config.task.found_in(data_root).asking(None, None, queries), evaluate_on="test")
    return dataclasses.replace(config, task=task)


def _is_sibling(entry: Entry, run: Entry) -> bool:
    """Whether a run is another seed of an entry that was not named as an experiment."""
    return (
        not is_experiment(entry.home)
        and entry.config.learner == run.config.learner
        and run.config.seed not in entry.seeds
        and not differences_but_seed(entry.config, run.config)
    )


def _labelled(entry: Entry, name: str) -> Entry:
    return entry._replace(label=f"{name} ({len(entry.runs)} seeds)" if len(entry.runs) > 1 else name)


def _require_once(runs: Sequence[Path]) -> None:
    for run, count in Counter(run.resolve() for run in runs).items():
        if count > 1:
            raise ValueError(f"runs must be named once each, but {run} is named {count} times: leave it out")


def _require_same_tasks(entries: Sequence[Entry]) -> None:
    first, *others = entries
    for other in others:
        here, there = tasks_of(first.config), tasks_of(other.config)
        if here != there:
            raise ValueError(
                f"runs must be of the same tasks to be compared, but {first.home} is of {here} and {other.home} of "
                f"{there}: make a report of each"
            )
