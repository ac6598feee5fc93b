"""The command line of the few-shot leaderboard: every learner under one budget, asked the same episodes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import tyro

from maml_rl.build import build
from maml_rl.cli import build_new, complete, require_completable
from maml_rl.command_line import parse
from maml_rl.config import OMNIGLOT, LearnerName, RunConfig, forbidden_changes, to_dict
from maml_rl.core.protocols import State
from maml_rl.evaluation.adaptation_curve import AdaptationCurve
from maml_rl.evaluation.published import FEW_SHOT_PUBLISHED
from maml_rl.leaderboard_table import COLUMNS, Row, print_table, ranked, write_tables
from maml_rl.learners import CPU_ONLY, require_learner
from maml_rl.presets import FEW_SHOT_PRESETS, Preset, omniglot, require_beginning, with_preset
from maml_rl.supervised.episodes import Rotations
from maml_rl.supervised.omniglot import SplitName
from maml_rl.trained import Trained, load_trained, read_config
from maml_rl.training import checkpoint as checkpoints
from maml_rl.training.atomic import require_writable, write_atomically
from maml_rl.training.checkpoint import Checkpoint, CheckpointError, load_latest, plain_state
from maml_rl.training.checkpoint_file import read_about
from maml_rl.training.log import LogError, read_columns
from maml_rl.training.run_folder import RunFolder
from maml_rl.training.streams import lenient_streams, program
from maml_rl.training.trainer import TrainingError

LEARNERS: tuple[LearnerName, ...] = typing.get_args(LearnerName)
MAX_SHIPPED_BYTES = 1_000_000
ASKED = ("env", "split", "test_rotations", "ways", "shots", "num_episodes", "test_queries", "seed")


EXAMPLES = (
    "python scripts/leaderboard.py --output-dir runs/board --minutes 10",
    "python scripts/leaderboard.py --output-dir runs/two --learners maml matching",
)


@dataclass(frozen=True)
class LeaderboardCommand:
    """Train or load few-shot learners under one budget, and score all alike."""

    output_dir: Path
    """Holds leaderboard.csv, .json, .md and .png; runs/, a run folder for each learner; rows/, what each scored; and
    checkpoints/, what scripts/evaluate.py needs to score it again. Finished work there is reused."""
    learners: Annotated[tuple[LearnerName, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = LEARNERS
    """Learners to put side by side, each with the settings of its paper."""
    load: dict[str, Path] = field(default_factory=dict)
    """LEARNER RUN_DIR pairs: finished runs, perhaps of other ways and shots, to score in place of training."""
    init_from: dict[str, Path] = field(default_factory=dict)
    """LEARNER RUN_DIR pairs: the run whose parameters that learner's training begins with, as in training. Its minutes
    count."""
    env: Literal["omniglot", "images"] = "omniglot"
    """Data. images: your own pictures, as in training."""
    ways: int = 5
    """Classes in an episode."""
    shots: int = 1
    """Pictures of each class to learn from."""
    preset: Preset = "paper"
    """paper: the settings of the papers. fast: where there are some, settings that learn faster. warm: settings by
    which maml and fomaml start from the run of Prototypical Networks that --init-from names for each."""
    minutes: float | None = None
    """Minutes of each training run, with its evaluations; by default as long as the iterations take."""
    num_iterations: int | None = None
    """Iterations of each training run; by default the learner's own number."""
    evaluate_every: int | None = None
    """Iterations from point to point of the plot; by default the learner's own number."""
    train_on: Literal["train", "trainval"] = "trainval"
    """Classes to train on. trainval: the validation classes, too, as in the papers' final rows; the plot's points then
    are of the test classes."""
    split: SplitName = "vinyals"
    """Split of Omniglot, as in training; runs to load must have it, too."""
    rotations: Rotations = "classes"
    """Rotations in training, as there."""
    test_rotations: Rotations = "classes"
    """Rotations in the test episodes, as in training; runs to load must have them, too."""
    num_episodes: int = 10_000
    """Test episodes, the same for all."""
    test_queries: int = 1
    """Queries of each class in these."""
    seed: int = 1
    """Training and evaluation seed."""
    data_root: str | None = None
    """Where the data are; by default $MAML_RL_DATA."""
    device: str = "cpu"
    """Device of the learners that take gradient steps on a task: cpu, cuda or cuda:N. The others are on the CPU."""
    num_threads: int = 0
    """Threads; 0 takes every core. Results do not depend on it."""
    json: bool = False
    """Print the result as one JSON line on stdout."""

    def __post_init__(self) -> None:
        for name in ("load", "init_from"):
            unknown = sorted(getattr(self, name).keys() - set(self.learners))
            if unknown:
                raise ValueError(f"{name} must name learners among {list(self.learners)}, got {unknown}")
        for learner in set(self.learners) & FEW_SHOT_PRESETS.get(self.preset, {}).keys():
            require_beginning(self.preset, self.init_from.get(learner))
        if not self.learners or len(set(self.learners)) < len(self.learners):
            raise ValueError(f"learners must be named once each, at least one, got {list(self.learners)}")
        if self.num_episodes < 1:
            raise ValueError(f"num_episodes must be at least 1, got {self.num_episodes}")


@lenient_streams()
def leaderboard(arguments: Sequence[str] | None = None) -> int:
    """Run the leaderboard command; return the exit status.

    0 done, 1 a training run failed, 2 refused, 128 + n stopped by signal n; the same command goes on then.
    """
    try:
        command = parse(LeaderboardCommand, EXAMPLES, arguments)
        configs = {learner: learner_config(learner, command) for learner in command.learners}
        for learner, config in configs.items():
            _require_possible(learner, config, command)
        require_writable(command.output_dir, *(f"leaderboard.{ending}" for ending in ("csv", "json", "md", "png")))
        rows: list[Row] = []
        for learner, config in configs.items():
            run_dir, signum = _trained_run(learner, config, command)
            if signum is not None:
                print(f"stopped in {learner}; to continue: {program(*sys.argv[1:])}", file=sys.stderr)
                return 128 + signum
            rows.append(_row(learner, run_dir, command))
            # What is known is written, however long the others take.
            write_tables(command.output_dir, rows, _budget(command))
    except (CheckpointError, LogError, TrainingError) as error:
        return _fail(error, 1)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    print_table(rows)
    if command.json:
        print(json.dumps(ranked(rows)))
    return 0


def learner_config(learner: LearnerName, command: LeaderboardCommand) -> RunConfig:
    """How a learner is trained: its preset under the command's budget."""
    config = omniglot(learner, command.ways, command.shots)
    if learner in FEW_SHOT_PRESETS.get(command.preset, {}):
        config = with_preset(config, command.preset)
    training, outer = config.training, config.outer
    if command.num_iterations is not None and learner != "pixels":
        training = dataclasses.replace(training, num_iterations=command.num_iterations)
        if learner == "reptile":  # its steps shrink to nothing at the end, wherever that is
            reptile = dataclasses.replace(outer.reptile, decay_steps=command.num_iterations)
            outer = dataclasses.replace(outer, reptile=reptile)
        if outer.gradient.decay == "cosine":
            gradient = dataclasses.replace(outer.gradient, decay_steps=command.num_iterations)
            outer = dataclasses.replace(outer, gradient=gradient)
    every = training.evaluate_every if command.evaluate_every is None else command.evaluate_every
    return dataclasses.replace(
        config,
        env=command.env,
        seed=command.seed,
        init_from=str(command.init_from[learner]) if learner in command.init_from else None,
        device="cpu" if learner in CPU_ONLY else command.device,
        training=dataclasses.replace(training, max_minutes=command.minutes, evaluate_every=every),
        outer=outer,
        sampling=dataclasses.replace(config.sampling, num_threads=command.num_threads),
        episodes=dataclasses.replace(
            config.episodes,
            data_root=command.data_root,
            split=command.split,
            train_on=command.train_on,
            rotations=command.rotations,
            test_rotations=command.test_rotations,
        ),
    )


def _require_possible(learner: LearnerName, config: RunConfig, command: LeaderboardCommand) -> None:
    """Refuse what training, or the scoring after it, would refuse only after hours of the other learners.

    Raises:
        ValueError: if settings, pictures or folders do not fit.
    """
    _known(_row_file(learner, command))
    if learner in command.load:
        _require_loadable(command.load[learner], config)
        _load(command.load[learner], command).built.close()
    else:
        require_completable(config, command.output_dir / "runs" / learner)
        build_new(config).close()
        build(_scored(config, command)).close()


def _require_loadable(run_dir: Path, config: RunConfig) -> None:
    """A loaded run must be of the learner that it stands for, and have never seen what it is asked."""
    found = read_config(run_dir)
    wanted = {name: (getattr(found, name), getattr(config, name)) for name in ("learner", "env")}
    for name in ("split", "train_on", "test_rotations", "images"):
        wanted[name] = getattr(found.episodes, name), getattr(config.episodes, name)
    for name, (is_now, must_be) in wanted.items():
        if is_now != must_be:
            raise ValueError(
                f"load must name a run with {name} {must_be}, but in {run_dir} {name} is {is_now}: leave it out, "
                "or choose the command's settings to fit"
            )
    asked = found.episodes.asking(config.episodes.ways, config.episodes.shots, None)
    require_learner(dataclasses.replace(found, episodes=asked))


# --- training --------------------------------------------------------------------------------------------------


def _trained_run(learner: LearnerName, config: RunConfig, command: LeaderboardCommand) -> tuple[Path, int | None]:
    """The folder of the learner's finished run, and the signal's number if one stopped it before its end."""
    if learner in command.load:
        return command.load[learner], None
    run_dir, shipped = command.output_dir / "runs" / learner, _shipped(learner, command)
    if not run_dir.exists() and _is_finished(shipped, config):
        print(f"{shipped}: done before", file=sys.stderr)
        return shipped, None
    return run_dir, complete(config, run_dir)


def _is_finished(run_dir: Path, config: RunConfig) -> bool:
    if not (run_dir / "config.json").exists() or forbidden_changes(read_config(run_dir), config):
        return False
    return config.training.is_over(load_latest(run_dir / "checkpoints"))


def _shipped(learner: str, command: LeaderboardCommand) -> Path:
    return command.output_dir / "checkpoints" / learner


def _needed(checkpoint: Checkpoint) -> State:
    """Of a state, what predictions need: all but the moments of the outer optimiser."""
    return {name: value for name, value in checkpoint.state.items() if not name.startswith("adam/")}


def _ship(run_dir: Path, checkpoint: Checkpoint, path: Path) -> None:
    """Make `path` a run folder with what evaluation needs and no more; a killed process leaves it whole or away."""
    config = read_config(run_dir)
    config = dataclasses.replace(config, episodes=dataclasses.replace(config.episodes, data_root=None))
    aside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    with RunFolder.create(aside, to_dict(config)) as folder:
        checkpoints.save(folder.checkpoints, dataclasses.replace(checkpoint, state=_needed(checkpoint)))
        checkpoints.point(folder.checkpoints, "latest", checkpoint.iteration)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(aside, path)


# --- scoring ---------------------------------------------------------------------------------------------------


def _row(learner: LearnerName, run_dir: Path, command: LeaderboardCommand) -> Row:
    """What the learner scored; read back if these parameters have been asked these episodes before."""
    file, shipped = _row_file(learner, command), _shipped(learner, command)
    checkpoint = load_latest(run_dir / "checkpoints")
    parameters = safetensors.torch.save(plain_state(_needed(checkpoint)))
    asked = {name: getattr(command, name) for name in ASKED}
    asked["parameters"] = hashlib.sha256(parameters).hexdigest()
    known = _known(file)
    if known.get("asked") == asked and known.keys() >= set(COLUMNS):  # earlier versions wrote fewer
        print(f"{file}: scored before", file=sys.stderr)
        return known
    if len(parameters) > MAX_SHIPPED_BYTES:
        print(f"{run_dir}: more than {MAX_SHIPPED_BYTES} bytes of parameters are not shipped", file=sys.stderr)
    elif run_dir != shipped:
        _ship(run_dir, checkpoint, shipped)
    curve, config = _score(run_dir, command)
    again = shipped if shipped.exists() else run_dir
    row = {
        "asked": asked,
        "learner": learner,
        "accuracy": curve.mean[-1],
        "ci95": curve.ci95[-1],
        "published": FEW_SHOT_PUBLISHED.get((learner, command.ways, command.shots)) if config.env == OMNIGLOT else None,
        "norm": config.network.norm,
        "gradient_steps": curve.steps[-1],
        "split": config.episodes.split if config.env == OMNIGLOT else "folders",
        "trained_on": config.episodes.train_on,
        "init_from": config.init_from,
        "train_ways": config.episodes.training.ways,
        "train_shots": config.episodes.training.shots,
        "iterations": checkpoint.iteration,
        "minutes": checkpoint.counters["wall_seconds"] / 60.0,
        "evaluate": f"python scripts/evaluate.py {again} --num-tasks {command.num_episodes} "
        f"--ways {command.ways} --shots {command.shots} --test-queries {command.test_queries} --seed {command.seed}",
        **_history(run_dir, checkpoint, curve, known, command),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, f"{json.dumps(row, indent=1)}\n".encode())
    return row


def _row_file(learner: LearnerName, command: LeaderboardCommand) -> Path:
    return command.output_dir / "rows" / f"{learner}.json"


def _known(file: Path) -> Row:
    """The row in `file`, with what earlier versions left unsaid; empty if there is none."""
    if not file.exists():
        return {}
    row = {"init_from": None} | json.loads(file.read_text())
    return row | {"asked": {"split": "vinyals", "test_rotations": "classes"} | row["asked"]}


def _scored(saved: RunConfig, command: LeaderboardCommand) -> RunConfig:
    """The settings of a run with those of the leaderboard's evaluation in their place."""
    return dataclasses.replace(
        saved,
        device="cpu" if saved.learner in CPU_ONLY else command.device,
        evaluation=dataclasses.replace(saved.evaluation, num_tasks=command.num_episodes, seed=command.seed),
        sampling=dataclasses.replace(saved.sampling, num_threads=command.num_threads),
        episodes=dataclasses.replace(
            saved.episodes.asking(command.ways, command.shots, command.test_queries),
            data_root=command.data_root,
            evaluate_on="test",
        ),
    )


def _load(run_dir: Path, command: LeaderboardCommand) -> Trained:
    return load_trained(run_dir, _scored(read_config(run_dir), command), "last", None, False)


def _score(run_dir: Path, command: LeaderboardCommand) -> tuple[AdaptationCurve, RunConfig]:
    print(f"{run_dir}: {command.num_episodes} episodes", file=sys.stderr)
    trained = _load(run_dir, command)
    learner = trained.built.few_shot
    assert learner is not None
    learner.recorded_steps = learner.recorded_steps[-1:]  # all that a row says; all of Reptile's take thrice as long
    try:
        return trained.built.curve(trained.state, trained.checkpoint.iteration), trained.config
    finally:
        trained.built.close()


def _history(
    run_dir: Path, checkpoint: Checkpoint, curve: AdaptationCurve, known: Row, command: LeaderboardCommand
) -> Row:
    """The commit that trained it, and minutes and scores during training, if those were of episodes of this size;
    shipped parameters alone know neither."""
    own = read_config(run_dir).episodes
    is_own_size = (own.ways, own.shots) == (command.ways, command.shots)
    if not (run_dir / "metrics.csv").exists() and known:
        return {"commit": known["commit"], "progress": known["progress"] if is_own_size else []}
    about = read_about(run_dir / "checkpoints" / f"{checkpoint.name}.json")
    names = ["wall_seconds", f"eval_{curve.metric}_{curve.steps[-1]}"]
    columns = read_columns(run_dir / "metrics.csv", names) if (run_dir / "metrics.csv").exists() else {}
    seconds, scores = (columns.get(name, {}) for name in names)
    progress = [[seconds[iteration] / 60.0, score] for iteration, score in scores.items()]
    return {"commit": about.get("git_commit"), "progress": progress if is_own_size else []}


def _budget(command: LeaderboardCommand) -> str:
    iterations = "the learner's own" if command.num_iterations is None else str(command.num_iterations)
    minutes = "" if command.minutes is None else f"{command.minutes:g} minutes or "
    return f"{minutes}{iterations} iterations"


def _fail(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status
