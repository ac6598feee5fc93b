"""The two interfaces of environments with a distribution of tasks: a single one, or many side by side.

`TaskEnv` is a `gymnasium.Env` and `TaskVectorEnv` a `gymnasium.vector.VectorEnv`; both add only how tasks are drawn
and set. A task is a frozen dataclass with units in comments. Shapes: n sub-environments, O observation, A action.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Task = Any  # a frozen dataclass of the environment's own; compared by value
# observations [n, O], rewards [n], terminated [n], truncated [n], infos
Step = tuple[NDArray, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class SimulationError(RuntimeError):
    """A failure in a sub-environment, such as a number that is not finite.

    Attributes:
        environment: index of the (first) sub-environment concerned.
        reason: what was found there.
    """

    def __init__(self, environment: int, reason: str):
        super().__init__(f"sub-environment {environment}: {reason}")
        self.environment = environment
        self.reason = reason

    def __reduce__(self) -> tuple[type[SimulationError], tuple[int, str]]:
        return type(self), (self.environment, self.reason)  # so that it can be pickled with both attributes


class TaskEnv(gymnasium.Env, ABC):
    """One environment over a distribution of tasks.

    Attributes:
        horizon: steps until the environment itself reports `truncated`.
        task_range: `sample_tasks` draws its numbers uniformly from here, and from elsewhere once this is set anew;
            None if tasks have no range.
        reports_success: each step's infos hold "success", or "is_success", above 0 where the task is done at that step.
    """

    horizon: int
    task_range: tuple[float, float] | None = None
    reports_success: bool = False

    @abstractmethod
    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """`num_tasks` independent draws from the task distribution; all randomness comes from `rng`."""

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw from the tasks set aside for tests, which `sample_tasks` never draws; else as `sample_tasks`."""
        return self.sample_tasks(num_tasks, rng)

    @abstractmethod
    def set_task(self, task: Task) -> None:
        """Make `task` the one to be solved, from the next `reset` on; an episode under way keeps its own."""


class TaskVectorEnv(gymnasium.vector.VectorEnv, ABC):
    """`num_envs` environments side by side, each with its own task, clock and random generator.

    A subclass defines how rows are reset, stepped and observed (the methods at the end); this class keeps seeds, masks,
    clocks and tasks, and refuses what cannot be right. Nothing is reset behind the caller's back
    (`AutoresetMode.DISABLED`). Every array returned owns its memory.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's own form
        "autoreset_mode": AutoresetMode.DISABLED,
        "render_modes": [],
        "render_fps": 1,
    }
    task_type: type = object  # what set_tasks accepts
    task_range: tuple[float, float] | None = None
    """See `TaskEnv`."""
    reports_success: bool = False
    """See `TaskEnv`."""
    is_copied: bool = False
    """Whether each sub-environment is a separate environment object, so that many are costly and gain nothing."""
    steps_unlocked: bool = False
    """Whether most of a step is computed without Python's lock, so that other threads can go on meanwhile."""
    position_columns: tuple[int, int] | None = None
    """Columns of the observation with the position in the plane where goals (task.x, task.y) lie [m]; to plot paths."""
    picture_note: str = ""
    """A note on how a picture shows the task."""

    def __init__(
        self,
        num_envs: int,
        horizon: int,
        single_observation_space: gymnasium.Space,
        single_action_space: gymnasium.Space,
        default_task: Task,
        render_mode: str | None = None,
    ):
        """
        Args:
            num_envs: n, at least 1.
            horizon: [steps] after which a sub-environment reports `truncated`, at least 1.
            default_task: every sub-environment's task until `set_tasks` is called.
            render_mode: None or one of `metadata["render_modes"]`.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {horizon}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or in {self.metadata['render_modes']}, got {render_mode!r}")
        self.num_envs = num_envs
        self.horizon = horizon
        self.render_mode = render_mode
        self.single_observation_space = single_observation_space
        self.single_action_space = single_action_space
        self.observation_space = batch_space(single_observation_space, num_envs)
        self.action_space = batch_space(single_action_space, num_envs)
        self.generators: list[np.random.Generator | None] = [None] * num_envs
        self._tasks = [default_task] * num_envs  # of the episodes to come
        self._elapsed = np.zeros(num_envs, dtype=np.int64)  # [n] steps taken in this episode
        self._needs_reset = np.ones(num_envs, dtype=bool)  # [n]
        self._all = np.ones(num_envs, dtype=bool)
        self._all.flags.writeable = False

    # --- tasks -------------------------------------------------------------------------------------------------

    @abstractmethod
    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """`num_tasks` independent draws from the task distribution; all randomness comes from `rng`."""

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw from the tasks set aside for tests, which `sample_tasks` never draws; else as `sample_tasks`."""
        return self.sample_tasks(num_tasks, rng)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give sub-environment i the task `tasks[i]` from its next `reset` on.

        Raises:
            ValueError: unless there are `num_envs` tasks.
            TypeError: for a task of another environment.
        """
        if len(tasks) != self.num_envs:
            raise ValueError(
                f"set_tasks needs one task per sub-environment: {self.num_envs} tasks, got {len(tasks)}; "
                "repeat a task for each of its episodes"
            )
        for task in tasks:
            if not isinstance(task, self.task_type):
                raise TypeError(f"{type(self).__name__} takes tasks of type {self.task_type.__name__}, got {task!r}")
        self._tasks = list(tasks)

    @property
    def has_test_tasks(self) -> bool:
        """Whether tasks are set aside for tests; else `sample_test_tasks` draws as `sample_tasks`."""
        return type(self).sample_test_tasks is not TaskVectorEnv.sample_test_tasks

    # --- episodes ----------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """Begin episodes; return the observations [n, O] of all sub-environments, reset or not.

        Args:
            seed: one per episode, as a sequence of length n; an integer s stands for s, s + 1, ...; None goes on
                with each sub-environment's generator.
            options: {"reset_mask": bool [n]} resets only the marked sub-environments.
        Raises:
            SimulationError: for an observation that is not finite.
        """
        rows = self._rows_to_reset(options)
        if not len(rows):
            return self._observe(), {}
        for row, row_seed in zip(rows, self._seeds(seed)[rows], strict=True):
            self._seed_row(row, row_seed)
        self._needs_reset[rows] = True  # and stays so, should the reset fail
        self._reset_rows(rows, [self._tasks[row] for row in rows])
        observations, begun = self._observe(), np.zeros(self.num_envs, dtype=bool)
        begun[rows] = True
        self._check_finite("observation", observations, begun)
        self._elapsed[rows] = 0
        self._needs_reset[rows] = False
        return observations, {}

    def step(self, actions: NDArray, alive: NDArray[np.bool_] | None = None) -> Step:
        """One step of every sub-environment that is alive.

        Args:
            actions: [n, A]; rows that are not alive are ignored.
            alive: bool [n], None for all. The others are not stepped and come back as zeros and False.
        Returns:
            observations [n, O], rewards [n], terminated [n], truncated [n], and infos: each an array [n] with its
            mask under the name with a leading underscore, as in Gymnasium.
        Raises:
            SimulationError: for an action, observation or reward that is not finite. After one in an observation or
                reward, every sub-environment stepped needs a reset; after one in an action nothing was stepped.
            ValueError: for actions of the wrong shape, or that are none of a Discrete space's.
            ResetNeeded: if an episode that is over, or was never begun, is stepped.
        """
        actions = self._checked_actions(actions)
        alive = self._checked_alive(alive)
        everyone = bool(alive.all())
        if not everyone and not alive.any():
            return self._nothing_stepped()
        if (self._needs_reset & alive).any():
            self._refuse_to_step(int(np.argmax(self._needs_reset & alive)))
        self._check_finite("action", actions, alive)
        self._check_choices(actions, alive)
        self._needs_reset |= alive  # and stays so, should the step fail
        observations, rewards, terminated, truncated, infos = self._step_rows(actions, None if everyone else alive)
        self._check_finite("observation", observations, alive)
        self._check_finite("reward", rewards, alive)
        if "is_success" in infos and "success" not in infos:
            infos["success"] = infos["is_success"].copy()  # Stable-Baselines3's name for it
        if self.reports_success and "success" not in infos:
            raise ValueError(
                f"{type(self).__name__} says reports_success, but its infos {sorted(infos)} have no success"
            )
        self._elapsed += alive
        truncated |= self._elapsed >= self.horizon
        if not everyone:
            dead = ~alive
            for array in (observations, rewards, terminated, truncated, *infos.values()):
                array[dead] = 0
        self._needs_reset &= ~alive | terminated | truncated
        infos.update({f"_{name}": alive.copy() for name in infos})
        return observations, rewards, terminated, truncated, infos

    # --- what a subclass defines ----------------------------------------------------------------------------------

    def _seed_row(self, row: int, seed: int | None) -> None:
        """Give the sub-environment a new generator, or with None let it go on with the one it has."""
        if seed is not None or self.generators[row] is None:
            self.generators[row] = seeding.np_random(seed)[0]

    def _generator(self, row: int) -> np.random.Generator:
        """The sub-environment's own generator; there is one after `reset`."""
        generator = self.generators[row]
        assert generator is not None
        return generator

    @abstractmethod
    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        """Begin an episode of `tasks[k]` in sub-environment `rows[k]`, drawing from `self.generators[rows[k]]`."""

    @abstractmethod
    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        """Step the rows that are alive (None: all); return fresh observations, rewards, terminated, truncated, infos.

        The values in the other rows do not matter. The clock of `horizon` is kept by `step`; `truncated` is for
        reasons beyond it. Each info is an array [n].
        """

    @abstractmethod
    def _observe(self) -> NDArray:
        """Fresh observations [n, O] of the present states."""

    def render_one(self, index: int) -> NDArray[np.uint8]:
        """A picture [height, width, 3] of one sub-environment."""
        raise NotImplementedError(f"{type(self).__name__} draws no pictures")

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One picture [height, width, 3] per sub-environment, or None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(self.render_one(index) for index in range(self.num_envs))

    # --- checks ------------------------------------------------------------------------------------------------

    def _rows_to_reset(self, options: dict[str, Any] | None) -> NDArray[np.intp]:
        if not options or options.get("reset_mask") is None:
            return np.arange(self.num_envs)
        mask = np.asarray(options["reset_mask"])
        if mask.dtype != bool or mask.shape != (self.num_envs,):
            raise ValueError(
                f"reset_mask must be a bool array of shape ({self.num_envs},), got {mask.dtype} {mask.shape}"
            )
        return np.flatnonzero(mask)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> NDArray[np.object_]:
        """One seed or None per sub-environment, as an object array [n]: seeds may exceed 64 bits."""
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + row for row in range(self.num_envs)]
        else:
            seeds = [None if s is None else operator.index(s) for s in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed needs one entry per sub-environment, {self.num_envs}, got {len(seeds)}")
        array = np.empty(self.num_envs, dtype=object)
        array[:] = seeds
        return array

    def _checked_actions(self, actions: NDArray) -> NDArray:
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {actions.shape}")
        return actions

    def _check_choices(self, actions: NDArray, alive: NDArray[np.bool_]) -> None:
        """Refuse actions outside the space: numpy would take -1 for the last one."""
        space = self.single_action_space
        start: Any
        number: Any
        match space:
            case gymnasium.spaces.Discrete():
                start, number = space.start, space.n
            case gymnasium.spaces.MultiDiscrete():
                start, number = space.start, space.nvec
            case gymnasium.spaces.MultiBinary():
                start, number = 0, 2
            case _:
                return
        chosen = actions[alive]
        if actions.dtype.kind not in "iu" or not ((chosen >= start) & (chosen < start + number)).all():
            raise ValueError(f"actions must be whole numbers in {space}, got {actions.dtype} {chosen.tolist()}")

    def _checked_alive(self, alive: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        if alive is None:
            return self._all
        alive = np.asarray(alive)
        if alive.dtype != bool or alive.shape != (self.num_envs,):
            raise ValueError(f"alive must be a bool array of shape ({self.num_envs},), got {alive.dtype} {alive.shape}")
        return alive

    def _check_finite(self, name: str, values: NDArray, alive: NDArray[np.bool_]) -> None:
        finite = np.isfinite(values)
        if finite.all():
            return
        bad = ~finite.reshape(self.num_envs, -1).all(axis=1) & alive
        if bad.any():
            row = int(np.argmax(bad))
            raise SimulationError(row, f"{name} is not finite: {values[row]}" + _hint(name, values))

    def _refuse_to_step(self, row: int) -> NoReturn:
        if self._elapsed[row] >= self.horizon:
            state = f"is at its horizon of {self.horizon} steps"
        else:
            state = f"has no episode under way (after {self._elapsed[row]} steps)"
        raise ResetNeeded(
            f"sub-environment {row} {state}: reset it (options={{'reset_mask': ...}} resets some of them) "
            "or leave it out with alive[i] = False"
        )

    def _nothing_stepped(self) -> Step:
        false = np.zeros(self.num_envs, dtype=bool)
        return np.zeros_like(self._observe()), np.zeros(self.num_envs), false, false.copy(), {}


def _hint(name: str, values: NDArray) -> str:
    """The end of a message about a number that is not finite: what to look for."""
    if name == "action":
        return ""
    beyond = ", or for numbers beyond 3.4e38, the largest in 32 bits" if values.dtype == np.float32 else ""
    return f"; look for a division by zero{beyond}"


def episode_length(horizon: int | None, max_episode_steps: int | None, default: int) -> int:
    """The horizon to use: `horizon`, else Gymnasium's name for it, else the environment's own. [steps]"""
    if horizon is not None:
        return horizon
    return default if max_episode_steps is None else max_episode_steps
