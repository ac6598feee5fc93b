"""The command line for films and plots of what a run has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from maml_rl.api.run import Run
from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import fail, lenient_streams
from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.flags import require_read
from maml_rl.experiments.gallery import FILMS, PLOTS
from maml_rl.experiments.runs import WhichCheckpoint, read_config, to_be_read
from maml_rl.experiments.trust import trusted_names
from maml_rl.experiments.zoo import resolved
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.storage.atomic import require_writable

SHIPPED_RUN = resolved("zoo:halfcheetah-vel")

EXAMPLES = (
    "python scripts/visualize.py --output-dir pictures",
    "python scripts/visualize.py runs/mine --output-dir pictures --no-film",
)


@dataclass(frozen=True)
class VisualizeCommand:
    """Make films and plots of a trained learner before and after adaptation."""

    run: Annotated[Path, tyro.conf.Positional] = SHIPPED_RUN
    """Folder of a training run, or zoo:NAME; by default zoo:halfcheetah-vel."""
    output_dir: Path = field(kw_only=True)
    """Folder for the pictures; files of the same name are replaced."""
    env: str | None = None
    """The run's environment, if it is one of your own, module:Class: naming it here allows the import of its module."""
    trust_env: bool = False
    """Allow the import of whatever module the run names for its environment, without --env."""
    checkpoint: WhichCheckpoint = "last"
    """Checkpoint of the run: the best by training score, or the last."""
    num_tasks: int = 20
    """Fresh tasks to average the adaptation curve over; films and paths show some of them."""
    num_steps: int | None = None
    """Gradient steps on each task; by default as in the run's own evaluation."""
    num_shown: int = 3
    """Tasks in the grid film and in plots of single tasks, from the smallest gain to the largest."""
    actions: Literal["sampled", "mean"] = "sampled"
    """Actions in the episodes shown and scored. sampled: the policy as it is. mean: without its noise."""
    task_range: tuple[float, float] | None = None
    """Range to draw tasks from, in place of the training range."""
    seed: int = 1
    """Seed of the evaluation's tasks and episodes."""
    film: bool = True
    """Make films in addition to the plots."""
    num_threads: int = 0
    """Threads; 0 uses every core, since results do not depend on it."""
    data_root: str | None = None
    """Few-shot classification: folder of the pictures; by default the one that the run was trained with or, if that is
    not known, $MAML_RL_DATA."""
    device: str = "cpu"
    """Device for policies and adaptation, wherever the run was trained: cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        if self.num_shown < 1:
            raise ValueError(f"num_shown must be at least 1, got {self.num_shown}")


@lenient_streams()
def visualize(backend: str | None, arguments: Sequence[str] | None = None) -> int:
    """Run the visualization command; return the exit status: 0, 1 if an episode fails, or 2 if refused.

    Args:
        backend: the one that MuJoCo draws with, None if none does.
    """
    command = parse(VisualizeCommand, EXAMPLES, arguments)
    try:
        config = _config(command)
        require_writable(command.output_dir, *PLOTS, *FILMS)
        named = trusted_names(config, command.env and full_id(command.env, None), command.trust_env)
        Run(command.run, config, named).draw(
            command.output_dir,
            command.num_shown,
            command.film,
            backend,
            command.checkpoint,
            command.actions,
            command.task_range,
        )
    except SamplingError as error:
        return fail(error, 1)
    except (ValueError, OSError) as error:
        return fail(error, 2)
    return 0


def _config(command: VisualizeCommand) -> RunConfig:
    saved = read_config(command.run)
    if command.data_root is not None and saved.kind != "pictures":
        raise ValueError(
            f"data_root applies to few-shot classification alone, but the run's environment is {saved.env}"
        )
    if command.num_steps is not None:
        require_read(saved, {("evaluation", "num_steps"): command.num_steps}, lambda _: "--num-steps")
    num_steps = saved.evaluation.num_steps if command.num_steps is None else command.num_steps
    own: dict[str, Any] = {"num_tasks": command.num_tasks, "num_steps": num_steps, "seed": command.seed}
    task = saved.task
    if saved.kind == "pictures":
        task = dataclasses.replace(task.found_in(command.data_root), evaluate_on="test")
    return to_be_read(dataclasses.replace(saved, task=task), command.device, command.num_threads, **own)
