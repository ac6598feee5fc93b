"""A run from its settings to its last checkpoint: check, begin or resume, train."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from maml_rl.core.memory import require_memory
from maml_rl.experiments.build import Built, build, require_tasks, with_pictures
from maml_rl.experiments.config import RunConfig, forbidden_changes, with_settled
from maml_rl.experiments.environments import environment_remarks, measured
from maml_rl.experiments.films import make_filming
from maml_rl.experiments.runs import read_config, require_same_observations
from maml_rl.experiments.saved_config import to_dict
from maml_rl.experiments.warm_start import begun_anew, warm_start, with_settings_of_start
from maml_rl.storage.checkpoint import Checkpoint, load_latest
from maml_rl.storage.run_folder import RunFolder
from maml_rl.training.callbacks import Callback, require_callbacks
from maml_rl.training.trackers import Tracker, make_trackers
from maml_rl.training.trainer import (
    Filming,
    Trainer,
    TrainingResult,
    first_checkpoint,
    has_begun,
    require_resumable,
)


def without_cluster(saved: RunConfig) -> RunConfig:
    """The settings of a run that is resumed, without its cluster, which only the user who resumes it may choose."""
    if saved.kind != "reinforcement":
        return saved
    sampling = dataclasses.replace(saved.task.sampling, ray_address=None)
    return dataclasses.replace(saved, task=dataclasses.replace(saved.task, sampling=sampling))


def note_cluster(saved: RunConfig, resumed: RunConfig) -> None:
    """Print a note if a run that was sampled on a cluster goes on without it."""
    if saved.kind != "reinforcement":
        return
    address, now = saved.task.sampling.ray_address, resumed.task.sampling
    if address is not None and now.sampler == "ray" and now.ray_address is None:
        print(
            f"note: sampling on this machine alone, not on the Ray cluster {address!r} that the saved run names: to "
            "join it, give --ray-address again",
            file=sys.stderr,
        )


def require_own_directory(run: Path, config: RunConfig) -> None:
    """Refuse to resume a run from inside its folder with samplers that start processes.

    Raises:
        ValueError: if new processes would import from the folder of a run that is resumed: they look in the current
            directory first.
    """
    is_elsewhere = config.kind == "reinforcement" and config.task.sampling.sampler != "local"
    if is_elsewhere and Path.cwd().is_relative_to(run.resolve()):
        raise ValueError(
            f"sampler {config.task.sampling.sampler} must be started outside of the run's folder, but {Path.cwd()} "
            "is in it: go to another folder, or take --sampler local"
        )


@dataclass(frozen=True)
class Job:
    """A run to be trained."""

    config: RunConfig
    output_dir: Path | None = None  # by default runs/<task>-<time>
    resume: Path | None = None  # the run to continue
    film_every: int = 0  # iterations
    callbacks: tuple[Callback, ...] = field(default_factory=lambda: make_trackers(["tensorboard"]))

    def __post_init__(self) -> None:
        require_callbacks(self.callbacks)
        if self.film_every < 0:
            raise ValueError(f"film_every must be at least 1, or 0 for no films, got {self.film_every}")


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check, in its locked folder; to be closed."""

    job: Job
    folder: RunFolder
    built: Built
    filming: Filming | None

    def train(self) -> TrainingResult:
        """Train until all iterations are done, or a signal comes.

        Raises:
            CheckpointError, LogError, TrainingError: if it cannot go on; the last checkpoint is intact.
        """
        config, measure = self.job.config, self.built.family.measure
        with self.folder:
            trainer = Trainer(
                self.folder,
                self.built.learner,
                self.built.family.source.sample_tasks,
                config.training,
                seed=config.seed,
                best_metric=f"{measure.metric}_after",
                higher_is_better=measure.higher_is_better,
                evaluate=self.built.evaluate,
                headline=self.built.headline,
                film=self.filming,
                begin=functools.partial(_beginning, config),
                device=config.device,
                callbacks=self.job.callbacks,
            )
            return trainer.run(resume=self.job.resume is not None)

    def close(self) -> None:
        self.folder.close()
        if self.filming is not None:
            self.filming.close()
        self.built.close()


def prepare(job: Job) -> Prepared:
    """Check everything before anything is created: settings first, then the folder.

    Raises:
        ValueError: if the settings do not fit, or the folder is not new, or not that of a run that can be continued.
    """
    if job.resume is not None:
        require_own_directory(job.resume, job.config)
        require_same_observations(job.resume, job.config)
    for remark in environment_remarks(job.config):
        print(f"warning: {remark}", file=sys.stderr)
    if job.resume is None:
        job = dataclasses.replace(job, config=measured(with_settings_of_start(job.config)))
    built = build(job.config) if job.resume else build_new(job.config)
    filming = None
    try:
        if job.resume:
            require_memory(built.needs.training)
        require_tasks(built, in_training=True)
        if job.film_every:
            filming = make_filming(built, job.film_every)
        built.hold_copies()
        return Prepared(job, _folder(job, with_pictures(job.config, built), built), built, filming)
    except BaseException:
        if filming is not None:
            filming.close()
        built.close()
        raise


def build_new(config: RunConfig) -> Built:
    """Call `build` for a new run.

    Raises:
        ValueError: as `build`, and if the run to begin with does not fit.
    """
    built = build(config)
    try:
        require_memory(built.needs.training)
        warm_start(config, first_checkpoint(built.learner, config.seed))
    except BaseException:
        built.close()
        raise
    return built


def _folder(job: Job, config: RunConfig, built: Built) -> RunFolder:
    """A new folder, or the one that is resumed, or a copy of that; `config` is saved in it."""
    if job.resume is None:
        path = job.output_dir or default_folder(config, datetime.now())
        return RunFolder.create(path, to_dict(config), or_beside=job.output_dir is None)
    folder = RunFolder.open(job.resume)
    try:
        reached, number = require_resumable(folder.path, built.learner, config.seed), config.training.num_iterations
        if number < reached:
            raise ValueError(
                f"num_iterations must be at least the {reached} that {folder.path} has done, got {number}: raise it "
                "or leave it out"
            )
        if number == reached:
            print(
                f"note: {folder.path} has done all {number} iterations: raise num_iterations to go on", file=sys.stderr
            )
        if job.output_dir is not None and job.output_dir.resolve() != job.resume.resolve():
            original, folder = folder, folder.copy(job.output_dir)
            original.close()
        folder.write_config(to_dict(config))
    except BaseException:
        folder.close()
        raise
    return folder


def default_folder(config: RunConfig, now: datetime) -> Path:
    """The folder runs/<task>-<time>, to the second; a run that finds the name taken appends -2, -3, ..."""
    name = f"{config.env}-{config.learner}" if config.kind == "pictures" else config.env_name
    return Path("runs") / f"{name}-{now:%Y%m%d-%H%M%S}"


def _beginning(config: RunConfig, initial: Checkpoint) -> Checkpoint:
    """The checkpoint that a new run begins with; print to stderr what it does not take over from another run."""
    start = warm_start(config, initial)
    anew = begun_anew(initial, start)
    if config.init_from is not None and anew:
        print(f"note: parameters begin as in {config.init_from}, but {', '.join(anew)} begin anew", file=sys.stderr)
    return start


def require_completable(config: RunConfig, folder: Path) -> Checkpoint | None:
    """The checkpoint that the run in `folder` has reached; None if it has not begun.

    Raises:
        ValueError: if the folder holds anything else, or a run with other settings.
    """
    if not (folder / "config.json").exists():
        RunFolder.require_new(folder)
        return None
    forbidden = forbidden_changes(read_config(folder), config)
    if forbidden:
        raise ValueError(f"{folder} holds another run ({'; '.join(forbidden)}): choose another --output-dir")
    return load_latest(folder / "checkpoints") if has_begun(folder) else None


def complete(
    config: RunConfig, folder: Path, film_every: int = 0, track: Sequence[Tracker] = ("tensorboard",)
) -> int | None:
    """Train the run in `folder`, which may not have begun, to its end; return the signal's number if one stopped it.

    Args:
        film_every: iterations from film to film in the trackers; 0 for none.
    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    reached = require_completable(config, folder)
    if reached is not None and config.training.is_over(reached):
        print(f"{folder}: done before", file=sys.stderr)
        return None
    resume = None
    if (folder / "config.json").exists():
        resume, saved = folder, read_config(folder)
        config = with_settled(config, saved)
    print(f"{folder}: to iteration {config.training.num_iterations}", file=sys.stderr)
    prepared = prepare(Job(config, folder, resume, film_every, make_trackers(track)))
    try:
        return prepared.train().interrupted_by
    finally:
        prepared.close()
