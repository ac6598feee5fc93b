"""The command line of training: parse, check, build, run."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.build import Built, build, environment_remarks, measured, with_film
from maml_rl.command_line import parse
from maml_rl.config import RunConfig, forbidden_changes, from_dict, to_dict
from maml_rl.presets import PRESETS, Preset, omniglot, require_beginning, with_preset
from maml_rl.training.checkpoint import Checkpoint, CheckpointError, load_latest
from maml_rl.training.log import LogError
from maml_rl.training.run_folder import RunFolder
from maml_rl.training.streams import lenient_streams, program
from maml_rl.training.trainer import Filming, Trainer, TrainingError, TrainingResult, first_checkpoint
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
    """The run's folder, which must not exist yet. By default runs/<task>-<time>."""
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
    try:
        first = _parse(omniglot("maml", 5, 1), arguments).run
        chosen = omniglot(first.learner, first.episodes.ways, first.episodes.shots)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    return train(chosen, arguments)


def _parse(default: RunConfig, arguments: Sequence[str] | None) -> TrainCommand:
    """Parse twice where other settings than `default` hold when nothing is said: those of the run that is resumed, of
    the environment's own protocol, or of a preset."""
    command = parse(TrainCommand, EXAMPLES, arguments, TrainCommand(default))
    if command.resume is None:
        chosen = with_preset(_protocol(default, command.run), command.preset)
        return parse(TrainCommand, EXAMPLES, arguments, TrainCommand(chosen))
    if command.preset != "paper":
        raise ValueError(f"preset {command.preset} must be left out with resume: a resumed run keeps its settings")
    saved = from_dict(RunFolder.read_config(command.resume))
    command = parse(TrainCommand, EXAMPLES, arguments, TrainCommand(saved))
    changes = forbidden_changes(saved, command.run)
    if changes:
        raise ValueError(f"a resumed run keeps its settings, but {'; '.join(changes)}: start a new run for that")
    return command


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
    if command.resume is None:
        command = dataclasses.replace(command, run=measured(with_scale_of_start(command.run)))
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
    changes = forbidden_changes(from_dict(RunFolder.read_config(folder)), config)
    if changes:
        raise ValueError(f"{folder} holds another run ({'; '.join(changes)}): choose another --output-dir")
    return load_latest(folder / "checkpoints")


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
    """A shell command; all settings but that of films are in the folder."""
    films = ["--film-every", command.film_every] if command.film_every else []
    return program("--resume", folder.path, *films)


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
