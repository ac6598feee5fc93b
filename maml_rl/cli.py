"""The command line of training: parse, check, build, run."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.build import Built, build, environment_remarks, with_film
from maml_rl.config import RunConfig, forbidden_changes, from_dict, to_dict
from maml_rl.presets import PRESETS, Preset, omniglot, require_beginning, with_preset
from maml_rl.trained import require_trust
from maml_rl.training.checkpoint import CheckpointError, load_latest
from maml_rl.training.log import LogError
from maml_rl.training.run_folder import RunFolder
from maml_rl.training.trainer import Filming, Trainer, TrainingError, TrainingResult, first_checkpoint
from maml_rl.warm_start import warm_start


@dataclass(frozen=True)
class TrainCommand:
    """Meta-train, leaving everything about the run in one folder."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    output_dir: Path | None = None
    """The run's folder, which must not exist yet. By default runs/<task>-<time>."""
    resume: Path | None = None
    """A run's folder: go on from its latest checkpoint, with its settings; with --output-dir, in a copy of it."""
    preset: Preset = "paper"
    """What holds where nothing is given: the protocol of the paper or, where there is one, one that learns faster; or,
    warm, one by which maml and fomaml go on from Prototypical Networks, whose run init_from names."""
    film_every: int = 0
    """Iterations from film to film in TensorBoard, of one fresh task before and after adaptation; 0 for none."""

    def __post_init__(self) -> None:
        if self.film_every < 0:
            raise ValueError(f"film_every must be at least 1, or 0 for no films, got {self.film_every}")
        require_beginning(self.preset, self.run.init_from)


def train(default: RunConfig, arguments: Sequence[str] | None = None) -> int:
    """Run the training command with `default` settings; return the exit status.

    0 done, 1 stopped by a failure with the last checkpoint intact, 2 refused, 128 + n stopped by signal n.
    """
    try:
        command = _parse(default, arguments)
        folder, built = prepare(command)
    except (ValueError, OSError) as error:
        return _fail(error, 2)  # nothing has been made
    try:
        with folder:
            result = run(command, folder, built)
    except (CheckpointError, LogError, TrainingError) as error:
        return _fail(error, 1)
    finally:
        built.close()
    print(json.dumps(_summary(folder, built, result)))
    return 0 if result.interrupted_by is None else 128 + result.interrupted_by


def train_omniglot(arguments: Sequence[str] | None = None) -> int:
    """The same, with the protocol of the learner that the arguments name as the defaults."""
    try:
        first = _parse(omniglot("maml", 5, 1), arguments).run
        chosen = omniglot(first.learner, first.episodes.ways, first.episodes.shots)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    return train(chosen, arguments)


def _parse(default: RunConfig, arguments: Sequence[str] | None) -> TrainCommand:
    """Parse twice where other settings than `default` hold when nothing is said: those of the run that is resumed, of
    the environment's own protocol, or of a preset."""
    command = tyro.cli(TrainCommand, default=TrainCommand(default), args=arguments)
    if command.resume is None:
        chosen = with_preset(_protocol(default, command.run), command.preset)
        return tyro.cli(TrainCommand, default=TrainCommand(chosen), args=arguments)
    if command.preset != "paper":
        raise ValueError(f"preset {command.preset} must be left out with resume: a resumed run keeps its settings")
    saved = from_dict(RunFolder.read_config(command.resume))
    resumed = tyro.cli(TrainCommand, default=TrainCommand(_without_cluster(saved)), args=arguments)
    changes = forbidden_changes(saved, resumed.run)
    if changes:
        raise ValueError(f"a resumed run keeps its settings, but {'; '.join(changes)}: start a new run for that")
    sampler = resumed.run.sampling.sampler
    if sampler != "local" and Path.cwd().is_relative_to(command.resume.resolve()):
        raise ValueError(  # new processes import from the current directory first
            f"sampler {sampler} must be started outside of the run's folder, but {Path.cwd()} is in it: go to another "
            "folder, or take --sampler local"
        )
    require_trust(command.resume, saved.env_id, command.run.env_id, f"--env {shlex.quote(saved.env_id)}")
    _note_cluster(saved, resumed.run)
    return resumed


def _without_cluster(saved: RunConfig) -> RunConfig:
    """The settings of a run that is resumed, but not its cluster, which only the command line may have it join."""
    return dataclasses.replace(saved, sampling=dataclasses.replace(saved.sampling, ray_address=None))


def _note_cluster(saved: RunConfig, resumed: RunConfig) -> None:
    """Say so where a run that was sampled on a cluster goes on without it."""
    address = saved.sampling.ray_address
    if address is not None and resumed.sampling.sampler == "ray" and resumed.sampling.ray_address is None:
        print(
            f"note: sampling on this machine alone, not on the Ray cluster {address!r} that the saved run names: to "
            "join it, give --ray-address again",
            file=sys.stderr,
        )


def _protocol(default: RunConfig, run: RunConfig) -> RunConfig:
    """The settings that hold for a run's environment where nothing is said: its own, if it has some."""
    if run.is_few_shot:
        return dataclasses.replace(default, env=run.env, learner=run.learner)
    if run.env_id == default.env_id:
        return default
    return PRESETS.get(run.env_id, dataclasses.replace(default, env=run.env_id, physics=None))


def prepare(command: TrainCommand) -> tuple[RunFolder, Built]:
    """Refuse what can be refused before anything is created: settings first, then the folder."""
    for remark in environment_remarks(command.run):
        print(f"warning: {remark}", file=sys.stderr)
    built = build(command.run) if command.resume else build_new(command.run)
    try:
        if command.film_every:
            built = with_film(built, command.run)
        return _folder(command), built
    except BaseException:
        built.close()
        raise


def build_new(config: RunConfig) -> Built:
    """`build` for a run that is to begin.

    Raises:
        ValueError: as `build`, and if the run that it is to begin with does not fit.
    """
    built = build(config)
    try:
        warm_start(config, first_checkpoint(built.learner, config.seed))
    except BaseException:
        built.close()
        raise
    return built


def _folder(command: TrainCommand) -> RunFolder:
    """A new folder, or the one that is resumed, or a copy of that."""
    if command.resume is None:
        return RunFolder.create(command.output_dir or default_folder(command.run), to_dict(command.run))
    if command.output_dir is None or command.output_dir.resolve() == command.resume.resolve():
        folder = RunFolder.open(command.resume)
    else:
        folder = RunFolder.copy(command.resume, command.output_dir)
    folder.write_config(to_dict(command.run))
    return folder


def default_folder(config: RunConfig) -> Path:
    """runs/<task>-<time>, to the second."""
    name = f"{config.env}-{config.learner}" if config.is_few_shot else config.env_name
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def run(command: TrainCommand, folder: RunFolder, built: Built) -> TrainingResult:
    config = command.run
    trainer = Trainer(
        folder,
        built.learner,
        built.family.sample_tasks,
        config.training,
        seed=config.seed,
        best_metric=f"{built.family.metric}_after",
        higher_is_better=built.family.higher_is_better,
        evaluate=built.evaluate,
        headline=built.headline,
        film=Filming(built.film, command.film_every) if built.film else None,
        begin=functools.partial(warm_start, config),
    )
    return trainer.run(resume=command.resume is not None)


def complete(config: RunConfig, folder: Path) -> int | None:
    """Bring the run in `folder`, which may not have begun, to its end; the signal's number if one stopped it.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    resume = None
    if (folder / "config.json").exists():
        changes = forbidden_changes(from_dict(RunFolder.read_config(folder)), config)
        if changes:
            raise ValueError(f"{folder} holds another run ({'; '.join(changes)}): choose another --output-dir")
        if config.training.is_over(load_latest(folder / "checkpoints")):
            print(f"{folder}: done before", file=sys.stderr)
            return None
        resume = folder
    print(f"{folder}: {config.training.num_iterations} iterations", file=sys.stderr)
    command = TrainCommand(config, output_dir=folder, resume=resume)
    run_folder, built = prepare(command)
    try:
        with run_folder:
            return run(command, run_folder, built).interrupted_by
    finally:
        built.close()


def _summary(folder: RunFolder, built: Built, result: TrainingResult) -> dict[str, object]:
    return {
        "run": str(folder.path),
        "iteration": result.iteration,
        "interrupted_by": result.interrupted_by,
        "metrics": result.metrics,
    }


def _fail(error: Exception, status: int) -> int:
    for note in getattr(error.__cause__, "__notes__", []):  # what a worker met
        print(note, file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)
    return status
