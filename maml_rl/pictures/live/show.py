"""All that a live view needs of a run: its agent, its environment and the tasks to choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray


class Player(Protocol):
    """A policy on one task, as maml_rl.Agent: `adapt` gives a new one."""

    @property
    def num_steps(self) -> int:
        """Gradient steps taken on the task."""

    @property
    def num_episodes(self) -> int:
        """Episodes adapted to."""

    def act(
        self, observation: Any, deterministic: bool = True, seed: int | None = None, previous_reward: float = 0.0
    ) -> Any: ...
    def begin_episode(self, forget: bool = False) -> None: ...
    def adapt(self, env: gymnasium.Env, num_episodes: int | None = None, seed: int = 0) -> Player: ...


class Robot(Protocol):
    """A batch of one simulated robot."""

    model: Any  # mujoco.MjModel

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """MuJoCo's generalised positions [1, nq]. [m, rad]"""

    def post(self, index: int) -> tuple[float, float] | None:
        """The place of the post that shows the task, if it has one. [m]"""


class Dial(NamedTuple):
    """One number of a task and the range that tasks are drawn from."""

    name: str
    unit: str  # "" if none is stated
    low: float
    high: float

    @property
    def label(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def within(self, number: float) -> float:
        """The number.

        Raises:
            ValueError: if it lies outside of the range.
        """
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name} must lie in {self.low:g} to {self.high:g}, got {number}")
        return float(number)


@dataclass(frozen=True)
class Tasks:
    """The tasks of an environment: numbers to turn, or a few to choose from, or neither."""

    sample: Callable[[], Any]  # a fresh task
    dials: tuple[Dial, ...] = ()
    choices: tuple[Any, ...] = ()  # each told by its str
    kind: Callable[..., Any] = dict  # makes a task of the dials' numbers, given by name

    def numbers_of(self, task: Any) -> dict[str, float]:
        """The dials' numbers of a task."""
        return {dial.name: float(getattr(task, dial.name)) for dial in self.dials}

    def task_of(self, numbers: Mapping[str, float]) -> Any:
        """The task with the dials' numbers."""
        return self.kind(**numbers)


@dataclass(frozen=True)
class Show:
    """A trained agent on stage."""

    title: str
    note: str  # on how a picture shows the task
    tasks: Tasks
    make_env: Callable[[], gymnasium.Env]  # which draws, unless it is a robot's
    is_robot: bool  # its states are shown; else pictures
    robot_of: Callable[[gymnasium.Env], Robot | None]
    picture_of: Callable[[gymnasium.Env], NDArray[np.uint8]]  # [height, width, 3]
    begin: Callable[[Any], Player]  # the agent before it has adapted to the task
    horizon: int  # [steps] of an episode
    steps_per_second: float  # of real time
    episodes_per_adaptation: int
    takes_gradient_steps: bool
