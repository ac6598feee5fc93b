"""The command line of the paper's comparison: MAML beside what it must beat, on the same fresh tasks."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from maml_rl.build import build, require_tasks
from maml_rl.cli import build_new, complete, require_completable
from maml_rl.command_line import parse
from maml_rl.config import FEW_SHOT, SINUSOID, RunConfig
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, EvaluationConfig, or_null, plus_minus
from maml_rl.evaluation.plots import LabelledCurve, adaptation_plot, save_figure
from maml_rl.evaluation.published import PUBLISHED
from maml_rl.presets import PRESETS, with_preset
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.trained import Trained, load_trained, read_config
from maml_rl.training.atomic import require_writable, write_atomically
from maml_rl.training.checkpoint import CheckpointError
from maml_rl.training.log import LogError
from maml_rl.training.streams import lenient_streams, program
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
    """Holds a run folder for each method, comparison.csv, .json and .png. Finished work there is reused."""
    methods: tuple[Method, ...] = ("maml", "fomaml", "pretrained", "random", "oracle")
    """Methods to compare."""
    load: dict[str, Path] = field(default_factory=dict)
    """METHOD RUN_DIR pairs: finished runs to score in place of training."""
    physics: Literal["rllab", "gym"] | None = None
    """Physics of robots, in place of the one that the id names."""
    preset: Literal["paper", "fast"] = "paper"
    """paper: the paper's protocol. fast: where there are some, settings that learn faster."""
    num_iterations: int | None = None
    """Iterations of each training run; by default the preset's."""
    num_tasks: int = 40
    """Fresh tasks to score on."""
    num_steps: int | None = None
    """Gradient steps on each: by default as many as were published, else 3. The oracle takes none."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint of each run: the best by training score, as the paper chooses, or the last."""
    seed: int = 1
    """Training and evaluation seed."""
    num_threads: int = 0
    """Threads; 0 takes every core. Results do not depend on it."""
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


@lenient_streams()
def compare(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status.

    0 done, 1 a training run failed, 2 refused, 128 + n stopped by signal n; the same command goes on then.
    """
    try:
        command = parse(CompareCommand, EXAMPLES, arguments)
        base = base_config(command)
        configs = {method: method_config(method, base) for method in command.methods}
        for method, config in configs.items():
            _require_possible(method, config, command)
        require_writable(command.output_dir, "comparison.csv", "comparison.json", "comparison.png")
        for method, config in configs.items():
            if method not in command.load:
                signum = complete(config, command.output_dir / method)
                if signum is not None:
                    print(f"stopped in {method}; to continue: {program(*sys.argv[1:])}", file=sys.stderr)
                    return 128 + signum
        curves = {method: _score(method, config, command) for method, config in configs.items()}
        result = _described(command, base, configs, curves)
        _write(command, base, curves, result)
    except (CheckpointError, LogError, TrainingError, SamplingError) as error:
        return _fail(error, 1)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    _print_table(base, curves)
    if command.json:
        print(json.dumps(result))
    return 0


def base_config(command: CompareCommand) -> RunConfig:
    """The preset of the environment, in the physics that is asked for, or else the defaults."""
    env_id = RunConfig(env=command.env, physics=command.physics).env_id
    if env_id in (SINUSOID, *FEW_SHOT):
        raise ValueError(f"env must be a task environment: {env_id} has no oracle and no published comparison")
    preset = dataclasses.replace(PRESETS.get(_rllab(env_id), RunConfig()), env=env_id)
    preset = with_preset(preset, command.preset)
    iterations = preset.training.num_iterations if command.num_iterations is None else command.num_iterations
    return dataclasses.replace(
        preset,
        seed=command.seed,
        training=dataclasses.replace(preset.training, num_iterations=iterations),
        sampling=dataclasses.replace(preset.sampling, num_threads=command.num_threads),
    )


def method_config(method: Method, base: RunConfig) -> RunConfig:
    """How a method is trained, and the step sizes that it is scored with: the paper's where it has any, else MAML's."""
    published = PUBLISHED.get(_rllab(base.env_id))
    evaluation = dataclasses.replace(base.evaluation, num_steps=len(published.maml) - 1 if published else 3)
    config = dataclasses.replace(base, evaluation=evaluation)
    if method == "maml":
        return config
    if method == "fomaml":
        return dataclasses.replace(config, inner=dataclasses.replace(base.inner, first_order=True))
    without = dataclasses.replace(config, inner=dataclasses.replace(base.inner, num_steps=0))
    if method == "oracle":
        return dataclasses.replace(without, oracle=True, evaluation=dataclasses.replace(evaluation, num_steps=0))
    if published:
        size = published.pretrained_step_size if method == "pretrained" else published.random_step_size
        later = size * base.evaluation.later_step_size / base.evaluation.first_step_size  # shortened as MAML's are
        evaluation = dataclasses.replace(evaluation, first_step_size=size, later_step_size=later)
    iterations = base.training.num_iterations if method == "pretrained" else 0
    return dataclasses.replace(
        without, evaluation=evaluation, training=dataclasses.replace(base.training, num_iterations=iterations)
    )


def _scoring(method: Method, config: RunConfig, command: CompareCommand) -> EvaluationConfig:
    steps = config.evaluation.num_steps if command.num_steps is None or method == "oracle" else command.num_steps
    return dataclasses.replace(config.evaluation, num_tasks=command.num_tasks, num_steps=steps, seed=command.seed)


def _rllab(env_id: str) -> str:
    """The id in the paper's physics, under which presets and published numbers stand."""
    return env_id.replace("-gym-", "-rllab-")


def _require_possible(method: Method, config: RunConfig, command: CompareCommand) -> None:
    """Refuse what training, or the scoring after it, would refuse only after hours of the other methods.

    Raises:
        ValueError: if settings, tasks or folders do not fit.
    """
    scored = _scored(config, method, config, command)
    if method in command.load:
        _require_loadable(method, command.load[method], config)
        built = _load(method, config, command).built
    else:
        require_completable(config, command.output_dir / method)
        with contextlib.closing(build_new(config)) as new:
            require_tasks(config, new.family, in_training=True)
        built = build(scored)
    with contextlib.closing(built):
        require_tasks(scored, built.family, in_training=False)


def _require_loadable(method: str, run_dir: Path, config: RunConfig) -> None:
    """A loaded run must be of the environment and the method that it stands for."""
    found = read_config(run_dir)
    wanted = {
        "env": (found.env_id, config.env_id),
        "oracle": (found.oracle, config.oracle),
        "inner.num_steps of 0": (found.inner.num_steps == 0, config.inner.num_steps == 0),
        "inner.first_order": (found.inner.first_order, config.inner.first_order),
    }
    for name, (is_now, must_be) in wanted.items():
        if is_now != must_be:
            raise ValueError(f"load must name a run of {method}, but in {run_dir} {name} is {is_now}, not {must_be}")


def _scored(saved: RunConfig, method: Method, config: RunConfig, command: CompareCommand) -> RunConfig:
    """The settings of a run with those of the comparison's evaluation in their place."""
    evaluation = _scoring(method, config, command)
    return dataclasses.replace(saved, device="cpu", evaluation=evaluation, sampling=config.sampling)


def _load(method: Method, config: RunConfig, command: CompareCommand) -> Trained:
    run_dir = command.load.get(method, command.output_dir / method)
    settings = _scored(read_config(run_dir), method, config, command)
    which = command.checkpoint if settings.training.num_iterations else "last"  # nothing was scored in no iteration
    return load_trained(run_dir, settings, which, None, False, config.env_id)


def _score(method: Method, config: RunConfig, command: CompareCommand) -> AdaptationCurve:
    trained = _load(method, config, command)
    with contextlib.closing(trained.built) as built:
        return built.curve(trained.state, trained.checkpoint.iteration)


def _described(
    command: CompareCommand,
    base: RunConfig,
    configs: dict[Method, RunConfig],
    curves: dict[Method, AdaptationCurve],
) -> dict[str, Any]:
    published = PUBLISHED.get(base.env_id)
    return {
        "metric": "return",
        "env": base.env_id,
        "num_tasks": command.num_tasks,
        "seed": command.seed,
        "checkpoint": command.checkpoint,
        "methods": {
            method: {
                "mean": curve.mean,
                "ci95": or_null(curve.ci95),
                "step_sizes": list(_scoring(method, configs[method], command).step_sizes),
                "run": str(command.load.get(method, command.output_dir / method)),
            }
            for method, curve in curves.items()
        },
        "published": published._asdict() if published else None,
    }


def _write(
    command: CompareCommand, base: RunConfig, curves: dict[Method, AdaptationCurve], result: dict[str, Any]
) -> None:
    """The numbers as CSV and JSON, and the plot; each file whole or not at all."""
    command.output_dir.mkdir(parents=True, exist_ok=True)
    published = PUBLISHED.get(base.env_id)
    longest = max(len(curve.mean) for curve in curves.values())
    lines, text = [], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "gradient_steps", "return", "ci95", "published"])
    for method, curve in curves.items():
        reference = _reference(method, base)
        for step, (mean, half) in enumerate(zip(curve.mean, or_null(curve.ci95), strict=True)):
            writer.writerow([method, step, mean, half, reference[step] if step < len(reference) else ""])
        # The oracle takes no step: a level line across the others'.
        times = longest if len(curve.mean) == 1 else 1
        lines.append(LabelledCurve(LABELS[method], curve.mean * times, curve.ci95 * times, reference=False))
    if published is None:
        print(f"no published numbers for {base.env_id}: the plot has no reference lines", file=sys.stderr)
    else:
        for name, values in (
            ("MAML", published.maml),
            ("pretrained", published.pretrained),
            ("random", published.random),
        ):
            lines.append(LabelledCurve(f"{name}, published", list(values), None, reference=True))
        lines.append(LabelledCurve("oracle, published", [published.oracle] * longest, None, reference=True))
    figure = adaptation_plot(lines, "return", f"{base.env_name}: {command.num_tasks} fresh tasks")
    save_figure(figure, command.output_dir / "comparison.png")
    write_atomically(command.output_dir / "comparison.csv", text.getvalue().encode())
    write_atomically(command.output_dir / "comparison.json", f"{json.dumps(result, indent=1)}\n".encode())


def _reference(method: Method, base: RunConfig) -> tuple[float, ...]:
    """The published means of a method; none for what the paper has not."""
    published = PUBLISHED.get(base.env_id)
    if published is None or method == "fomaml":
        return ()
    return (published.oracle,) if method == "oracle" else getattr(published, method)


def _print_table(base: RunConfig, curves: dict[Method, AdaptationCurve]) -> None:
    longest = max(len(curve.mean) for curve in curves.values())
    print(f"{base.env_id}: return after 0, 1, ... gradient steps; below it the published one", file=sys.stderr)
    table = Table(box=SIMPLE_HEAD, padding=0)  # narrow: five columns fit into a terminal of 80
    table.add_column("method")
    for step in range(longest):
        table.add_column(str(step), justify="right")
    for method, curve in curves.items():
        cells = [f" {mean:.1f} {plus_minus(half, '.1f')}" for mean, half in zip(curve.mean, curve.ci95, strict=True)]
        table.add_row(method, *cells)
        if _reference(method, base):
            table.add_row("", *(f"{value:.1f}" for value in _reference(method, base)[:longest]), style="dim")
    Console(stderr=True).print(table)


def _fail(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status
