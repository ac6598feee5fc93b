"""From many environments to one, and from one to many."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector.utils import create_empty_array
from numpy.typing import NDArray

from .pictures import as_picture
from .task_env import SimulationError, Step, Task, TaskEnv, TaskVectorEnv

_NUMBERS = (int, float, np.number, np.bool_)  # of infos these are kept


class SingleFromVector(TaskEnv):
    """A `TaskVectorEnv` of one, seen as a `TaskEnv`: single and batched agree because they are the same code."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, vector: TaskVectorEnv):
        if vector.num_envs != 1:
            raise ValueError(f"SingleFromVector needs num_envs = 1, got {vector.num_envs}")
        self._vector = vector
        self.horizon = vector.horizon
        self.reports_success = vector.reports_success
        self.render_mode = vector.render_mode
        self.metadata = {key: vector.metadata[key] for key in ("render_modes", "render_fps")}
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._vector.sample_tasks(num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._vector.sample_test_tasks(num_tasks, rng)

    def set_task(self, task: Task) -> None:
        self._vector.set_tasks([task])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        super().reset(seed=seed)
        self._vector.generators[0] = self.np_random
        observations, _ = self._vector.reset()
        return observations[0], {}

    def step(self, action: NDArray) -> tuple[NDArray, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self._vector.step(np.asarray(action)[None])
        info = {name: values[0].item() for name, values in infos.items() if not name.startswith("_")}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:
        return None if self.render_mode is None else self._vector.render_one(0)

    def close(self) -> None:
        self._vector.close()


class VectorFromSingle(TaskVectorEnv):
    """Any environment with `sample_tasks` and `set_task`, in any of its wrappers, in `num_envs` copies, stepped one
    after the other.

    Until `set_tasks` is called, each copy solves the task it was made with. Of the infos the numbers are kept.
    """

    is_copied = True

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env],
        num_envs: int,
        horizon: int | None = None,
        name: str = "the environment",
    ):
        """
        Args:
            make_env: makes one copy, with `gymnasium.make` or without; wrappers are kept.
            num_envs: n.
            horizon: [steps] of an episode at most; None for the copies' own.
            name: for messages.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.envs = _copies(make_env, num_envs, name)  # as made, with their wrappers
        self._set_task = [env.get_wrapper_attr("set_task") for env in self.envs]
        first = self.envs[0]
        self.metadata = {**type(self).metadata, "render_fps": None, **first.metadata}
        self.reports_success = bool(_attribute(first, "reports_success", False))
        super().__init__(
            num_envs=num_envs,
            horizon=own_horizon(first, name) if horizon is None else horizon,
            single_observation_space=first.observation_space,
            single_action_space=first.action_space,
            default_task=None,
            render_mode=first.render_mode,
        )
        self._next_seeds: list[int | None] = [None] * num_envs
        self._observations = cast(NDArray, create_empty_array(first.observation_space, num_envs))

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return cast("list[Task]", self.envs[0].get_wrapper_attr("sample_tasks")(num_tasks, rng))

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return cast("list[Task]", _attribute(self.envs[0], "sample_test_tasks", self.sample_tasks)(num_tasks, rng))

    @property
    def task_range(self) -> tuple[float, float] | None:  # type: ignore[override]
        return cast("tuple[float, float] | None", _attribute(self.envs[0], "task_range", None))

    @task_range.setter
    def task_range(self, task_range: tuple[float, float] | None) -> None:
        self.envs[0].set_wrapper_attr("task_range", task_range)

    def render_one(self, index: int) -> NDArray[np.uint8]:
        return as_picture(self.envs[index].render())

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()

    def _seed_row(self, row: int, seed: int | None) -> None:
        self._next_seeds[row] = seed  # the copy draws from a generator of its own

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        for row, task in zip(rows, tasks, strict=True):
            try:
                if task is not None:
                    self._set_task[row](task)
                result = self.envs[row].reset(seed=self._next_seeds[row])
            except Exception as error:
                raise _error_of(int(row), error) from error
            try:
                observation, _ = result
            except (TypeError, ValueError) as error:
                raise _wrong_result(int(row), "reset", result, "(observation, info)") from error
            self._keep(int(row), observation)

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, NDArray] = {}
        for row in range(self.num_envs) if alive is None else np.flatnonzero(alive):
            try:
                result = self.envs[row].step(actions[row])
            except Exception as error:
                raise _error_of(int(row), error) from error
            try:
                observation, reward, terminated[row], truncated[row], info = result
                rewards[row] = float(reward)  # numpy would take None for nan
                numbers = [(name, value) for name, value in info.items() if isinstance(value, _NUMBERS)]
            except (TypeError, ValueError, AttributeError) as error:
                wanted = "(observation, reward, terminated, truncated, info)"
                raise _wrong_result(int(row), "step", result, wanted) from error
            self._keep(int(row), observation)
            for name, value in numbers:
                infos.setdefault(name, np.zeros(self.num_envs))[row] = value
        return self._observe(), rewards, terminated, truncated, infos

    def _keep(self, row: int, observation: NDArray) -> None:
        """Copy what a copy observes: it may write over its own array."""
        if np.shape(observation) != self._observations.shape[1:]:  # which an assignment might stretch unseen
            raise SimulationError(
                row,
                f"observation has shape {np.shape(observation)} in place of {self._observations.shape[1:]}: let every "
                "reset and step return one that fits observation_space",
            )
        self._observations[row] = observation

    def _observe(self) -> NDArray:
        return self._observations.copy()


def _copies(make_env: Callable[[], gymnasium.Env], count: int, name: str) -> list[gymnasium.Env]:
    """
    Raises:
        ValueError: if the first can be made but not all of them.
    """
    envs: list[gymnasium.Env] = []
    try:
        for _ in range(count):
            envs.append(make_env())
    except Exception as error:
        for env in envs:
            env.close()
        if not envs:
            raise
        reason = error.__cause__ or error
        raise ValueError(
            f"{name} is needed in {count} copies, one for each episode that is played beside others, but after "
            f"{len(envs)} the next fails with {type(reason).__name__}: {reason}: lower --episodes-per-task or "
            "--num-threads, or raise the limit that it meets (ulimit -n for open files)"
        ) from error
    return envs


def _wrong_result(row: int, method: str, result: Any, wanted: str) -> SimulationError:
    """That a copy returned something of another form."""
    return SimulationError(row, f"{method} returned {reprlib.repr(result)}: let it return {wanted}")


def _error_of(row: int, error: Exception) -> SimulationError:
    """What a copy raised, as an error of its row."""
    reason = error.reason if isinstance(error, SimulationError) else f"{type(error).__name__}: {error}"
    return SimulationError(row, reason)


def _attribute(env: gymnasium.Env, name: str, default: Any) -> Any:
    """Of the environment or a wrapper of it."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def own_horizon(env: gymnasium.Env, name: str) -> int:
    """How many steps an episode may take: the attribute `horizon`, else what Gymnasium's TimeLimit grants.

    Raises:
        ValueError: if the environment says neither.
    """
    horizon = _attribute(env, "horizon", None)
    if horizon is None and env.spec is not None:
        horizon = env.spec.max_episode_steps
    if horizon is None:
        raise ValueError(
            f"{name} does not say how many steps an episode may take: give it an attribute horizon, register it with "
            "max_episode_steps, or set --horizon"
        )
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer):
        raise ValueError(f"the horizon of {name} must be a whole number of steps, got {horizon!r}")
    return int(horizon)
