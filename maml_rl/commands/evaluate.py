"""The command line of evaluation: a run's checkpoint on tasks that it has not seen."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from maml_rl.api.run import Run
from maml_rl.commands.command_line import parse
from maml_rl.commands.evaluate_report import (
    likelihood_described,
    norm_of,
    print_table,
    step_sizes,
    title_of,
    write_results,
)
from maml_rl.commands.evaluate_seeds import TogetherScored, intervals
from maml_rl.commands.streams import fail, lenient_streams
from maml_rl.core.contracts import TaskFamily
from maml_rl.core.keys import EVALUATION, Key
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, or_null
from maml_rl.evaluation.seeds import over_seeds
from maml_rl.experiments.build import by_showings, in_test_batches, normalised_by, require_showings, takes_mini_batches
from maml_rl.experiments.config import OMNIGLOT, RunConfig
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.experiment import runs_of
from maml_rl.experiments.flags import Setting, learners_in_words, require_read
from maml_rl.experiments.runs import (
    Trained,
    WhichCheckpoint,
    pictures_as_trained,
    read_config,
    to_be_read,
)
from maml_rl.experiments.seeds import require_equal_progress, require_one_experiment
from maml_rl.experiments.table import LEARNERS
from maml_rl.experiments.task_lists import (
    TaskList,
    described_tasks,
    published_beside,
    task_list,
)
from maml_rl.experiments.trust import trusted_names
from maml_rl.experiments.zoo import name_of as zoo_name
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.storage.atomic import require_writable
from maml_rl.storage.cache import cache_folder
from maml_rl.supervised.classification import Accuracy, GivenEpisodes
from maml_rl.supervised.episodes import Part, data_folder, one_shot_examples
from maml_rl.supervised.omniglot import one_shot_runs
from maml_rl.supervised.showings import AskedBy

EXAMPLES = (
    "python scripts/evaluate.py runs/mine",
    "python scripts/evaluate.py runs/mine --num-steps 5 --actions mean --json",
    "python scripts/evaluate.py runs/seed1 runs/seed2 runs/seed3 --tasks published",
)


@dataclass(frozen=True)
class EvaluateCommand:
    """Score a trained learner before and after adaptation, on tasks it has not seen."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folder of a training run; or several, of runs that differ in their seed alone, which are scored on the same tasks
    and taken together; or that of an experiment, which stands for all its runs."""
    env: str | None = None
    """The run's environment, if it is one of your own, module:Class: naming it here allows the import of its module."""
    trust_env: bool = False
    """Allow the import of whatever module the run names for its environment, without --env."""
    checkpoint: WhichCheckpoint = "last"
    """Checkpoint of the run: the best by training score, as the paper chooses, or the last."""
    num_tasks: int | None = None
    """Fresh tasks to score on; by default 40, or 600 episodes of few-shot classification."""
    tasks: str | None = None
    """Tasks to score on in place of fresh ones. published: those of the published test script, 40 of the paper's
    environments. Or a file: a JSON list with an object of each task's numbers by name, or a CSV table with a column for
    each; the table that an evaluation has written will do."""
    split: Literal["test", "train"] | None = None
    """Tasks to score on, where the environment sets some aside; by default as in the run's own evaluation, test."""
    num_steps: int | None = None
    """Gradient steps on each task; by default 3 or, in few-shot classification, as in the run's own evaluation."""
    first_step_size: float | None = None
    """Size of the first step; by default as in the run's own evaluation."""
    later_step_size: float | None = None
    """Size of the steps after it; by default as in the run's own evaluation."""
    episodes_per_task: int | None = None
    """Episodes to adapt to and score, for each number of steps; by default as in the run's own evaluation."""
    actions: Literal["sampled", "mean"] = "sampled"
    """Actions in the scored episodes. sampled: the policy as it is, as in the paper. mean: without its noise, in other
    episodes than those adapted to."""
    task_range: tuple[float, float] | None = None
    """Range to draw tasks from, in place of the training range: velocities [m/s], coordinates of goals [m],
    amplitudes."""
    seed: int = 1
    """Seed of the evaluation's tasks and episodes."""
    num_examples: int | None = None
    """Regression: examples to adapt to, and as many to score on; by default as in training."""
    num_draws: int | None = None
    """Draws from the posterior of a learner that has one, whose predictions are combined; by default as in the run's
    own evaluation."""
    norm: Literal["batch", "support"] | None = None
    """Few-shot classification: normalisation other than in training: batch (transductive) in place of support, or the
    other way round."""
    test_batch_size: int | None = None
    """Few-shot classification: pictures of the support in each gradient step at test, by learners that take them on
    mini-batches (reptile); by default as in the run's own settings."""
    part: Part = "test"
    """Few-shot classification: classes that episodes are drawn from. train: those the run has learned from, which shows
    whether it has learned too little or fails only on new classes."""
    ways: int | None = None
    """Few-shot classification: classes in an episode; by default as in the run's own evaluation. Learners with a last
    layer cannot have more classes than in training."""
    shots: int | None = None
    """Few-shot classification: pictures of each class to learn from; by default as in the run's own evaluation."""
    test_queries: int | None = None
    """Few-shot classification: queries of each class; by default as in the run's own evaluation."""
    protocol: AskedBy = "support-query"
    """Few-shot classification: way of asking. support-query: all shots are shown, then the queries are asked. showings:
    every picture is asked about and then shown, class after class in turns, as in the memory module's paper; the result
    is the accuracy after 1, 2, ... showings of every class. For learners that take no gradient steps."""
    one_shot_runs: bool = False
    """Omniglot: in place of fresh episodes, the 20 runs of Lake et al. 2015, of 20 classes each."""
    data_root: str | None = None
    """Few-shot classification: folder of the pictures; by default the one that the run was trained with or, if that is
    not known, $MAML_RL_DATA."""
    device: str = "cpu"
    """Device for policies and adaptation: cpu, cuda or cuda:N."""
    num_threads: int = 0
    """Threads; 0 uses every core, since results do not depend on it."""
    output: Path | None = None
    """Path of the results without suffix: OUTPUT.csv, a row per task, and OUTPUT.json; by default evaluation.* in the
    run's folder or, of several runs, in the folder that they lie in; for zoo:NAME, which stays as it is,
    NAME_evaluation.* here. Earlier results are replaced."""
    json: bool = False
    """Print the result as one JSON line on stdout."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("RUNS must name the folder of a run, got none")

    @property
    def run(self) -> Path:
        """The run, or the first of several."""
        return self.runs[0]


@lenient_streams()
def evaluate(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation command; return the exit status: 0, 1 if an episode fails, or 2 if refused."""
    command = parse(EvaluateCommand, EXAMPLES, arguments)
    try:
        command = dataclasses.replace(command, runs=tuple(runs_of(command.runs)))
        output = command.output or _default_output(command.runs)
        tasks = None if command.tasks is None else task_list(command.tasks, read_config(command.run))
        each = [dataclasses.replace(command, runs=(run,)) for run in command.runs]
        configs = [evaluation_config(one, tasks) for one in each]
        require_one_experiment([(run, read_config(run)) for run in command.runs])
        _require_writable(output)
        with contextlib.ExitStack() as stack:
            loaded = [
                stack.enter_context(_opened(one, config, tasks)) for one, config in zip(each, configs, strict=True)
            ]
            if command.checkpoint == "last":
                reached = [trained.checkpoint.iteration for trained in loaded]
                require_equal_progress(list(zip(command.runs, reached, strict=True)))
            curves = [_curve(one, trained) for one, trained in zip(each, loaded, strict=True)]
        found = [_described(*one, tasks) for one in zip(each, curves, loaded, strict=True)]
        if len(curves) == 1:
            described = found[0]
            print_table(curves[0], loaded[0], described, command.task_range)
            write_results(output, [({}, curves[0])], described)
        else:
            seeds = [config.seed for config in configs]
            together = TogetherScored(command.runs, seeds, curves, found)
            described = together.described()
            together.print_table(title_of(loaded[0], described, command.task_range))
            write_results(output, together.labelled_curves(), described)
    except SamplingError as error:
        return fail(error, 1)
    except (ValueError, OSError) as error:
        return fail(error, 2)
    if command.json:
        print(json.dumps(described, allow_nan=False))
    return 0


def _default_output(runs: Sequence[Path]) -> Path:
    """The place of the results: in the run's folder, or in the one that all runs lie in; of a run of the zoo, here.

    Raises:
        ValueError: if several runs do not lie in one folder.
    """
    if len(runs) == 1:
        name = zoo_name(runs[0])
        return runs[0] / "evaluation" if name is None else Path(f"{name}_evaluation")
    homes = {run.resolve().parent for run in runs}
    if len(homes) > 1:
        raise ValueError("output must be given for runs that lie in different folders: name the results by --output")
    return runs[0].parent / "evaluation"


def _opened(
    command: EvaluateCommand, config: RunConfig, tasks: TaskList | None
) -> contextlib.AbstractContextManager[Trained]:
    named = trusted_names(config, command.env and full_id(command.env, None), command.trust_env)
    return Run(command.run, config, named).opened(command.checkpoint, command.actions, command.task_range, tasks)


def evaluation_config(command: EvaluateCommand, tasks: TaskList | None) -> RunConfig:
    """The run's settings with the command's in place of those they override."""
    saved = read_config(command.run)
    task, method = saved.task, saved.method
    _require_kind(command, saved)
    names = ("num_tasks", "split", "num_steps", "episodes_per_task", "num_draws")
    given = {name: getattr(command, name) for name in names if getattr(command, name) is not None}
    read: dict[Setting, Any] = {("evaluation", name): value for name, value in given.items()}
    if saved.kind == "pictures":
        task, method = _few_shot_settings(command, saved)
    if command.first_step_size is not None or command.later_step_size is not None:
        method = _with_step_sizes(command, saved, method)
        read[("method", "inner", "test_step_size")] = command.first_step_size or command.later_step_size
    require_read(saved, read, lambda path: _flag(FLAGS.get(path[-1], path[-1])))
    own: dict[str, Any] = {"num_tasks": 600 if saved.kind == "pictures" else 40, "seed": command.seed}
    own |= given if saved.kind == "pictures" else {"num_steps": 3} | given
    if tasks is not None:
        own["num_tasks"] = len(tasks.entries)
    if command.num_examples is not None:
        task = dataclasses.replace(task, num_examples=command.num_examples)
    changed = dataclasses.replace(saved, task=task, method=method)
    return to_be_read(changed, command.device, command.num_threads, **own)


FLAGS = {"test_step_size": "first_step_size"}
"""Flags whose names differ from those of their settings."""


def _require_kind(command: EvaluateCommand, saved: RunConfig) -> None:
    """Refuse flags for other kinds of tasks.

    Raises:
        ValueError: if a flag is for another kind of tasks, or for tasks that are drawn where they are given.
    """
    for name in ("num_tasks", "split"):
        if command.tasks is not None and getattr(command, name) is not None:
            value = getattr(command, name)
            raise ValueError(f"{_flag(name)} {value} must be left out with --tasks, which names the tasks to score on")
    for name in ("split", "episodes_per_task"):
        value = getattr(command, name)
        if value is None or saved.kind == "reinforcement":
            continue
        if saved.kind == "pictures":
            raise ValueError(f"{name} does not apply to {saved.env}: choose episodes by --part and --test-queries")
        raise ValueError(f"{_flag(name)} {value} applies to task environments, not to --env {saved.env}: leave it out")
    if command.num_examples is not None and saved.kind != "regression":
        raise ValueError(f"num_examples applies to regression alone, but the run's environment is {saved.env}")
    if command.num_draws is not None and not hasattr(saved.evaluation, "num_draws"):
        drawing = learners_in_words([name for name, entry in LEARNERS.items() if entry.draws])
        raise ValueError(
            f"--num-draws {command.num_draws} applies to {drawing}, not to --learner {saved.learner}: leave it out"
        )
    if saved.kind == "pictures":
        return
    names = ("norm", "test_batch_size", "ways", "shots", "test_queries", "data_root")
    given = [name for name in names if getattr(command, name) is not None]
    given += ["one_shot_runs"] if command.one_shot_runs else []
    given += ["protocol"] if command.protocol != "support-query" else []
    given += ["part"] if command.part != "test" else []
    if given:
        raise ValueError(
            f"{given[0]} applies to few-shot classification alone, but the run's environment is {saved.env}"
        )


def _with_step_sizes(command: EvaluateCommand, saved: RunConfig, method: Any) -> Any:
    """The learner's settings with other step sizes at test.

    Raises:
        ValueError: if the learner takes no steps, or none of such a size can be taken.
    """
    for name in ("first_step_size", "later_step_size"):
        size = getattr(command, name)
        if size is not None and not hasattr(method, "inner"):
            raise ValueError(
                f"{_flag(name)} {size} applies to learners that take gradient steps on a task, not to --learner "
                f"{saved.learner}: leave it out"
            )
        if size is not None and not 0.0 < size < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {size}")
    inner = method.inner
    first = inner.test_step_size_at(0) if command.first_step_size is None else command.first_step_size
    later = inner.test_step_size_at(1) if command.later_step_size is None else command.later_step_size
    inner = dataclasses.replace(inner, test_step_size=first, later_ratio=later / first)
    return dataclasses.replace(method, inner=inner)


def _few_shot_settings(command: EvaluateCommand, saved: RunConfig) -> tuple[Any, Any]:
    """Task and learner of few-shot classification with the settings that the command overrides."""
    method = saved.method if command.norm is None else normalised_by(saved.method, command.norm)
    if command.test_batch_size is not None:
        method = in_test_batches(method, saved.learner, command.test_batch_size)
    if command.one_shot_runs:
        _require_one_shot(command, saved)
    if command.protocol == "showings":
        require_showings(saved)
    episodes = saved.task.asking(command.ways, command.shots, command.test_queries)
    return dataclasses.replace(episodes.found_in(command.data_root), evaluate_on=command.part), method


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _require_one_shot(command: EvaluateCommand, saved: RunConfig) -> None:
    """Refuse what does not fit the one-shot runs: 20 characters of the second part, which the learner must not have
    seen."""
    if saved.env != OMNIGLOT or saved.task.split != "background-evaluation":
        raise ValueError(
            "one_shot_runs needs a run trained with --env omniglot --split background-evaluation, got "
            f"{saved.env} with {saved.task.split}: others have seen characters of these runs"
        )
    if not LEARNERS[saved.learner].any_ways and saved.task.ways != 20:
        ways = saved.task.ways
        raise ValueError(f"one_shot_runs needs --ways 20 in training with learner {saved.learner}, got {ways}")
    for name in ("num_tasks", "ways", "shots", "test_queries", "part", "protocol"):
        if (value := getattr(command, name)) not in (None, "test", "support-query"):
            raise ValueError(f"{_flag(name)} {value} must be left out with --one-shot-runs, whose episodes are given")


def _curve(command: EvaluateCommand, trained: Trained) -> AdaptationCurve:
    built, config = trained.built, trained.config
    if command.protocol == "showings":
        return by_showings(built).curve(trained.state, trained.checkpoint.iteration)
    if not command.one_shot_runs:
        return built.curve(trained.state, trained.checkpoint.iteration)
    runs = one_shot_runs(config.task.data_root, config.task.images)
    pairs = [one_shot_examples(run, norm_of(config)) for run in runs]
    names = [f"run{number:02}" for number in range(1, len(runs) + 1)]
    collector = GivenEpisodes(dict(zip(names, pairs, strict=True)), built.device, built.threads)
    family = TaskFamily(built.family.source, collector, Accuracy())
    given = dataclasses.replace(built.evaluation, family=family, block_size=1)
    return given.curve(built.learner, trained.state, names, Key(command.seed, EVALUATION, 0))


def data_in_words(config: RunConfig, is_judged: bool, protocol: AskedBy) -> str:
    """A phrase for the episodes or examples behind each score."""
    if protocol == "showings":
        return "the next showing of each class, whose pictures are asked about one by one and then shown"
    if config.kind == "pictures":
        count = config.task.test_queries
        return f"{count} {'query' if count == 1 else 'queries'} of each class, the same for every step"
    if config.kind == "density":
        count = config.task.num_examples
        return f"{count} numbers per task; adapted on {count} others"
    if config.kind == "regression":
        count = config.task.num_examples
        return f"{count} query examples per task, the same for every step; adapted on {count} others, in every step"
    fresh = f"{config.task.sampling.episodes_per_task} new episodes per task for every step"
    if is_judged:
        return f"{fresh}, with mean actions; adapted on as many others, with sampled actions, new for every step"
    return f"{fresh}, with sampled actions; the next step adapts on the same ones"


def _described(
    command: EvaluateCommand, curve: AdaptationCurve, trained: Trained, tasks: TaskList | None
) -> dict[str, Any]:
    """The results as JSON; the score of a task that diverged is null."""
    evaluation, checkpoint = trained.config.evaluation, trained.checkpoint
    return {
        "metric": curve.metric,
        "mean": or_null(curve.mean),
        "ci95": or_null(curve.ci95),
        "steps": list(curve.steps),
        "gradient_steps": list(curve.gradient_steps),
        "used": list(curve.used),
        "further": {
            each.metric: {"mean": or_null(each.mean), "ci95": or_null(each.ci95)} for each in curve.measures[1:]
        },
        "num_tasks": len(curve.tasks),
        "tasks": described_tasks(tasks, evaluation.seed),
        "published": [] if command.task_range else published_beside(trained.config, tasks),
        "gain": or_null(curve.gain.mean(dim=1).tolist()),
        "share_worse": curve.share_worse,
        **intervals(over_seeds([curve])),
        "step_sizes": step_sizes(trained.config),
        "episodes": data_in_words(trained.config, trained.built.evaluation.judge is not None, command.protocol),
        "actions": command.actions,
        "task_range": command.task_range,
        "split": getattr(evaluation, "split", "test"),
        "checkpoint": command.checkpoint,
        "iteration": checkpoint.iteration,
        "env_steps": checkpoint.counters.get("env_steps", 0),
        "env": trained.config.env,
        "oracle": getattr(trained.config.task, "oracle", False),
        "seed": evaluation.seed,
        **likelihood_described(curve),
    } | (_few_shot_described(command, trained) if trained.config.kind == "pictures" else {})


def _few_shot_described(command: EvaluateCommand, trained: Trained) -> dict[str, Any]:
    """The facts needed to understand an accuracy in few-shot classification."""
    config, episodes = trained.config, trained.config.task
    return {
        "data_root": str(data_folder(episodes.data_root) or cache_folder()),
        "pictures_as_trained": pictures_as_trained(command.run, trained.built),
        "learner": config.learner,
        "norm": norm_of(config),
        "test_batch_size": config.method.optimiser.test_batch_size if takes_mini_batches(config.method) else None,
        "ways": episodes.ways,
        "shots": episodes.shots,
        "queries": episodes.test_queries,
        "split": episodes.split if config.env == OMNIGLOT else "folders",
        "trained_on": episodes.train_on,
        "part": "one-shot runs" if command.one_shot_runs else command.part,
        "protocol": command.protocol,
        "rotations": episodes.test_rotations,
        "resize": episodes.images.resize,
    }


def _require_writable(output: Path) -> None:
    """Refuse an output that cannot be written, before minutes of computing."""
    if not output.parent.is_dir():
        raise ValueError(
            f"output must lie in a folder that can be written, but {output.parent} is none: name another by --output"
        )
    require_writable(output.parent, f"{output.name}.csv", f"{output.name}.json")
