"""The command line of training: parse, check, build, run."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.build import Built, build, environment_remarks, measured, require_tasks, with_film, with_pictures
from maml_rl.command_line import parse
from maml_rl.config import IMAGES, RunConfig, changes, forbidden_changes, from_dict, to_dict
from maml_rl.learners import require_learner, require_read
from maml_rl.memory import require_memory
from maml_rl.presets import (
    PRESETS,
    Preset,
    few_shot,
    fitted,
    fitting_in_words,
    most_ways,
    omniglot,
    require_beginning,
    with_preset,
)
from maml_rl.supervised.episodes import supplies
from maml_rl.trained import require_trust
from maml_rl.training.checkpoint import Checkpoint, CheckpointError, load_latest
from maml_rl.training.log import LogError
from maml_rl.training.run_folder import RunFolder
from maml_rl.training.streams import lenient_streams, program
from maml_rl.training.trainer import (
    Filming,
    Trainer,
    TrainingError,
    TrainingResult,
    first_checkpoint,
    has_begun,
    require_resumable,
)
from maml_rl.warm_start import begun_anew, warm_start, with_scale_of_start

EXAMPLES = (
    "python scripts/train.py --env AntVel --preset fast",
    "python scripts/train.py --env my_module:MyEnv --max-minutes 30",
    "python scripts/train.py --resume runs/mine --num-iterations 200",
)


@dataclass(frozen=True)
class TrainCommand:
    """Meta-train, leaving everything about the run in one folder."""

    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    output_dir: Path | None = None
    """The run's folder, which must not exist yet. By default runs/<task>-<time>, with -2, -3, ... if that exists."""
    resume: Path | None = None
    """A run's folder: continue from its latest checkpoint, with its settings; with --output-dir, in a copy of it."""
    preset: Preset = "paper"
    """Settings of the flags that are not given. paper: the paper's protocol. fast: where there are some, settings that
    learn faster. warm: settings by which maml and fomaml start from the run of Prototypical Networks in --init-from."""
    film_every: int = 0
    """Iterations from film to film in TensorBoard, of one fresh task before and after adaptation; 0 for none."""

    def __post_init__(self) -> None:
        if self.film_every < 0:
            raise ValueError(f"film_every must be at least 1, or 0 for no films, got {self.film_every}")
        require_beginning(self.preset, self.run.init_from)


@lenient_streams()
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
    if result.interrupted_by is not None:
        print(f"to continue: {_continuation(command, folder)}", file=sys.stderr)
    print(_in_words(folder, result) if sys.stdout.isatty() else json.dumps(_summary(folder, built, result)))
    return 0 if result.interrupted_by is None else 128 + result.interrupted_by


@lenient_streams()
def train_omniglot(arguments: Sequence[str] | None = None) -> int:
    """The same, with the protocol of the learner that the arguments name as the defaults."""
    return train(omniglot("maml", 5, 1), arguments)


def _parse(default: RunConfig, arguments: Sequence[str] | None) -> TrainCommand:
    """Parse twice where other settings than `default` hold when nothing is said: those of the run that is resumed, of
    the environment's own protocol, or of a preset."""

    def parsed(chosen: RunConfig) -> TrainCommand:
        return parse(TrainCommand, EXAMPLES, arguments, TrainCommand(chosen))

    command = parsed(default)
    if command.resume is None:
        chosen = with_preset(_protocol(default, command.run), command.preset)
        command = parsed(chosen)
        if command.run.env == IMAGES:
            chosen, command = _fitted(command, parsed)
    else:
        if command.preset != "paper":
            raise ValueError(f"preset {command.preset} must be left out with resume: a resumed run keeps its settings")
        saved, named = from_dict(RunFolder.read_config(command.resume)), command.run.env_id
        chosen = _without_cluster(saved)
        command = parsed(chosen)
        forbidden = forbidden_changes(saved, command.run)
        if forbidden:
            raise ValueError(f"a resumed run keeps its settings, but {'; '.join(forbidden)}: start a new run for that")
        _require_resumed_safely(command, saved, named)
    require_learner(command.run)
    require_read(command.run, {path: new for path, (_, new) in changes(chosen, command.run).items()})
    return command


def _without_cluster(saved: RunConfig) -> RunConfig:
    """The settings of a run that is resumed, but not its cluster, which only the command line may have it join."""
    return dataclasses.replace(saved, sampling=dataclasses.replace(saved.sampling, ray_address=None))


def _require_resumed_safely(command: TrainCommand, saved: RunConfig, named: str) -> None:
    """Refuse to run code for the word of the resumed folder alone, and say so if its cluster is not joined.

    Args:
        saved: what the folder holds.
        named: the environment on the command line.
    Raises:
        ValueError: if the environment's module must be named, or processes would import from the folder.
    """
    assert command.resume is not None
    sampler = command.run.sampling.sampler
    if sampler != "local" and Path.cwd().is_relative_to(command.resume.resolve()):
        raise ValueError(  # new processes import from the current directory first
            f"sampler {sampler} must be started outside of the run's folder, but {Path.cwd()} is in it: go to another "
            "folder, or take --sampler local"
        )
    require_trust(command.resume, saved.env_id, named, f"--env {shlex.quote(saved.env_id)}")
    _note_cluster(saved, command.run)


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
        return few_shot(run.env, run.learner, run.episodes.ways, run.episodes.shots)
    if run.env_id == default.env_id:
        return default
    return PRESETS.get(run.env_id, dataclasses.replace(default, env=run.env_id, physics=None))


def _fitted(command: TrainCommand, parsed: Callable[[RunConfig], TrainCommand]) -> tuple[RunConfig, TrainCommand]:
    """Defaults that ask for no more than there is in the user's folder, and the command with them; a note says what
    is lower than in `command`."""
    given = command.run.episodes
    supply = supplies(given)
    protocol = few_shot(IMAGES, command.run.learner, most_ways(given, *supply), given.shots)
    default = with_preset(protocol, command.preset)
    default = dataclasses.replace(default, episodes=fitted(default.episodes, given, *supply))
    command = parsed(default)
    if note := fitting_in_words(given, command.run.episodes, *supply):
        print(f"note: {note}", file=sys.stderr)
    return default, command


def prepare(command: TrainCommand) -> tuple[RunFolder, Built]:
    """Refuse what can be refused before anything is created: settings first, then the folder."""
    for remark in environment_remarks(command.run):
        print(f"warning: {remark}", file=sys.stderr)
    if command.resume is None:
        command = dataclasses.replace(command, run=measured(with_scale_of_start(command.run)))
    built = build(command.run) if command.resume else build_new(command.run)
    try:
        if command.resume:
            require_trainable(built)
        require_tasks(command.run, built.family, in_training=True)
        if command.film_every:
            built = with_film(built, command.run)
        return _folder(command, with_pictures(command.run, built), built), built
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
        require_trainable(built)
        warm_start(config, first_checkpoint(built.learner, config.seed))
    except BaseException:
        built.close()
        raise
    return built


def require_trainable(built: Built) -> None:
    """
    Raises:
        ValueError: if this machine has too little memory for it.
    """
    if built.needs is not None:
        require_memory(built.needs.training)


def _folder(command: TrainCommand, config: RunConfig, built: Built) -> RunFolder:
    """A new folder, or the one that is resumed, or a copy of that; `config` is saved in it."""
    if command.resume is None:
        path = command.output_dir or default_folder(config)
        return RunFolder.create(path, to_dict(config), or_beside=command.output_dir is None)
    folder = RunFolder.open(command.resume)
    try:
        require_resumable(folder.path, built.learner, config.seed)
        if command.output_dir is not None and command.output_dir.resolve() != command.resume.resolve():
            original, folder = folder, folder.copy(command.output_dir)
            original.close()
        folder.write_config(to_dict(config))
    except BaseException:
        folder.close()
        raise
    return folder


def default_folder(config: RunConfig) -> Path:
    """runs/<task>-<time>, to the second; a run that finds the name taken appends -2, -3, ..."""
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
        begin=functools.partial(_beginning, config),
        device=config.device,
    )
    return trainer.run(resume=command.resume is not None)


def _beginning(config: RunConfig, initial: Checkpoint) -> Checkpoint:
    """What a new run begins with; on stderr, what it does not take over from another run."""
    start = warm_start(config, initial)
    anew = begun_anew(initial, start)
    if config.init_from is not None and anew:
        print(f"note: parameters begin as in {config.init_from}, but {', '.join(anew)} begin anew", file=sys.stderr)
    return start


def require_completable(config: RunConfig, folder: Path) -> Checkpoint | None:
    """Where the run in `folder` has come to; None if it is still to begin.

    Raises:
        ValueError: if the folder holds anything else, or a run with other settings.
    """
    if not (folder / "config.json").exists():
        RunFolder.require_new(folder)
        return None
    forbidden = forbidden_changes(from_dict(RunFolder.read_config(folder)), config)
    if forbidden:
        raise ValueError(f"{folder} holds another run ({'; '.join(forbidden)}): choose another --output-dir")
    return load_latest(folder / "checkpoints") if has_begun(folder) else None


def complete(config: RunConfig, folder: Path) -> int | None:
    """Bring the run in `folder`, which may not have begun, to its end; the signal's number if one stopped it.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    reached = require_completable(config, folder)
    if reached is not None and config.training.is_over(reached):
        print(f"{folder}: done before", file=sys.stderr)
        return None
    resume = None
    if (folder / "config.json").exists():
        resume, saved = folder, from_dict(RunFolder.read_config(folder))
        config = dataclasses.replace(config, observation_scale=saved.observation_scale)
    print(f"{folder}: {config.training.num_iterations} iterations", file=sys.stderr)
    command = TrainCommand(config, output_dir=folder, resume=resume)
    run_folder, built = prepare(command)
    try:
        with run_folder:
            return run(command, run_folder, built).interrupted_by
    finally:
        built.close()


def _continuation(command: TrainCommand, folder: RunFolder) -> str:
    """A shell command; all settings are in the folder but those of films, and those that no folder decides alone."""
    config = command.run
    given = {
        "--env": config.env_id if ":" in config.env_id else None,
        "--ray-address": config.sampling.ray_address,
        "--film-every": command.film_every or None,
    }
    flags = [each for flag, value in given.items() if value is not None for each in (flag, value)]
    return program("--resume", folder.path, *flags)


def _in_words(folder: RunFolder, result: TrainingResult) -> str:
    """The result for people: the JSON is for other programs."""
    scores = [f"{name} {value:.4g}" for name, value in result.metrics.items() if name.endswith(("_before", "_after"))]
    last = f", {', '.join(scores[:2])}" if scores else ""
    return f"{folder.path}: {result.iteration} iterations done{last}; the numbers of each are in metrics.csv"


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
