"""The command line of training: parse, check, build, run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from maml_rl.api.train import finish, require_continuation, require_new
from maml_rl.commands.command_line import parse, without_zoo
from maml_rl.commands.streams import fail, lenient_streams, program
from maml_rl.commands.train_seeds import train_seeds
from maml_rl.experiments.config import OMNIGLOT, Physics, RunConfig, kind_of, with_outer_step
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.experiment import Experiment, distinct, is_experiment, read_experiment
from maml_rl.experiments.fitting import fitted_to_folder
from maml_rl.experiments.flags import require_own_flags
from maml_rl.experiments.presets import Preset, default_config
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.table import names_for
from maml_rl.experiments.training import Job, default_folder, prepare, without_cluster
from maml_rl.experiments.training_seeds import Shown, begin_experiment
from maml_rl.experiments.trust import by_flag, imports_of
from maml_rl.storage.checkpoint import CheckpointError
from maml_rl.storage.log import LogError
from maml_rl.storage.run_folder import RunFolder
from maml_rl.training.trackers import Tracker, make_trackers
from maml_rl.training.trainer import TrainingError, TrainingResult

EXAMPLES = (
    "python scripts/train.py --env AntVel --preset fast",
    "python scripts/train.py --env my_module:MyEnv --max-minutes 30",
    "python scripts/train.py --resume runs/mine --num-iterations 200",
)
MAIN_ENV = "maml/HalfCheetahVel-rllab-v0"
DESCRIPTION = """Meta-train, leaving everything about the run in one folder.

Flags are those of the named --env and --learner: add both to see others."""


@dataclass(frozen=True)
class TrainCommand:
    """Meta-train, leaving everything about the run in one folder."""

    run: Any
    physics: Physics | None = None
    """Physics of robots, in place of the one that the id names: rllab is the 2017 paper's, gym is Gymnasium's. By
    default a short name means rllab."""
    output_dir: Path | None = None
    """Folder of the run, which must not exist yet. By default runs/<task>-<time>, with -2, -3, ... if that exists."""
    resume: Path | None = None
    """A run's folder: continue from its latest checkpoint, with its settings; with --output-dir, in a copy of it."""
    preset: Preset = "paper"
    """Default settings. paper: the paper's protocol. fast: settings that learn faster, where there are some. warm: MAML
    or FOMAML fine-tuned from the run of Prototypical Networks in --init-from, or PLATIPUS from one of MAML."""
    film_every: int = 0
    """Iterations between films in the trackers, of one fresh task before and after adaptation; 0 for none."""
    track: tuple[Tracker, ...] = ("tensorboard",)
    """Trackers that show the numbers of metrics.csv: tensorboard (files in the run's folder), wandb, trackio."""
    seeds: tuple[int, ...] | None = None
    """Several training seeds in place of --seed: an experiment, whose folder --output-dir has a run folder for each,
    seed-1, seed-2, ... Give the same command, or --resume that folder, to continue; other seeds are added."""
    jobs: int = 1
    """Seeds to train at once, each in its own process; 1 trains one after the other, and every core serves it."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.seeds is not None and (not self.seeds or min(self.seeds) < 0 or len({*self.seeds}) < len(self.seeds)):
            raise ValueError(f"seeds must be different whole numbers of at least 0, got {list(self.seeds)}")

    @property
    def job(self) -> Job:
        return Job(self.run, self.output_dir, self.resume, self.film_every, make_trackers(self.track))


def command_type(run: type[RunConfig]) -> type[TrainCommand]:
    """The command with the settings of one kind of task and one learner."""
    hint = Annotated[run, tyro.conf.arg(name="")]  # type: ignore[valid-type]
    return dataclasses.make_dataclass(
        "TrainCommand", [("run", hint)], bases=(TrainCommand,), frozen=True, namespace={"__doc__": DESCRIPTION}
    )


@lenient_streams()
def train(env: str = MAIN_ENV, arguments: Sequence[str] | None = None, preset: Preset = "paper") -> int:
    """Run the training command, by default on `env`; return the exit status.

    0 done, 1 stopped by a failure with the last checkpoint intact, 2 refused, 128 + n stopped by signal n.
    """
    try:
        command = parse_command(env, sys.argv[1:] if arguments is None else list(arguments), preset)
        experiment = experiment_of(command)
        if experiment is not None:
            is_named = command.output_dir is not None or command.resume is not None
            shown = Shown(command.film_every, command.track)
            started = begin_experiment(experiment, shown, or_beside=not is_named)
            return train_seeds(started, command.jobs, shown, flags_to_continue(command))
        prepared = prepare(command.job)
    except (ValueError, OSError) as error:
        return fail(error, 2)  # nothing has been made
    try:
        result = finish(prepared)
    except (CheckpointError, LogError, TrainingError) as error:
        return fail(error, 1)
    folder = prepared.folder
    if result.interrupted_by is not None:
        print(f"to continue: {program('--resume', folder.path, *flags_to_continue(command))}", file=sys.stderr)
    print(_in_words(folder, result) if sys.stdout.isatty() else json.dumps(_summary(folder, result)))
    return 0 if result.interrupted_by is None else 128 + result.interrupted_by


def train_omniglot(arguments: Sequence[str] | None = None) -> int:
    """Run the training command on Omniglot, by the protocol of the learner's paper."""
    return train(OMNIGLOT, arguments)


def parse_command(env: str, arguments: list[str], preset: Preset = "paper") -> TrainCommand:
    """Parse twice: first the flags that decide which other flags there are and their defaults, then all.

    Args:
        env, preset: where none is given.
    Raises:
        ValueError: if the settings do not go together.
    """
    arguments = without_zoo(arguments)
    first = _first_flags(arguments)
    if first.seed is not None and first.seeds is not None:
        raise ValueError(f"--seed {first.seed} must be left out with --seeds, which take its place")
    if first.resume is not None:
        return _resumed(first, arguments)
    name = full_id(first.env or env, first.physics)
    chosen = first.preset or preset

    def default_for(ways: int) -> RunConfig:
        default = default_config(name, first.learner or names_for(kind_of(name))[0], chosen, ways, first.shots or 1)
        return default if first.outer_step is None else with_outer_step(default, first.outer_step)

    default = default_for(first.ways or 5)
    command = _parsed(default, arguments, name, chosen)
    default, run = fitted_to_folder(
        default, command.run, default_for, lambda default: _parsed(default, arguments, name, chosen).run
    )
    command = dataclasses.replace(command, run=run)
    require_new(default, command.run, chosen)
    return command


def _first_flags(arguments: list[str]) -> argparse.Namespace:
    """The flags that decide which others there are; wrong values are refused later, with all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("env", "learner", "preset", "resume", "physics"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--outer.step", dest="outer_step")
    parser.add_argument("--policy.network", dest="network")
    parser.add_argument("--seed")
    parser.add_argument("--seeds", nargs="*")
    for name in ("ways", "shots"):
        parser.add_argument(f"--{name}")
    known = parser.parse_known_args(arguments)[0]
    for name in ("ways", "shots"):
        value = getattr(known, name)
        setattr(known, name, int(value) if value and value.isdigit() and int(value) > 0 else None)
    if known.preset not in (None, "paper", "fast", "warm"):
        known.preset = None
    if known.physics not in (None, "rllab", "gym"):
        known.physics = None
    return known


def _parsed(default: RunConfig, arguments: list[str], env: str, preset: Preset) -> TrainCommand:
    kind = command_type(type(default))
    others = ["--help", *(f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(TrainCommand) if f.name != "run")]
    require_own_flags(arguments, default, others)
    command = parse(kind, EXAMPLES, arguments, kind(run=default, preset=preset))
    return dataclasses.replace(command, run=dataclasses.replace(command.run, env=env))


def _resumed(first: argparse.Namespace, arguments: list[str]) -> TrainCommand:
    """The command that continues a run: the run's settings are the defaults, and most must stay."""
    if first.preset not in (None, "paper"):
        raise ValueError(f"preset {first.preset} must be left out with resume: a resumed run keeps its settings")
    folder = Path(first.resume)
    saved = read_experiment(folder).config if is_experiment(folder) else read_config(folder)
    env = full_id(first.env, first.physics) if first.env else saved.env
    command = _parsed(without_cluster(saved), arguments, env, "paper")
    named = tuple(filter(None, (first.env and env, first.network)))
    require_continuation(folder, saved, command.run, named, by_flag)
    return command


def experiment_of(command: TrainCommand) -> Experiment | None:
    """The experiment that a command trains, if it is one.

    Raises:
        ValueError: if flags do not go together.
    """
    config, resumed, seeds = command.run, command.resume, command.seeds or ()
    if resumed is not None and is_experiment(resumed):
        if command.output_dir not in (None, resumed):
            raise ValueError("--output-dir must be left out with --resume of an experiment: copy its folder yourself")
        return Experiment(resumed, config, distinct([*read_experiment(resumed).seeds, *seeds]))
    if not seeds:
        if command.jobs > 1:
            raise ValueError(f"--jobs {command.jobs} applies to several --seeds: leave it out")
        return None
    if resumed is not None:
        raise ValueError(f"--seeds must be left out with --resume {resumed}, which is a run of one seed")
    folder = command.output_dir or default_folder(config, datetime.now())
    return Experiment(folder, dataclasses.replace(config, seed=seeds[0]), seeds)


def flags_to_continue(command: TrainCommand) -> list[object]:
    """The flags that continuing takes beside --resume; all settings but films, trackers, trusted code and a cluster are
    in the folder."""
    films = ["--film-every", command.film_every] if command.film_every else []
    films += [] if command.track == ("tensorboard",) else ["--track", *command.track]
    own = [part for each in imports_of(command.run) for part in (each.flag, each.name)]
    cluster = getattr(getattr(command.run.task, "sampling", None), "ray_address", None)
    return [*own, *(["--ray-address", cluster] if cluster else []), *films]


def _in_words(folder: RunFolder, result: TrainingResult) -> str:
    """The result in words for people; the JSON is for other programs."""
    scores = [f"{name} {value:.4g}" for name, value in result.metrics.items() if name.endswith(("_before", "_after"))]
    last = f", {', '.join(scores[:2])}" if scores else ""
    return f"{folder.path}: {result.iteration} iterations done{last}; the numbers of each are in metrics.csv"


def _summary(folder: RunFolder, result: TrainingResult) -> dict[str, object]:
    return {
        "run": str(folder.path),
        "iteration": result.iteration,
        "interrupted_by": result.interrupted_by,
        "metrics": result.metrics,
    }
