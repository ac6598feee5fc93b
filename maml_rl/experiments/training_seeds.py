"""Training of an experiment's seeds, one after the other or side by side in processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

from maml_rl.core.lift import available_cores
from maml_rl.experiments.build import build, require_tasks, with_pictures
from maml_rl.experiments.experiment import Experiment, is_experiment, with_seeds
from maml_rl.experiments.films import make_filming
from maml_rl.experiments.saved_config import from_dict, to_dict
from maml_rl.experiments.training import Job, build_new, complete, require_completable
from maml_rl.sampling.processes import end_with_parent
from maml_rl.storage.checkpoint import CheckpointError
from maml_rl.storage.log import LogError
from maml_rl.storage.run_folder import claimed
from maml_rl.training.interrupts import ENDING, Interrupted, Interrupts, exit_on_signals
from maml_rl.training.trackers import Tracker, make_trackers
from maml_rl.training.trainer import TrainingError

FAILURES = (CheckpointError, LogError, TrainingError)
"""Errors that end one seed and leave the others as they are."""

_SPAWN = multiprocessing.get_context("spawn")


class Ended(NamedTuple):
    """The end of an experiment, or of this part of it."""

    interrupted_by: int | None  # the signal's number
    failed: list[int]  # seeds whose training cannot go on


class Shown(NamedTuple):
    """What is shown of each run while it trains."""

    film_every: int = 0  # iterations; 0 for no films
    track: tuple[Tracker, ...] = ("tensorboard",)


def begin_experiment(experiment: Experiment, shown: Shown, or_beside: bool = False) -> Experiment:
    """Check everything, then make the experiment's folder, or add to the one that exists.

    Args:
        or_beside: take a new folder, path-2, path-3, ... where the name is taken.
    Returns:
        The experiment in its folder, with the seeds that it had before.
    Raises:
        ValueError: if settings do not fit, or the folder holds something else; nothing has been made then.
    """
    first = experiment.config_of(experiment.seeds[0])
    Job(first, film_every=shown.film_every, callbacks=make_trackers(shown.track))  # refuses what it cannot have
    with contextlib.closing(build(first) if is_experiment(experiment.path) else build_new(first)) as built:
        require_tasks(built, in_training=True)
        if shown.film_every:
            make_filming(built, shown.film_every).close()
        experiment = experiment._replace(config=with_pictures(first, built))
    if or_beside:
        experiment = experiment._replace(path=claimed(experiment.path))
    else:
        experiment = with_seeds(experiment)
        for seed in experiment.seeds:
            require_completable(experiment.config_of(seed), experiment.folder_of(seed))
    experiment.save()
    return experiment


def train_in_turn(experiment: Experiment, shown: Shown) -> Ended:
    """Train one seed after the other to its end. A seed that fails is reported on stderr, and the next one follows."""
    failed: list[int] = []
    with Interrupts() as interrupts:
        for seed in experiment.seeds:
            try:
                with interrupts.allowed():
                    signum = complete(experiment.config_of(seed), experiment.folder_of(seed), *shown)
            except Interrupted as interruption:
                return Ended(interruption.signum, failed)
            except FAILURES as error:
                print(f"error: seed {seed}: {error}", file=sys.stderr)
                failed.append(seed)
                continue
            if signum is not None:
                return Ended(signum, failed)
    return Ended(None, failed)


def train_side_by_side(experiment: Experiment, jobs: int, shown: Shown) -> Ended:
    """Train up to `jobs` seeds at once, each in its own process, with its share of the cores unless the settings say
    how many threads. The numbers are those of `train_in_turn`."""
    config = experiment.config
    if config.num_threads == 0:
        config = dataclasses.replace(config, num_threads=max(1, available_cores() // min(jobs, len(experiment.seeds))))
    waiting, running = list(experiment.seeds), dict[int, SpawnProcess]()
    failed: list[int] = []
    with Interrupts() as interrupts:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    seed = waiting.pop(0)
                    own = to_dict(dataclasses.replace(config, seed=seed))
                    running[seed] = _SPAWN.Process(target=_train_one, args=(own, experiment.folder_of(seed), shown))
                    running[seed].start()
                with interrupts.allowed():
                    wait([process.sentinel for process in running.values()])
                for seed in [seed for seed, process in running.items() if not process.is_alive()]:
                    status = running.pop(seed).exitcode or 0
                    signum = -status if status < 0 else status - 128  # that killed it, or that it has handled
                    if signum in ENDING:
                        raise Interrupted(signum)
                    if status < 0:
                        print(f"error: seed {seed} was killed by {signal.Signals(-status).name}", file=sys.stderr)
                    failed += [seed] if status else []
        except Interrupted as interruption:
            for process in running.values():
                _stop(process, interruption.signum)
            for process in running.values():
                process.join()
            return Ended(interruption.signum, failed)
    return Ended(None, failed)


def _stop(process: SpawnProcess, signum: int) -> None:
    """Ask a process to end, as a terminal has done already on Ctrl-C: a second signal changes nothing."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(cast(int, process.pid), signum)


def _train_one(config: dict[str, Any], folder: Path, shown: Shown) -> None:
    """A process's life: train one seed, with its name before each line on stderr."""
    exit_on_signals()
    threading.Thread(target=end_with_parent, daemon=True).start()
    seed = config["seed"]
    sys.stderr = cast(TextIO, _Prefixed(f"seed {seed}: "))
    try:
        signum = complete(from_dict(config), folder, *shown)
    except (*FAILURES, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0 if signum is None else 128 + signum)


class _Prefixed(io.TextIOBase):
    """A stderr, not a terminal, that begins each line alike and writes lines whole, since others write there too."""

    def __init__(self, prefix: str):
        self._prefix, self._begun = prefix, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            with contextlib.suppress(OSError):  # nobody is reading it
                os.write(2, f"{self._prefix}{line}\n".encode(errors="replace"))
        return len(text)
