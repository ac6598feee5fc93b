"""The tasks that published returns were measured on: the draws of the published test scripts.

Each script of github.com/cbfinn/maml_rl (maml_examples/, commit 725c800) seeds NumPy's global generator and draws the
tasks right after. NumPy keeps the stream of that generator, RandomState, the same in all versions (NEP 19).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.tasks import Direction, Goal, TargetVelocity

NUM_TASKS = 40


class Drawn(NamedTuple):
    """A published script's draw of its test tasks."""

    script: str  # in maml_examples/
    seed: int
    low: float
    high: float
    size: tuple[int, ...]
    as_task: Callable[[Any], Any]

    @property
    def source(self) -> str:
        draw = f"numpy.random.RandomState({self.seed}).uniform({self.low:g}, {self.high:g})"
        return f"{draw}, as {self.script} of Finn et al. 2017 draws them"

    def tasks(self) -> Sequence[Any]:
        draws = np.random.RandomState(self.seed).uniform(self.low, self.high, self.size)
        return [self.as_task(draw) for draw in draws.tolist()]


def _direction(middle: float) -> Callable[[float], Direction]:
    """Backward for a number below the middle of its range, as the reset of the published environments has it."""
    return lambda draw: Direction(-1 if draw < middle else 1)


PUBLISHED_TASKS = {
    "maml/HalfCheetahVel-rllab-v0": Drawn("test_maml_cheetah.py", 1, 0.0, 2.0, (NUM_TASKS,), TargetVelocity),
    "maml/HalfCheetahDir-rllab-v0": Drawn("test_maml_cheetah_direc.py", 1, 0.0, 2.0, (NUM_TASKS,), _direction(1.0)),
    "maml/AntVel-rllab-v0": Drawn("test_maml_ant.py", 1, 0.0, 3.0, (NUM_TASKS,), TargetVelocity),
    "maml/AntDir-rllab-v0": Drawn("test_maml_ant_direc.py", 2, 0.0, 3.0, (NUM_TASKS,), _direction(1.5)),
    # The published script then scores the seventh goal alone; its file of results has all 40.
    "maml/Navigation2D-v0": Drawn("test_maml_point.py", 1, -0.5, 0.5, (NUM_TASKS, 2), lambda place: Goal(*place)),
}
"""Published test tasks by environment id."""
