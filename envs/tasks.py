"""Tasks for robots: the target of each, how often it is drawn, and how progress is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .task_env import Task


@dataclass(frozen=True)
class TargetVelocity:
    """Run at this speed."""

    speed: float  # forward, [m/s]

    def __str__(self) -> str:
        return f"run at {self.speed:.2f} m/s"


@dataclass(frozen=True)
class Direction:
    """Run this way, the faster the better."""

    sign: int  # +1 forward, -1 backward

    def __post_init__(self) -> None:
        if self.sign not in (-1, 1):
            raise ValueError(f"sign must be +1 (forward) or -1 (backward), got {self.sign}")

    def __str__(self) -> str:
        return "run forward" if self.sign == 1 else "run backward"


@dataclass(frozen=True)
class Goal:
    """Go to this place."""

    x: float  # [m]
    y: float  # [m]

    def __str__(self) -> str:
        return f"go to ({self.x:.2f}, {self.y:.2f}) m"


class Motion(NamedTuple):
    """The motion of robots in one step, on which the rewards of tasks depend."""

    x_velocity: NDArray[np.float64]  # [n] forward, [m/s]
    position: NDArray[np.float64]  # [n, 2] x and y after the step, [n, 1] for robots that cannot leave a plane, [m]


class TaskDistribution(ABC):
    """Tasks of one kind. Their numbers are kept in rows, so that progress is one formula over arrays."""

    task_type: ClassVar[type]
    default: ClassVar[Task]

    @property
    def task_range(self) -> tuple[float, float] | None:
        """The range in which a task's numbers are uniform; None for tasks that are drawn from no range."""
        return None

    def within(self, task_range: tuple[float, float]) -> TaskDistribution:
        """The same kind of task, with numbers uniform in another range."""
        raise ValueError(f"task_range must be left out: {type(self).__name__} are drawn from no range")

    @abstractmethod
    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Independent draws."""

    @abstractmethod
    def numbers(self, task: Task) -> tuple[float, ...]:
        """The numbers of one task, which are a row of `rows`."""

    @abstractmethod
    def progress(self, motion: Motion, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The value of the motion [n] under each row's task, before costs. rows: [n, numbers]."""

    def rows(self, tasks: Sequence[Task]) -> NDArray[np.float64]:
        return np.array([self.numbers(task) for task in tasks], dtype=np.float64)


@dataclass(frozen=True)
class VelocityTasks(TaskDistribution):
    """Speeds from U(min_speed, max_speed); progress -|v - speed|."""

    min_speed: float  # [m/s]
    max_speed: float  # [m/s]
    task_type = TargetVelocity
    default = TargetVelocity(speed=1.0)

    @property
    def task_range(self) -> tuple[float, float]:
        return self.min_speed, self.max_speed

    def within(self, task_range: tuple[float, float]) -> VelocityTasks:
        return VelocityTasks(*task_range)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[TargetVelocity]:
        return [TargetVelocity(speed) for speed in rng.uniform(self.min_speed, self.max_speed, num_tasks).tolist()]

    def numbers(self, task: TargetVelocity) -> tuple[float, ...]:
        return (task.speed,)

    def progress(self, motion: Motion, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.abs(motion.x_velocity - rows[:, 0])


@dataclass(frozen=True)
class DirectionTasks(TaskDistribution):
    """Forward and backward, equally likely; progress sign * v."""

    task_type = Direction
    default = Direction(sign=1)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Direction]:
        return [Direction(-1 if draw < 1.0 else 1) for draw in rng.uniform(0.0, 2.0, num_tasks)]

    def numbers(self, task: Direction) -> tuple[float, ...]:
        return (task.sign,)

    def progress(self, motion: Motion, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows[:, 0] * motion.x_velocity


@dataclass(frozen=True)
class GoalTasks(TaskDistribution):
    """Goals from U(low, high)^2; progress -(|x - goal x| + |y - goal y|)."""

    low: float  # [m]
    high: float  # [m]
    task_type = Goal
    default = Goal(x=1.0, y=1.0)

    @property
    def task_range(self) -> tuple[float, float]:
        return self.low, self.high

    def within(self, task_range: tuple[float, float]) -> GoalTasks:
        return GoalTasks(*task_range)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Goal]:
        return [Goal(x, y) for x, y in rng.uniform(self.low, self.high, (num_tasks, 2)).tolist()]

    def numbers(self, task: Goal) -> tuple[float, ...]:
        return (task.x, task.y)

    def progress(self, motion: Motion, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.abs(motion.position - rows).sum(axis=1)
