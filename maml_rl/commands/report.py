"""The command line of reports: one HTML file about a run, an experiment, or several side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import fail, lenient_streams
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.experiment import runs_of
from maml_rl.experiments.report.contents import report_page
from maml_rl.experiments.report.gather import Choices, Pictures, gather
from maml_rl.experiments.runs import WhichCheckpoint, read_config
from maml_rl.experiments.trust import trusted_names
from maml_rl.pictures.report.page import page_html
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.storage.atomic import require_writable, write_atomically
from maml_rl.version import __version__

EXAMPLES = (
    "python scripts/report.py runs/mine --output report.html",
    "python scripts/report.py runs/navigation --num-tasks 40 --pictures drawn",
    "python scripts/report.py runs/maml runs/fomaml --num-tasks 100",
)


@dataclass(frozen=True)
class ReportCommand:
    """Write a report to send: one HTML file that opens without a network."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folder of a run or an experiment; several are put side by side, and those that differ in their seed alone are
    taken together. All must be of the same tasks."""
    output: Path = Path("report.html")
    """Path of the report; a file of that name is replaced."""
    num_tasks: int | None = None
    """Fresh tasks to score on. By default the evaluation that is saved beside the runs is shown; if there is none, a
    note says what one would take, and on sinusoids and distributions, where it takes a second, 40 tasks are scored."""
    evaluation: str = "evaluation"
    """Name of the saved evaluation in the folders, as it was given to evaluate by --output, without suffix."""
    pictures: Pictures = "found"
    """Films and pictures to embed. found: those that visualize has left in the run's folder or in its subfolder
    pictures. drawn: new ones, which takes about a minute for a robot. none: neither."""
    env: str | None = None
    """The runs' environment, if it is one of your own, module:Class: naming it here allows the import of its module."""
    trust_env: bool = False
    """Allow the import of whatever module a run names for its environment, without --env."""
    checkpoint: WhichCheckpoint = "last"
    """Checkpoint to score and draw: the best by training score, or the last."""
    seed: int = 1
    """Seed of the tasks and episodes of new scores and pictures."""
    data_root: str | None = None
    """Few-shot classification: folder of the pictures to score on and draw; by default as in training."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("RUNS must name the folder of a run or an experiment, got none")


@lenient_streams()
def report(arguments: Sequence[str] | None = None) -> int:
    """Run the report command; return the exit status: 0, 1 if an episode fails, or 2 if refused."""
    command = parse(ReportCommand, EXAMPLES, arguments)
    try:
        runs = runs_of(command.runs)
        named = {name for run in runs for name in _trusted(command, run)}
        require_writable(command.output.parent, command.output.name)
        found = gather(
            command.runs,
            Choices(
                command.num_tasks,
                command.evaluation,
                command.pictures,
                command.seed,
                command.checkpoint,
                tuple(named),
                command.data_root,
            ),
        )
        text = page_html(report_page(found, _made_with()))
        command.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(command.output, text.encode())
    except SamplingError as error:
        return fail(error, 1)
    except (ValueError, OSError) as error:
        return fail(error, 2)
    for each in found:
        if each.remark:
            print(f"note: {each.remark}", file=sys.stderr)
    print(f"{command.output}: {len(text.encode()) / 1e6:.1f} MB", file=sys.stderr)
    return 0


def _trusted(command: ReportCommand, run: Path) -> tuple[str, ...]:
    return trusted_names(read_config(run), command.env and full_id(command.env, None), command.trust_env)


def _made_with() -> str:
    return f"Made by maml-rl {__version__} on {datetime.now():%Y-%m-%d at %H:%M}."
