"""The command line of the paper's comparison: MAML and its rivals on the same fresh tasks."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from maml_rl.api.run import Run
from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import fail, lenient_streams, program
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, or_null, plus_minus
from maml_rl.evaluation.statistics import Estimate, probability_of_improvement
from maml_rl.experiments.build import build, require_tasks
from maml_rl.experiments.config import Physics, RunConfig, kind_of
from maml_rl.experiments.environments import full_id, measured
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.published import PUBLISHED, in_published_physics
from maml_rl.experiments.runs import Trained, read_config
from maml_rl.experiments.task_lists import TaskList, described_tasks, task_list, tasks_in_words
from maml_rl.experiments.training import build_new, complete, require_completable
from maml_rl.experiments.trust import imports_of
from maml_rl.pictures.plots import LabelledCurve, adaptation_plot, save_figure
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.storage.atomic import require_writable, write_atomically
from maml_rl.storage.checkpoint import CheckpointError
from maml_rl.storage.log import LogError
from maml_rl.training.trainer import TrainingError

Method = Literal["maml", "fomaml", "pretrained", "random", "oracle"]

LABELS: dict[Method, str] = {
    "maml": "MAML",
    "fomaml": "first-order MAML",
    "pretrained": "pretrained on all tasks",
    "random": "random initialisation",
    "oracle": "oracle, told its task",
}


EXAMPLES = (
    "python scripts/compare.py --env maml/Navigation2D-v0 --output-dir runs/c",
    "python scripts/compare.py --env AntVel --output-dir runs/d --methods maml",
)


@dataclass(frozen=True)
class CompareCommand:
    """Train or load MAML and its rivals, score all on the same tasks, draw one plot."""

    env: str
    """A task environment's id or short name, as in training."""
    output_dir: Path
    """Folder for a run folder of each method, comparison.csv, .json and .png. Finished work there is reused."""
    methods: tuple[Method, ...] = ("maml", "fomaml", "pretrained", "random", "oracle")
    """Methods to compare."""
    load: dict[str, Path] = field(default_factory=dict)
    """METHOD RUN_DIR pairs: finished runs to score in place of training."""
    physics: Physics | None = None
    """Physics of robots, in place of the one that the id names."""
    preset: Literal["paper", "fast"] = "paper"
    """Default settings. paper: the paper's protocol. fast: settings that learn faster, where there are some."""
    observations: Literal["raw", "normalised"] | None = None
    """Observations that the policies see: raw, as the environment gives them, or normalised as in training, by the
    numbers that each run has measured; by default the preset's."""
    num_iterations: int | None = None
    """Iterations of each training run; by default the preset's."""
    num_tasks: int | None = None
    """Fresh tasks to score on; by default 40."""
    tasks: str | None = None
    """Tasks to score on in place of fresh ones. published: those of the published test script, 40 of the paper's
    environments. Or a JSON or CSV file of the tasks' numbers by name."""
    num_steps: int | None = None
    """Gradient steps on each task; by default as many as the paper published, else 3. The oracle takes none."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint of each run: the best by training score, as the paper chooses, or the last."""
    seed: int = 1
    """Seed of training and evaluation."""
    num_threads: int = 0
    """Threads; 0 uses every core, since results do not depend on it."""
    json: bool = False
    """Print the result as one JSON line on stdout."""

    def __post_init__(self) -> None:
        unknown = sorted(self.load.keys() - set(self.methods))
        if unknown:
            raise ValueError(f"load must name methods among {list(self.methods)}, got {unknown}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must be named once each, at least one, got {list(self.methods)}")
        if self.num_steps is not None and self.num_steps < 0:
            raise ValueError(f"num_steps must be at least 0, got {self.num_steps}")
        if self.tasks is not None and self.num_tasks is not None:
            raise ValueError(
                f"--num-tasks {self.num_tasks} must be left out with --tasks, which names the tasks to score on"
            )


class Score(NamedTuple):
    """The scores of a method."""

    curve: AdaptationCurve
    step_sizes: Sequence[float]  # of its gradient steps
    run: Path


@lenient_streams()
def compare(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status.

    0 done, 1 a training run failed, 2 refused, 128 + n stopped by signal n; the same command goes on then.
    """
    try:
        command = parse(CompareCommand, EXAMPLES, arguments)
        base = base_config(command)
        configs = {method: measured(method_config(method, command)) for method in command.methods}
        for method, config in configs.items():
            _require_possible(method, config, command)
        require_writable(command.output_dir, "comparison.csv", "comparison.json", "comparison.png")
        for method, config in configs.items():
            if method not in command.load:
                signum = complete(config, command.output_dir / method)
                if signum is not None:
                    print(f"stopped in {method}; to continue: {program(*sys.argv[1:])}", file=sys.stderr)
                    return 128 + signum
        scores = {method: _score(method, config, command) for method, config in configs.items()}
        curves = {method: score.curve for method, score in scores.items()}
        result = _described(command, base, scores)
        _write(command, base, curves, result)
    except (CheckpointError, LogError, TrainingError, SamplingError) as error:
        return fail(error, 1)
    except (ValueError, OSError) as error:
        return fail(error, 2)
    _print_table(base, result, curves)
    if command.json:
        print(json.dumps(result))
    return 0


def base_config(command: CompareCommand, learner: str = "maml") -> RunConfig:
    """The environment's preset, in the physics that is asked for, or else the defaults.

    Raises:
        ValueError: if there is nothing to compare in it, or no such preset for it.
    """
    env = full_id(command.env, command.physics)
    if kind_of(env) != "reinforcement":
        raise ValueError(f"env must be a task environment: {env} has no oracle and no published comparison")
    preset = default_config(env, learner, command.preset)
    iterations = preset.training.num_iterations if command.num_iterations is None else command.num_iterations
    observations = command.observations or preset.task.observations
    return dataclasses.replace(
        preset,
        seed=command.seed,
        num_threads=command.num_threads,
        training=dataclasses.replace(preset.training, num_iterations=iterations),
        task=dataclasses.replace(preset.task, observations=observations),
    )


def method_config(method: Method, command: CompareCommand) -> RunConfig:
    """The config to train a method with, and its step sizes at scoring: the paper's if it has any, else MAML's."""
    base = base_config(command, "fomaml" if method == "fomaml" else "maml")
    published = PUBLISHED.get(in_published_physics(base.env))
    evaluation = dataclasses.replace(base.evaluation, num_steps=len(published.maml) - 1 if published else 3)
    config = dataclasses.replace(base, evaluation=evaluation)
    if method in ("maml", "fomaml"):
        return config
    config = _with_inner(config, num_steps=0)
    if method == "oracle":
        evaluation = dataclasses.replace(evaluation, num_steps=0)
        return dataclasses.replace(config, evaluation=evaluation, task=dataclasses.replace(config.task, oracle=True))
    iterations = base.training.num_iterations if method == "pretrained" else 0
    training = dataclasses.replace(base.training, num_iterations=iterations)
    return _with_published_step(method, dataclasses.replace(config, training=training))


def _with_published_step(method: Method, config: RunConfig) -> RunConfig:
    """The settings with the paper's first step for a policy that is not meta-trained; later steps are shortened as
    MAML's are."""
    published = PUBLISHED.get(in_published_physics(config.env))
    if published is None or method not in ("pretrained", "random"):
        return config
    size = published.pretrained_step_size if method == "pretrained" else published.random_step_size
    return _with_inner(config, test_step_size=size)


def _with_inner(config: RunConfig, **changes: Any) -> RunConfig:
    inner = dataclasses.replace(config.method.inner, **changes)
    return dataclasses.replace(config, method=dataclasses.replace(config.method, inner=inner))


def _require_possible(method: Method, config: RunConfig, command: CompareCommand) -> None:
    """Refuse what training, or the scoring after it, would refuse only after hours of the other methods.

    Raises:
        ValueError: if settings, tasks or folders do not fit.
    """
    if method in command.load:
        _require_loadable(method, command.load[method], config)
        with _opened(method, config, command):
            pass  # it loads, and its tasks fit
        return
    require_completable(config, command.output_dir / method)
    with contextlib.closing(build_new(config)) as new:
        require_tasks(new, in_training=True)
    with contextlib.closing(build(_scored(config, method, config, command))) as built:
        if (tasks := _tasks(config, command)) is not None:
            tasks.of(built.family.source, config.env)
        else:
            require_tasks(built, in_training=False)


def _require_loadable(method: str, run_dir: Path, config: RunConfig) -> None:
    """Refuse a loaded run of another environment or method."""
    found = read_config(run_dir)
    for name, tells in MARKS.items():  # in this order: the runs of one learner have the same settings
        is_now, must_be = tells(found), tells(config)
        if is_now != must_be:
            raise ValueError(f"load must name a run of {method}, but in {run_dir} {name} is {is_now}, not {must_be}")


MARKS: dict[str, Callable[[RunConfig], object]] = {
    "env": lambda config: config.env,
    "learner": lambda config: config.learner,
    "oracle": lambda config: config.task.oracle,
    "inner.num_steps of 0": lambda config: config.method.inner.num_steps == 0,
}
"""Tests on settings that decide whether a run is of a method, by name."""


def _scored(saved: RunConfig, method: Method, config: RunConfig, command: CompareCommand) -> RunConfig:
    """The settings of a run with those of the comparison's evaluation in their place."""
    steps = config.evaluation.num_steps if command.num_steps is None or method == "oracle" else command.num_steps
    return dataclasses.replace(
        _with_published_step(method, saved),
        device="cpu",
        num_threads=command.num_threads,
        evaluation=dataclasses.replace(
            config.evaluation, num_tasks=_num_tasks(config, command), num_steps=steps, seed=command.seed
        ),
        task=dataclasses.replace(saved.task, sampling=config.task.sampling),
    )


def _tasks(config: RunConfig, command: CompareCommand) -> TaskList | None:
    return None if command.tasks is None else task_list(command.tasks, config)


def _num_tasks(config: RunConfig, command: CompareCommand) -> int:
    tasks = _tasks(config, command)
    if tasks is not None:
        return len(tasks.entries)
    return 40 if command.num_tasks is None else command.num_tasks


def _run_dir(method: Method, command: CompareCommand) -> Path:
    return command.load.get(method, command.output_dir / method)


def _opened(method: Method, config: RunConfig, command: CompareCommand) -> contextlib.AbstractContextManager[Trained]:
    run_dir = _run_dir(method, command)
    settings = _scored(read_config(run_dir), method, config, command)
    which = command.checkpoint if settings.training.num_iterations else "last"  # nothing was scored in no iteration
    trusted = tuple(each.name for each in imports_of(config))
    return Run(run_dir, settings, trusted).opened(which, tasks=_tasks(config, command))


def _score(method: Method, config: RunConfig, command: CompareCommand) -> Score:
    with _opened(method, config, command) as trained:
        curve = trained.built.curve(trained.state, trained.checkpoint.iteration)
    sizes = trained.config.method.inner.test_step_sizes(curve.steps[-1])
    return Score(curve, sizes, _run_dir(method, command))


def _described(command: CompareCommand, base: RunConfig, scores: dict[Method, Score]) -> dict[str, Any]:
    published = PUBLISHED.get(base.env)
    return {
        "metric": "return",
        "env": base.env,
        "num_tasks": _num_tasks(base, command),
        "tasks": described_tasks(_tasks(base, command), command.seed),
        "seed": command.seed,
        "checkpoint": command.checkpoint,
        "methods": {
            method: {
                "mean": score.curve.mean,
                "ci95": or_null(score.curve.ci95),
                "gain": score.curve.gain.mean(dim=1).tolist(),
                "share_worse": score.curve.share_worse,
                "step_sizes": list(score.step_sizes),
                "run": str(score.run),
            }
            for method, score in scores.items()
        },
        "probability_of_improvement": _improvements({method: score.curve for method, score in scores.items()}),
        "published": published._asdict() if published else None,
    }


def _improvements(curves: dict[Method, AdaptationCurve]) -> dict[str, dict[str, float | None]]:
    """The probability that the first method ends higher on a task than each other one, with its 95 % interval."""
    (first, own), *others = ((method, curve.per_task[-1:].double().numpy()) for method, curve in curves.items())
    return {
        f"{first} over {method}": dict(zip(Estimate._fields, or_null(found), strict=True))
        for method, other in others
        for found in [probability_of_improvement(own, other, higher_is_better=True)]
    }


def _write(
    command: CompareCommand, base: RunConfig, curves: dict[Method, AdaptationCurve], result: dict[str, Any]
) -> None:
    """Write the numbers as CSV and JSON, and the plot; each file whole or not at all."""
    command.output_dir.mkdir(parents=True, exist_ok=True)
    published = PUBLISHED.get(base.env)
    longest = max(len(curve.mean) for curve in curves.values())
    lines, text = [], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "gradient_steps", "return", "ci95", "gain", "share_worse", "published"])
    for method, curve in curves.items():
        reference = _reference(method, base)
        rows = zip(curve.mean, or_null(curve.ci95), curve.gain.mean(dim=1).tolist(), curve.share_worse, strict=True)
        for step, row in enumerate(rows):
            writer.writerow([method, step, *row, reference[step] if step < len(reference) else ""])
        # The oracle takes no step: draw a level line across the plot.
        times = longest if len(curve.mean) == 1 else 1
        means, halves = curve.mean * times, curve.ci95 * times
        lines.append(LabelledCurve(LABELS[method], means, halves, False, range(len(means)), curve.used))
    if published is None:
        print(f"no published numbers for {base.env}: the plot has no reference lines", file=sys.stderr)
    else:
        for name, values in (
            ("MAML", published.maml),
            ("pretrained", published.pretrained),
            ("random", published.random),
        ):
            lines.append(LabelledCurve(f"{name}, published", list(values), None, reference=True))
        lines.append(LabelledCurve("oracle, published", [published.oracle] * longest, None, reference=True))
    figure = adaptation_plot(lines, "return", f"{base.env_name}: {_count_of_tasks(result)}")
    save_figure(figure, command.output_dir / "comparison.png")
    write_atomically(command.output_dir / "comparison.csv", text.getvalue().encode())
    write_atomically(command.output_dir / "comparison.json", f"{json.dumps(result, indent=1)}\n".encode())


def _count_of_tasks(result: dict[str, Any]) -> str:
    return f"{result['num_tasks']} {tasks_in_words(result['tasks'])}"


def _reference(method: Method, base: RunConfig) -> tuple[float, ...]:
    """The published means of a method; empty if the paper has none."""
    published = PUBLISHED.get(base.env)
    if published is None or method == "fomaml":
        return ()
    return (published.oracle,) if method == "oracle" else getattr(published, method)


def _print_table(base: RunConfig, result: dict[str, Any], curves: dict[Method, AdaptationCurve]) -> None:
    longest = max(len(curve.mean) for curve in curves.values())
    print(
        f"{base.env}, {_count_of_tasks(result)}: return after 0, 1, ... gradient steps; below it the mean gain over 0 "
        "steps and the share of tasks made worse, and the published return",
        file=sys.stderr,
    )
    table = Table(box=SIMPLE_HEAD, padding=0)  # narrow: five columns fit into a terminal of 80
    table.add_column("method")
    for step in range(longest):
        table.add_column(str(step), justify="right")
    for method, curve in curves.items():
        cells = [f" {mean:.1f} {plus_minus(half, '.1f')}" for mean, half in zip(curve.mean, curve.ci95, strict=True)]
        table.add_row(method, *cells)
        if longest > 1 and len(curve.mean) > 1:
            gains = zip(curve.gain.mean(dim=1).tolist()[1:], curve.share_worse[1:], strict=True)
            table.add_row("  gain, worse", "", *(f" {gain:+.1f}, {worse:.0%}" for gain, worse in gains))
        if _reference(method, base):
            table.add_row("", *(f"{value:.1f}" for value in _reference(method, base)[:longest]), style="dim")
    Console(stderr=True).print(table)
    for pair, found in result["probability_of_improvement"].items():
        print(f"{pair} on a task, after the last step: with probability {found['value']:.2f}", file=sys.stderr)
