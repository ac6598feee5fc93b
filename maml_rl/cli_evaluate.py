"""The command line of evaluation: a run's checkpoint on tasks that it has not seen."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from maml_rl.build import build
from maml_rl.config import SINUSOID, RunConfig, from_dict
from maml_rl.core.maml import params_of
from maml_rl.core.params import to_device
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, adaptation_curve
from maml_rl.training.checkpoint import Checkpoint, load_best, load_latest
from maml_rl.training.run_folder import RunFolder


@dataclass(frozen=True)
class EvaluateCommand:
    """Score a trained learner on fresh tasks after 0, 1, ... gradient steps."""

    run: Annotated[Path, tyro.conf.Positional]
    """The folder of a training run."""
    checkpoint: Literal["best", "last"] = "last"
    """The best by training score, as the paper chooses, or the last."""
    num_tasks: int = 40
    """Fresh tasks."""
    num_steps: int = 3
    """Gradient steps on each."""
    first_step_size: float | None = None
    """Of the first step; by default as in the run's own evaluation."""
    later_step_size: float | None = None
    """Of the steps after it; by default as in the run's own evaluation."""
    seed: int = 1
    """Of the evaluation's own random stream: tasks and episodes."""
    num_examples: int | None = None
    """Sinusoid: examples to adapt to, and as many to score on; by default as in training."""
    device: str = "cpu"
    """Where policies and adaptation are computed: cpu, cuda or cuda:N."""
    num_threads: int = 0
    """0 takes every core. Results do not depend on it."""
    json: bool = False
    """Print one JSON line on stdout."""


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation command; return the exit status: 0, or 2 if refused."""
    command = tyro.cli(EvaluateCommand, args=arguments)
    try:
        config = _config(command)
        checkpoint = (load_best if command.checkpoint == "best" else load_latest)(command.run / "checkpoints")
        curve = _curve(command, config, checkpoint)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print_table(curve, checkpoint, config)
    if command.json:
        print(json.dumps(_described(command, curve, checkpoint, config)))
    return 0


def _config(command: EvaluateCommand) -> RunConfig:
    """The run's settings with the command's in place of those they override."""
    saved = from_dict(RunFolder.read_config(command.run))
    own = {"num_tasks": command.num_tasks, "num_steps": command.num_steps, "seed": command.seed}
    own |= {
        name: getattr(command, name)
        for name in ("first_step_size", "later_step_size")
        if getattr(command, name) is not None
    }
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
        sampling=dataclasses.replace(saved.sampling, num_threads=command.num_threads),
    )


def _curve(command: EvaluateCommand, config: RunConfig, checkpoint: Checkpoint) -> AdaptationCurve:
    built = build(config)
    try:
        theta = to_device(params_of(checkpoint.state), built.device)
        return adaptation_curve(built.family, theta, config.evaluation, checkpoint.iteration, built.threads)
    finally:
        built.close()


def _print_table(curve: AdaptationCurve, checkpoint: Checkpoint, config: RunConfig) -> None:
    tasks = config.evaluation.num_tasks
    table = Table(title=f"{config.env_id}, iteration {checkpoint.iteration}, {tasks} fresh tasks")
    for name in ("gradient steps", "step size", curve.metric, "95 % interval", "std over tasks"):
        table.add_column(name, justify="right")
    sizes = ["", *(f"{size:g}" for size in config.evaluation.step_sizes)]
    spread = curve.per_task.std(dim=1, correction=0).tolist()
    for step, row in enumerate(zip(sizes, curve.mean, curve.ci95, spread, strict=True)):
        table.add_row(str(step), row[0], f"{row[1]:.4g}", f"+- {row[2]:.3g}", f"{row[3]:.3g}")
    Console(stderr=True).print(table)


def _described(
    command: EvaluateCommand, curve: AdaptationCurve, checkpoint: Checkpoint, config: RunConfig
) -> dict[str, object]:
    return {
        "metric": curve.metric,
        "mean": curve.mean,
        "ci95": curve.ci95,
        "num_tasks": config.evaluation.num_tasks,
        "step_sizes": list(config.evaluation.step_sizes),
        "checkpoint": command.checkpoint,
        "iteration": checkpoint.iteration,
        "env_steps": checkpoint.counters.get("env_steps", 0),
        "env": config.env_id,
        "oracle": config.oracle,
        "seed": config.evaluation.seed,
    }
