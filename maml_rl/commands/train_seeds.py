"""The training command for several seeds: what is said and returned at its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from maml_rl.commands.streams import program
from maml_rl.experiments.experiment import Experiment
from maml_rl.experiments.training_seeds import Shown, train_in_turn, train_side_by_side


def train_seeds(experiment: Experiment, jobs: int, shown: Shown, flags: Sequence[object]) -> int:
    """Train all seeds; return the exit status: 0 done, 1 if a seed failed, 128 + n if stopped by signal n.

    Args:
        flags: that continuing takes beside --resume.
    """
    ended = train_side_by_side(experiment, jobs, shown) if jobs > 1 else train_in_turn(experiment, shown)
    if ended.interrupted_by is not None or ended.failed:
        at_once = ["--jobs", jobs] if jobs > 1 else []
        command = program("--resume", experiment.path, *flags, *at_once)
        print(f"to continue: {command}", file=sys.stderr)
    summary = {
        "experiment": str(experiment.path),
        "seeds": list(experiment.seeds),
        "runs": [str(run) for run in experiment.runs],
        "failed": ended.failed,
        "interrupted_by": ended.interrupted_by,
    }
    if not sys.stdout.isatty():
        print(json.dumps(summary))
    elif ended.interrupted_by is None:
        done = len(experiment.seeds) - len(ended.failed)
        print(f"{experiment.path}: {done} of {len(experiment.seeds)} seeds done; score them together by evaluate")
    if ended.interrupted_by is not None:
        return 128 + ended.interrupted_by
    return 1 if ended.failed else 0
