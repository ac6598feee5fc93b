"""A point in the plane looks for a goal it is not shown."""

from __future__ import annotations

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..adapters import SingleFromVector
from ..task_env import Step, Task, TaskVectorEnv, episode_length
from ..tasks import Goal

HORIZON = 100  # [steps], Finn et al. 2017, appendix A.2
MAX_MOVE = 0.1  # along x and y in one step, [m]
GOAL_RADIUS = 0.01  # the episode ends when |dx| and |dy| are both below, [m]
GOAL_RANGE = 0.5  # goals are drawn from U(-0.5, 0.5)^2, [m]


def move(positions: NDArray[np.float64], actions: NDArray) -> NDArray[np.float64]:
    """Positions [n, 2] after the actions [n, 2], each component clipped to MAX_MOVE. [m]"""
    return positions + np.clip(actions.astype(np.float64), -MAX_MOVE, MAX_MOVE)


def navigation_reward(positions: NDArray[np.float64], goals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minus the distance to the goal [n]. [m]

    Not squared: the paper's text says squared, the code that produced its figures does not.
    """
    return -np.hypot(goals[:, 0] - positions[:, 0], goals[:, 1] - positions[:, 1])


def is_at_goal(positions: NDArray[np.float64], goals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether both |dx| and |dy| are below GOAL_RADIUS [n]."""
    near = np.abs(goals - positions) < GOAL_RADIUS
    return near[:, 0] & near[:, 1]


class Navigation2DVectorEnv(TaskVectorEnv):
    """Many points, each with a goal: see `Navigation2DEnv` for the specification."""

    metadata = {**TaskVectorEnv.metadata, "render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    task_type = Goal
    task_range = (-GOAL_RANGE, GOAL_RANGE)  # of either coordinate [m]
    position_columns = (0, 1)
    picture_note = "red: the point, green: its goal"

    def __init__(
        self,
        num_envs: int = 1,
        horizon: int | None = None,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ):
        """
        Args:
            horizon: [steps]; None for 100. `max_episode_steps` is Gymnasium's name for it.
            render_mode: None or "rgb_array".
        """
        super().__init__(
            num_envs=num_envs,
            horizon=episode_length(horizon, max_episode_steps, HORIZON),
            single_observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            single_action_space=gymnasium.spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32),
            default_task=Goal(x=GOAL_RANGE, y=GOAL_RANGE),
            render_mode=render_mode,
        )
        self._positions = np.zeros((num_envs, 2))
        self._goals = np.zeros((num_envs, 2))
        self._paths: list[list[NDArray[np.float64]]] = [[] for _ in range(num_envs)]  # kept only for pictures

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Goal]:
        return [Goal(x, y) for x, y in rng.uniform(*self.task_range, (num_tasks, 2)).tolist()]

    def render_one(self, index: int) -> NDArray[np.uint8]:
        """A picture [240, 240, 3] of one point (red), its path (grey) and its goal (green)."""
        return draw_path(np.array(self._paths[index] or [self._positions[index]]), self._goals[index])

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        self._positions[rows] = 0.0
        self._goals[rows] = [(task.x, task.y) for task in tasks]
        for row in rows:
            self._paths[row] = [np.zeros(2)]

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        moved = move(self._positions, actions)
        self._positions = moved if alive is None else np.where(alive[:, None], moved, self._positions)
        if self.render_mode is not None:
            for path, position in zip(self._paths, self._positions, strict=True):
                path.append(position.copy())
        rewards = navigation_reward(self._positions, self._goals)
        terminated = is_at_goal(self._positions, self._goals)
        return self._observe(), rewards, terminated, np.zeros(self.num_envs, dtype=bool), {}

    def _observe(self) -> NDArray[np.float64]:
        return self._positions.copy()


def draw_path(path: NDArray[np.float64], goal: NDArray[np.float64], size: int = 240) -> NDArray[np.uint8]:
    """A picture [size, size, 3] of the square +-1 m around the origin, y upward.

    Args:
        path: [steps, 2] positions so far, the last one is now. [m]
        goal: [2]. [m]
    """
    picture = np.full((size, size, 3), 255, dtype=np.uint8)
    ends = np.concatenate([path, path[-1:]])
    fractions = np.linspace(0.0, 1.0, 12)[:, None, None]
    trail = (ends[:-1] + fractions * (ends[1:] - ends[:-1])).reshape(-1, 2)
    marks = [(trail, 1, (150, 150, 150)), (goal[None], 4, (30, 150, 60)), (path[-1:], 4, (200, 40, 40))]
    for points, half_width, colour in marks:
        for x, y in np.clip(((points + 1.0) * size / 2).astype(int), 0, size - 1):
            rows = slice(max(size - 1 - y - half_width, 0), size - y + half_width)
            picture[rows, max(x - half_width, 0) : x + half_width + 1] = colour
    return picture


class Navigation2DEnv(SingleFromVector):
    """A point in the plane that starts at the origin and looks for a goal it is not shown.

    ## Task
    `Goal(x, y)`: drawn from U(-0.5, 0.5)^2 [m].

    ## Action
    Box(-0.1, 0.1, (2,), float32): the move along x and y [m]. Values beyond +-0.1 are clipped.

    ## Observation
    Box(-inf, inf, (2,), float64): the position (x, y) [m].

    ## Reward
    Minus the Euclidean distance to the goal after the move [m], not squared.

    ## Reset
    At (0, 0); nothing is random.

    ## End
    Terminated when |dx| < 0.01 m and |dy| < 0.01 m after the move; truncated after `horizon` steps, 100.

    ## Arguments
    `horizon`: [steps], None for 100. `render_mode`: None or "rgb_array".

    ## Source
    Finn, Abbeel, Levine 2017 (arXiv:1703.03400), section 5.3 and appendix A.2; where its text (squared distance)
    and its code (distance) differ, the code, which made the figures.

    ## Version history
    - v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, horizon: int | None = None, render_mode: str | None = None):
        super().__init__(Navigation2DVectorEnv(1, horizon, render_mode=render_mode))
