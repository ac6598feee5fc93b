"""The command line of evaluation: a run's checkpoint on tasks that it has not seen."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from maml_rl.command_line import parse
from maml_rl.config import OMNIGLOT, SINUSOID, RunConfig
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, or_null, plus_minus
from maml_rl.evaluation.few_shot import accuracy_on
from maml_rl.learners import INNER_STEPS, require_read
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.supervised.episodes import Part, data_folder, one_shot_examples
from maml_rl.supervised.images import cache_folder
from maml_rl.supervised.omniglot import one_shot_runs
from maml_rl.trained import (
    Trained,
    WhichCheckpoint,
    load_trained,
    named_env,
    pictures_as_trained,
    read_config,
    warn_of_other_pictures,
)
from maml_rl.training.atomic import require_writable, write_atomically
from maml_rl.training.streams import lenient_streams

EXAMPLES = (
    "python scripts/evaluate.py runs/mine",
    "python scripts/evaluate.py runs/mine --num-steps 5 --actions mean --json",
)


@dataclass(frozen=True)
class EvaluateCommand:
    """Score a trained learner on fresh tasks after 0, 1, ... gradient steps."""

    run: Annotated[Path, tyro.conf.Positional]
    """The folder of a training run."""
    env: str | None = None
    """The run's environment, if it is one of your own, module:Class: naming it here allows the import of its module."""
    trust_env: bool = False
    """Allow the import of whatever module the run names for its environment, without --env."""
    checkpoint: WhichCheckpoint = "last"
    """Checkpoint of the run: the best by training score, as the paper chooses, or the last."""
    num_tasks: int | None = None
    """Fresh tasks: by default 40, or 600 episodes of few-shot classification."""
    split: Literal["test", "train"] | None = None
    """Which tasks, where the environment sets some aside; by default as in the run's own evaluation, test."""
    num_steps: int | None = None
    """Gradient steps on each: by default 3, or, in few-shot classification, as in the run's own evaluation."""
    first_step_size: float | None = None
    """Size of the first step; by default as in the run's own evaluation."""
    later_step_size: float | None = None
    """Size of the steps after it; by default as in the run's own evaluation."""
    episodes_per_task: int | None = None
    """Episodes to adapt to and score, for each number of steps; by default as in the run's own evaluation."""
    actions: Literal["sampled", "mean"] = "sampled"
    """Score episodes under the policy as it is, as the paper does, or without its noise, in other episodes."""
    task_range: tuple[float, float] | None = None
    """Draw tasks from here, in place of the training range: velocities [m/s], coordinates of goals [m], amplitudes."""
    seed: int = 1
    """Evaluation seed: tasks and episodes."""
    num_examples: int | None = None
    """Sinusoid: examples to adapt to, and as many to score on; by default as in training."""
    norm: Literal["batch", "support"] | None = None
    """Few-shot classification: another policy of normalisation than in training: batch (transductive) in place of
    support, or the other way round."""
    part: Part = "test"
    """Few-shot classification: the classes that episodes are drawn from. train: those the run has learned from, to tell
    what it has not learned from what does not carry over to new classes."""
    ways: int | None = None
    """Few-shot classification: classes in an episode; by default as in the run's own evaluation. Learners with a last
    layer can tell no more apart than in training."""
    shots: int | None = None
    """Few-shot classification: pictures of each class to learn from; by default as in the run's own evaluation."""
    test_queries: int | None = None
    """Few-shot classification: queries of each class; by default as in the run's own evaluation."""
    one_shot_runs: bool = False
    """Omniglot: in place of fresh episodes, the 20 runs of Lake et al. 2015, of 20 classes each."""
    data_root: str | None = None
    """Few-shot classification: the folder of the pictures; by default the one that the run was trained with or, if that
    is not known, $MAML_RL_DATA."""
    device: str = "cpu"
    """Where policies and adaptation are computed: cpu, cuda or cuda:N."""
    num_threads: int = 0
    """Threads; 0 takes every core. Results do not depend on it."""
    output: Path | None = None
    """Write OUTPUT.csv, a row per task, and OUTPUT.json; by default evaluation.* in the run's folder, made anew."""
    json: bool = False
    """Print the result as one JSON line on stdout."""


@lenient_streams()
def evaluate(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation command; return the exit status: 0, 1 if an episode fails, or 2 if refused."""
    command = parse(EvaluateCommand, EXAMPLES, arguments)
    output = command.output or command.run / "evaluation"
    try:
        config = evaluation_config(command)
        _require_writable(output)
        named = named_env(config, command.env, command.trust_env)
        has_mean_actions = command.actions == "mean"
        trained = load_trained(command.run, config, command.checkpoint, command.task_range, has_mean_actions, named)
        warn_of_other_pictures(command.run, trained.built)
        curve = _curve(command, trained)
        described = _described(command, curve, trained)
        _print_table(curve, trained, described["episodes"], command.task_range)
        _write(output, curve, described)
    except SamplingError as error:
        return _fail(error, 1)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    if command.json:
        print(json.dumps(described, allow_nan=False))
    return 0


def evaluation_config(command: EvaluateCommand) -> RunConfig:
    """The run's settings with the command's in place of those they override."""
    saved = read_config(command.run)
    few_shot_settings = _few_shot_settings(command, saved)
    names = ("num_tasks", "split", "num_steps", "first_step_size", "later_step_size", "episodes_per_task")
    given = {name: getattr(command, name) for name in names if getattr(command, name) is not None}
    require_read(saved, {("evaluation", name): value for name, value in given.items()}, lambda path: _flag(path[-1]))
    own: dict[str, Any] = {"num_tasks": 600 if saved.is_few_shot else 40, "seed": command.seed}
    own |= given if saved.is_few_shot else {"num_steps": 3} | given
    sinusoid = saved.sinusoid
    if command.num_examples is not None:
        if saved.env != SINUSOID:
            raise ValueError(f"num_examples applies to {SINUSOID} alone, but the run's environment is {saved.env}")
        sinusoid = dataclasses.replace(sinusoid, num_examples=command.num_examples)
    return dataclasses.replace(
        saved,
        device=command.device,
        evaluation=dataclasses.replace(saved.evaluation, **own),
        sinusoid=sinusoid,
        sampling=dataclasses.replace(saved.sampling, sampler="local", num_threads=command.num_threads),
        **few_shot_settings,
    )


def _few_shot_settings(command: EvaluateCommand, saved: RunConfig) -> dict[str, Any]:
    """The settings of few-shot classification that the command overrides."""
    names = ("norm", "ways", "shots", "test_queries", "data_root")
    given = [name for name in names if getattr(command, name) is not None]
    if not saved.is_few_shot:
        given += [
            name
            for name, is_given in (("one_shot_runs", command.one_shot_runs), ("part", command.part != "test"))
            if is_given
        ]
        if given:
            name = given[0]
            raise ValueError(
                f"{name} applies to few-shot classification alone, but the run's environment is {saved.env}"
            )
        return {}
    for name in ("split", "episodes_per_task"):
        if getattr(command, name) is not None:
            raise ValueError(f"{name} does not apply to {saved.env}: choose episodes by --part and --test-queries")
    if command.norm is not None and saved.network.norm not in ("batch", "support"):
        raise ValueError(f"norm must stay {saved.network.norm}, with which the run was trained, got {command.norm}")
    if command.one_shot_runs:
        _require_one_shot(command, saved)
    episodes = saved.episodes.asking(command.ways, command.shots, command.test_queries)
    return {
        "episodes": dataclasses.replace(episodes.found_in(command.data_root), evaluate_on=command.part),
        "network": dataclasses.replace(saved.network, norm=command.norm or saved.network.norm),
    }


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _require_one_shot(command: EvaluateCommand, saved: RunConfig) -> None:
    """The runs ask for one of 20 characters of the second part, which the learner must not have seen."""
    if saved.env != OMNIGLOT or saved.episodes.split != "background-evaluation":
        raise ValueError(
            "one_shot_runs needs a run trained with --env omniglot --split background-evaluation, got "
            f"{saved.env} with {saved.episodes.split}: others have seen characters of these runs"
        )
    if saved.learner in INNER_STEPS | {"reptile": {}} and saved.episodes.ways != 20:
        ways = saved.episodes.ways
        raise ValueError(f"one_shot_runs needs --ways 20 in training with learner {saved.learner}, got {ways}")
    for name in ("num_tasks", "ways", "shots", "test_queries", "part"):
        if (value := getattr(command, name)) not in (None, "test"):
            raise ValueError(f"{_flag(name)} {value} must be left out with --one-shot-runs, whose episodes are given")


def _curve(command: EvaluateCommand, trained: Trained) -> AdaptationCurve:
    built, config = trained.built, trained.config
    try:
        if not command.one_shot_runs:
            return built.curve(trained.state, trained.checkpoint.iteration)
        runs = one_shot_runs(config.episodes.data_root, config.episodes.images)
        names = [f"run{number:02}" for number in range(1, len(runs) + 1)]
        pairs = (one_shot_examples(run, config.network) for run in runs)
        assert built.few_shot is not None
        return accuracy_on(built.few_shot, trained.state, pairs, command.seed, names, built.device)
    finally:
        built.close()


def data_in_words(config: RunConfig, is_judged: bool) -> str:
    """On which episodes or examples each score rests."""
    if config.is_few_shot:
        return f"{config.episodes.test_queries} queries of each class, the same for every step"
    if config.env == SINUSOID:
        count = config.sinusoid.num_examples
        return f"{count} query examples per task, the same for every step; adapted on {count} others, in every step"
    fresh = f"{config.sampling.episodes_per_task} new episodes per task for every step"
    if is_judged:
        return f"{fresh}, with mean actions; adapted on as many others, with sampled actions, new for every step"
    return f"{fresh}, with sampled actions; the next step adapts on the same ones"


def _print_table(
    curve: AdaptationCurve, trained: Trained, episodes: str, task_range: tuple[float, float] | None
) -> None:
    evaluation, config = trained.config.evaluation, trained.config
    part = config.episodes.evaluate_on if config.is_few_shot else evaluation.split
    kind = "tasks of training" if part == "train" else "fresh tasks"
    title = f"{config.env_id}, iteration {trained.checkpoint.iteration}, {len(curve.tasks)} {kind}"
    if config.is_few_shot:
        size = config.episodes.test
        title += f": {size.ways}-way {size.shots}-shot, {config.learner}, norm {config.network.norm}"
    if task_range is not None:
        title += f" from {task_range[0]:g} to {task_range[1]:g}"
    table = Table(title=title, caption=f"Each number rests on {episodes}.")
    own = ("gradient steps", "step size", curve.metric, "95 % interval", "std over tasks", "gain", "worse")
    others = curve.measures[1:]
    for name in (*own, *(other.metric for other in others)):
        table.add_column(name, justify="right")
    sizes = ["", *(f"{size:g}" for size in evaluation.step_sizes)]
    sizes = [sizes[step] for step in curve.steps]
    spread = curve.per_task.std(dim=1, correction=0).tolist()
    gains = curve.gain.mean(dim=1).tolist()
    columns = (sizes, curve.mean, (plus_minus(half, ".3g") for half in curve.ci95), spread, gains, curve.share_worse)
    for index, row in enumerate(zip(*columns, strict=True)):
        change = (f"{row[4]:+.4g}", f"{row[5]:.0%}") if curve.steps[index] else ("", "")
        more = [f"{other.mean[index]:.3g} {plus_minus(other.ci95[index], '.2g')}" for other in others]
        table.add_row(str(curve.steps[index]), row[0], f"{row[1]:.4g}", row[2], f"{row[3]:.3g}", *change, *more)
    Console(stderr=True).print(table)


def _described(command: EvaluateCommand, curve: AdaptationCurve, trained: Trained) -> dict[str, Any]:
    """What the JSON says; a number that is none, of a task that diverged, is null there."""
    evaluation, checkpoint = trained.config.evaluation, trained.checkpoint
    return {
        "metric": curve.metric,
        "mean": or_null(curve.mean),
        "ci95": or_null(curve.ci95),
        "steps": list(curve.steps),
        "further": {
            each.metric: {"mean": or_null(each.mean), "ci95": or_null(each.ci95)} for each in curve.measures[1:]
        },
        "num_tasks": len(curve.tasks),
        "gain": or_null(curve.gain.mean(dim=1).tolist()),
        "share_worse": curve.share_worse,
        "step_sizes": list(evaluation.step_sizes),
        "episodes": data_in_words(trained.config, trained.built.judge is not None),
        "actions": command.actions,
        "task_range": command.task_range,
        "split": evaluation.split,
        "checkpoint": command.checkpoint,
        "iteration": checkpoint.iteration,
        "env_steps": checkpoint.counters.get("env_steps", 0),
        "env": trained.config.env_id,
        "oracle": trained.config.oracle,
        "seed": evaluation.seed,
    } | (_few_shot_described(command, trained) if trained.config.is_few_shot else {})


def _few_shot_described(command: EvaluateCommand, trained: Trained) -> dict[str, Any]:
    """What a number of few-shot classification means nothing without."""
    config, episodes = trained.config, trained.config.episodes
    return {
        "data_root": str(data_folder(episodes.data_root) or cache_folder()),
        "pictures_as_trained": pictures_as_trained(command.run, trained.built),
        "learner": config.learner,
        "norm": config.network.norm,
        "ways": episodes.ways,
        "shots": episodes.shots,
        "queries": episodes.test_queries,
        "split": episodes.split if config.env == OMNIGLOT else "folders",
        "trained_on": episodes.train_on,
        "part": "one-shot runs" if command.one_shot_runs else command.part,
        "rotations": episodes.test_rotations,
        "resize": episodes.images.resize,
    }


def _require_writable(output: Path) -> None:
    """Refuse early, before minutes of computing."""
    if not output.parent.is_dir():
        raise ValueError(
            f"output must lie in a folder that can be written, but {output.parent} is none: name another by --output"
        )
    require_writable(output.parent, f"{output.name}.csv", f"{output.name}.json")


def _write(output: Path, curve: AdaptationCurve, described: dict[str, Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [_task_columns(task) for task in curve.tasks]
    scores, *more = ([f"{each.metric}_{step}" for step in each.steps] for each in curve.measures)
    writer.writerow(["task", *columns[0], *scores, "gain", *itertools.chain(*more)])
    for index, described_task in enumerate(columns):
        own, *others = (each.per_task[:, index].tolist() for each in curve.measures)
        gain = curve.gain[-1, index].item()
        writer.writerow([index, *described_task.values(), *own, gain, *itertools.chain(*others)])
    write_atomically(output.with_name(f"{output.name}.csv"), text.getvalue().encode())
    data = json.dumps(described, indent=1, allow_nan=False) + "\n"
    write_atomically(output.with_name(f"{output.name}.json"), data.encode())


def _task_columns(task: Any) -> dict[str, Any]:
    return dataclasses.asdict(task) if dataclasses.is_dataclass(task) else {"value": task}  # type: ignore[arg-type]


def _fail(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status
