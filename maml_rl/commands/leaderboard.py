"""The command line of the few-shot leaderboard: every learner under one budget, scored on the same episodes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import tyro

from maml_rl.api.run import Run
from maml_rl.commands.command_line import parse
from maml_rl.commands.leaderboard_table import COLUMNS, Row, print_table, ranked, write_tables
from maml_rl.commands.streams import fail, lenient_streams, program
from maml_rl.core.outer.choice import GradientOuter, OuterConfig, ReptileOuter
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, or_null
from maml_rl.experiments.build import (
    build,
    by_showings,
    in_test_batches,
    normalised_by,
    normalises_by_episode,
    require_showings,
    takes_mini_batches,
    with_pictures,
)
from maml_rl.experiments.config import IMAGES, OMNIGLOT, RunConfig, forbidden_changes
from maml_rl.experiments.fitting import fitted, fitting_in_words
from maml_rl.experiments.flags import require_read
from maml_rl.experiments.presets import Preset, default_config, require_beginning
from maml_rl.experiments.published import FEW_SHOT_PUBLISHED
from maml_rl.experiments.runs import Trained, load_checkpoint, read_config
from maml_rl.experiments.saved_config import to_dict
from maml_rl.experiments.table import LEARNERS, learner_entry, names_for
from maml_rl.experiments.training import build_new, complete, require_completable
from maml_rl.storage import checkpoint as checkpoints
from maml_rl.storage.atomic import require_writable, write_atomically
from maml_rl.storage.checkpoint import Checkpoint, CheckpointError, plain_state, without
from maml_rl.storage.checkpoint_file import read_about
from maml_rl.storage.log import LogError, read_columns
from maml_rl.storage.run_folder import RunFolder
from maml_rl.supervised.episodes import EpisodeConfig, Rotations, supplies
from maml_rl.supervised.omniglot import SplitName
from maml_rl.supervised.showings import AskedBy
from maml_rl.training.trainer import TrainingError

MAX_SHIPPED_BYTES = 2_500_000
ASKED: tuple[str, ...] = ("env", "split", "test_rotations", "ways", "shots", "num_episodes", "test_queries", "seed")
ASKED += ("protocol", "norm", "test_batch_size")


ASKED_BEFORE = {"split": "vinyals", "test_rotations": "classes", "protocol": "support-query", "norm": None}
ASKED_BEFORE |= {"test_batch_size": None}
"""Earlier versions, which did not save these, asked nothing else."""

EXAMPLES = (
    "python scripts/leaderboard.py --output-dir runs/board --minutes 10",
    "python scripts/leaderboard.py --output-dir runs/two --learners maml matching",
)


@dataclass(frozen=True)
class LeaderboardCommand:
    """Train or load few-shot learners under one budget, and score all alike."""

    output_dir: Path
    """Folder for leaderboard.csv, .json, .md and .png; runs/, a run folder for each learner; rows/, its scores; and
    checkpoints/, all that evaluation needs to score it again. Finished work there is reused."""
    learners: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = tuple(names_for("pictures"))
    """Learners to compare, each with the settings of its paper."""
    load: dict[str, Path] = field(default_factory=dict)
    """LEARNER RUN_DIR pairs: finished runs to score in place of training; their ways and shots may differ."""
    init_from: dict[str, Path] = field(default_factory=dict)
    """LEARNER RUN_DIR pairs: the run whose parameters the learner's training begins with, as in training. Its minutes
    count as the learner's."""
    env: Literal["omniglot", "images"] = "omniglot"
    """Data. images: your own pictures, as in training."""
    ways: int = 5
    """Classes in an episode."""
    shots: int = 1
    """Pictures of each class to learn from."""
    preset: Preset = "paper"
    """Default settings. paper: the papers' protocols. fast: settings that learn faster, where there are some. warm:
    MAML and FOMAML fine-tuned from the run of Prototypical Networks that --init-from names for each, and PLATIPUS from
    one of MAML."""
    minutes: float | None = None
    """Minutes of each training run, evaluations included; by default as long as the iterations take."""
    num_iterations: int | None = None
    """Iterations of each training run; by default the learner's own number."""
    evaluate_every: int | None = None
    """Iterations from point to point of the plot; by default the learner's own number."""
    train_on: Literal["train", "trainval"] = "trainval"
    """Classes to train on. trainval: the validation classes, too, as in the papers' final rows; the plot's points then
    are of the test classes."""
    split: SplitName = "vinyals"
    """Split of Omniglot, as in training; runs to load must have it, too."""
    rotations: Rotations | None = None
    """Rotations in training, with the same defaults as the training command: classes for Omniglot, none for images."""
    test_rotations: Rotations | None = None
    """Rotations in the test episodes, with the same defaults; runs to load must have them, too."""
    num_episodes: int = 10_000
    """Test episodes, the same for all."""
    test_queries: int = 1
    """Queries of each class in the test episodes."""
    protocol: AskedBy = "support-query"
    """Way of asking. support-query: all shots are shown, then the queries are asked. showings: every picture is asked
    about and then shown, as in the memory module's paper; the score is the accuracy after `shots` showings of every
    class. For learners that take no gradient steps."""
    norm: Literal["batch", "support"] | None = None
    """Normalisation of the queries at test by learners that normalise by the episode, in place of that in training.
    batch: all queries together (transductive). support: each by the support alone."""
    test_batch_size: int | None = None
    """Pictures of the support in each gradient step at test by learners that take them on mini-batches (reptile); by
    default as in the run's own settings."""
    seed: int = 1
    """Seed of training and evaluation."""
    data_root: str | None = None
    """Folder of the data; by default $MAML_RL_DATA."""
    device: str = "cpu"
    """Device of the learners: cpu, cuda or cuda:N."""
    num_threads: int = 0
    """Threads; 0 uses every core, since results do not depend on it."""
    json: bool = False
    """Print the result as one JSON line on stdout."""

    def __post_init__(self) -> None:
        for name in ("load", "init_from"):
            unknown = sorted(getattr(self, name).keys() - set(self.learners))
            if unknown:
                raise ValueError(f"{name} must name learners among {list(self.learners)}, got {unknown}")
        if self.protocol == "showings" and self.test_queries != 1:
            raise ValueError(f"test_queries must be 1 with protocol showings, got {self.test_queries}: leave it out")
        for learner in self.learners:
            if self.preset in learner_entry(learner, "pictures").presets:
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
        if command.split != EpisodeConfig.split:
            require_read(configs[command.learners[0]], {("task", "split"): command.split})
        if command.norm and not any(normalises_by_episode(config.method) for config in configs.values()):
            raise ValueError(
                f"norm {command.norm} needs a learner that normalises by the episode, got {list(configs)}: leave it out"
            )
        size = command.test_batch_size
        if size is not None and not any(takes_mini_batches(config.method) for config in configs.values()):
            raise ValueError(
                f"test_batch_size {size} needs a learner that takes steps on mini-batches, got {list(configs)}: leave "
                "it out"
            )
        configs = {learner: _fitted(config) for learner, config in configs.items()}
        for learner, config in configs.items():
            configs[learner] = _require_possible(learner, config, command)
        require_writable(command.output_dir, *(f"leaderboard.{ending}" for ending in ("csv", "json", "md", "png")))
        rows: list[Row] = []
        for learner, config in configs.items():
            run_dir, signum = _trained_run(learner, config, command)
            if signum is not None:
                print(f"stopped in {learner}; to continue: {program(*sys.argv[1:])}", file=sys.stderr)
                return 128 + signum
            rows.append(_row(learner, config, run_dir, command))
            # Write what is known, however long the others take.
            write_tables(command.output_dir, rows, _budget(command))
    except (CheckpointError, LogError, TrainingError) as error:
        return fail(error, 1)
    except (ValueError, OSError) as error:
        return fail(error, 2)
    print_table(rows)
    if command.json:
        print(json.dumps(ranked(rows)))
    return 0


def learner_config(learner: str, command: LeaderboardCommand) -> RunConfig:
    """The config that a learner is trained with: its preset under the command's budget."""
    entry = LEARNERS[learner]
    preset: Preset = command.preset if command.preset in entry.presets else "paper"
    config = default_config(command.env, learner, preset, command.ways, command.shots)
    training, method = config.training, config.method
    if command.num_iterations is not None and training.num_iterations:
        training = dataclasses.replace(training, num_iterations=command.num_iterations)
        if hasattr(method, "outer"):
            method = dataclasses.replace(method, outer=_ending_after(command.num_iterations, method.outer))
    every = training.evaluate_every if command.evaluate_every is None else command.evaluate_every
    return dataclasses.replace(
        config,
        seed=command.seed,
        init_from=str(command.init_from[learner]) if learner in command.init_from else None,
        device=command.device,
        num_threads=command.num_threads,
        training=dataclasses.replace(training, max_minutes=command.minutes, evaluate_every=every),
        method=method,
        task=dataclasses.replace(
            config.task,
            data_root=command.data_root,
            split=command.split,
            train_on=command.train_on,
            rotations=command.rotations or config.task.rotations,
            test_rotations=command.test_rotations or config.task.test_rotations,
        ),
    )


def _ending_after(num_iterations: int, outer: OuterConfig) -> OuterConfig:
    """The outer step whose schedule, if it has one, reaches zero at the last iteration."""
    if isinstance(outer, ReptileOuter):
        return dataclasses.replace(outer, reptile=dataclasses.replace(outer.reptile, decay_steps=num_iterations))
    if isinstance(outer, GradientOuter) and outer.gradient.decay == "cosine":
        return dataclasses.replace(outer, gradient=dataclasses.replace(outer.gradient, decay_steps=num_iterations))
    return outer


def _fitted(config: RunConfig) -> RunConfig:
    """The same config asking for no more pictures than the user's folder has; a note says what that changes."""
    if config.env != IMAGES:
        return config
    supply = supplies(config.task)
    episodes = fitted(config.task, config.task, *supply)
    if note := fitting_in_words(config.task, episodes, *supply):
        print(f"note: {config.learner}: {note}", file=sys.stderr)
    return dataclasses.replace(config, task=episodes)


def _require_possible(learner: str, config: RunConfig, command: LeaderboardCommand) -> RunConfig:
    """Refuse what training, or the scoring after it, would refuse only after hours of the other learners.

    Returns:
        The same settings, with their pictures named permanently.
    Raises:
        ValueError: if settings, pictures or folders do not fit.
    """
    _known(_row_file(learner, command))
    if command.protocol == "showings":
        require_showings(config)
    if learner in command.load:
        _require_loadable(command.load[learner], config)
        with _opened(command.load[learner], command):
            pass  # it loads, and its episodes can be drawn
        return config
    built = build_new(config)
    built.close()
    config = with_pictures(config, built)
    require_completable(config, command.output_dir / "runs" / learner)
    build(_scored(config, command)).close()
    return config


def _require_loadable(run_dir: Path, config: RunConfig) -> None:
    """Refuse a loaded run of another learner, or one that has seen the test classes in training."""
    found = read_config(run_dir)
    settings = [{"learner": each.learner, "env": each.env, **vars(each.task)} for each in (found, config)]
    for name in ("learner", "env", "split", "train_on", "test_rotations", "images"):
        is_now, must_be = (each.get(name) for each in settings)
        if is_now != must_be:
            raise ValueError(
                f"load must name a run with {name} {must_be}, but in {run_dir} {name} is {is_now}: leave it out, "
                "or choose the command's settings to fit"
            )
    asked = found.task.asking(config.task.ways, config.task.shots, None)
    there = dataclasses.replace(asked, data_root=config.task.data_root)
    build(dataclasses.replace(found, device="cpu", task=there)).close()  # refuses other pictures, too


# --- training --------------------------------------------------------------------------------------------------


def _trained_run(learner: str, config: RunConfig, command: LeaderboardCommand) -> tuple[Path, int | None]:
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
    return config.training.is_over(load_checkpoint(run_dir, "last"))


def _shipped(learner: str, command: LeaderboardCommand) -> Path:
    return command.output_dir / "checkpoints" / learner


def _ship(run_dir: Path, checkpoint: Checkpoint, path: Path) -> None:
    """Make `path` a run folder with only what evaluation needs; if the process is killed, it is whole or absent."""
    config = read_config(run_dir)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, data_root=None))
    aside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    with RunFolder.create(aside, to_dict(config)) as folder:
        state = without(checkpoint.state, LEARNERS[config.learner].training_only)
        checkpoints.save(folder.checkpoints, dataclasses.replace(checkpoint, state=state))
        checkpoints.point(folder.checkpoints, "latest", checkpoint.iteration)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(aside, path)


# --- scoring ---------------------------------------------------------------------------------------------------


def _row(learner: str, config: RunConfig, run_dir: Path, command: LeaderboardCommand) -> Row:
    """The learner's row of scores; read back if these parameters have been scored on these episodes before."""
    file, shipped = _row_file(learner, command), _shipped(learner, command)
    checkpoint = load_checkpoint(run_dir, "last")
    parameters = safetensors.torch.save(plain_state(without(checkpoint.state, LEARNERS[learner].training_only)))
    asked = {name: getattr(command, name) for name in ASKED} | {"test_rotations": config.task.test_rotations}
    asked["parameters"] = hashlib.sha256(parameters).hexdigest()
    known = _known(file)
    if known.get("asked") == asked and known.keys() >= set(COLUMNS):  # earlier versions wrote fewer
        print(f"{file}: scored before", file=sys.stderr)
        return known
    if len(parameters) > MAX_SHIPPED_BYTES:
        print(f"{run_dir}: more than {MAX_SHIPPED_BYTES} bytes of parameters are not shipped", file=sys.stderr)
    elif run_dir != shipped:
        _ship(run_dir, checkpoint, shipped)
    curve, scored = _score(run_dir, command)
    again, batch = shipped if shipped.exists() else run_dir, command.test_batch_size
    row = {
        "asked": asked,
        "learner": learner,
        "accuracy": curve.mean[-1],
        "ci95": or_null(curve.ci95)[-1],
        "published": FEW_SHOT_PUBLISHED.get((learner, command.ways, command.shots)) if scored.env == OMNIGLOT else None,
        "norm": scored.method.network.norm if hasattr(scored.method, "network") else "none",
        "gradient_steps": curve.gradient_steps[-1],
        "split": scored.task.split if scored.env == OMNIGLOT else "folders",
        "trained_on": scored.task.train_on,
        "init_from": scored.init_from,
        "training_seed": scored.seed,
        "train_ways": scored.task.training.ways,
        "train_shots": scored.task.training.shots,
        "iterations": checkpoint.iteration,
        "minutes": checkpoint.counters["wall_seconds"] / 60.0,
        "evaluate": f"python scripts/evaluate.py {again} --num-tasks {command.num_episodes} "
        f"--ways {command.ways} --shots {command.shots} --test-queries {command.test_queries} --seed {command.seed}"
        + (f" --protocol {command.protocol}" if command.protocol != "support-query" else "")
        + (f" --norm {command.norm}" if command.norm and normalises_by_episode(scored.method) else "")
        + (f" --test-batch-size {batch}" if batch is not None and takes_mini_batches(scored.method) else ""),
        **_history(run_dir, checkpoint, curve, known, command),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, f"{json.dumps(row, indent=1)}\n".encode())
    return row


def _row_file(learner: str, command: LeaderboardCommand) -> Path:
    return command.output_dir / "rows" / f"{learner}.json"


def _known(file: Path) -> Row:
    """The row in `file`, completed where earlier versions wrote less; empty if there is none."""
    if not file.exists():
        return {}
    row = {"init_from": None} | json.loads(file.read_text())
    row.setdefault("training_seed", row["asked"]["seed"])  # one flag sets both
    return row | {"asked": ASKED_BEFORE | row["asked"]}


def _scored(saved: RunConfig, command: LeaderboardCommand) -> RunConfig:
    """The settings of a run with those of the leaderboard's evaluation in their place."""
    asked = saved.task.asking(command.ways, command.shots, command.test_queries)
    method = saved.method
    if command.norm is not None and normalises_by_episode(method):
        method = normalised_by(method, command.norm)
    if command.test_batch_size is not None and takes_mini_batches(method):
        method = in_test_batches(method, saved.learner, command.test_batch_size)
    return dataclasses.replace(
        saved,
        method=method,
        device=command.device,
        num_threads=command.num_threads,
        evaluation=dataclasses.replace(saved.evaluation, num_tasks=command.num_episodes, seed=command.seed),
        task=dataclasses.replace(asked, data_root=command.data_root, evaluate_on="test"),
    )


def _opened(run_dir: Path, command: LeaderboardCommand) -> contextlib.AbstractContextManager[Trained]:
    return Run(run_dir, _scored(read_config(run_dir), command)).opened()


def _score(run_dir: Path, command: LeaderboardCommand) -> tuple[AdaptationCurve, RunConfig]:
    print(f"{run_dir}: {command.num_episodes} episodes", file=sys.stderr)
    with _opened(run_dir, command) as trained:
        built = trained.built
        at_the_end = built.evaluation.scored_after[-1:]  # a row needs no more; all of Reptile's take thrice as long
        asked = dataclasses.replace(built, evaluation=built.evaluation.only(at_the_end))
        asked = by_showings(asked) if command.protocol == "showings" else asked
        curve = asked.curve(trained.state, trained.checkpoint.iteration)
    return curve, trained.config


def _history(
    run_dir: Path, checkpoint: Checkpoint, curve: AdaptationCurve, known: Row, command: LeaderboardCommand
) -> Row:
    """The commit that trained it, and minutes and scores during training, if its episodes had this size; shipped
    parameters alone have neither."""
    own = read_config(run_dir).task
    is_own_size = (own.ways, own.shots) == (command.ways, command.shots)
    if not (run_dir / "metrics.csv").exists() and known:
        return {"commit": known["commit"], "progress": known["progress"] if is_own_size else []}
    about = read_about(run_dir / "checkpoints" / f"{checkpoint.name}.json")
    names = ["wall_seconds", f"eval_{curve.metric}_{curve.gradient_steps[-1]}"]
    columns = read_columns(run_dir / "metrics.csv", names) if (run_dir / "metrics.csv").exists() else {}
    seconds, scores = (columns.get(name, {}) for name in names)
    progress = [[seconds[iteration] / 60.0, score] for iteration, score in scores.items()]
    return {"commit": about.get("git_commit"), "progress": progress if is_own_size else []}


def _budget(command: LeaderboardCommand) -> str:
    iterations = "the learner's own" if command.num_iterations is None else str(command.num_iterations)
    minutes = "" if command.minutes is None else f"{command.minutes:g} minutes or "
    return f"{minutes}{iterations} iterations"
