"""Adapters: a batch of one as a single environment, copies of a single one as a batch, a batch seen otherwise."""

from __future__ import annotations

import copy
import reprlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector.utils import create_empty_array
from numpy.typing import NDArray

from .pictures import as_picture
from .task_env import SimulationError, Step, Task, TaskEnv, TaskVectorEnv

_NUMBERS = (int, float, np.number, np.bool_)  # infos of these types are kept


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

    @property
    def vector(self) -> TaskVectorEnv:
        """The batch of one."""
        return self._vector

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
            horizon: [steps] of an episode at most; None for the copies' own, or else `DEFAULT_HORIZON`.
            name: for messages.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.envs = _copies(make_env, num_envs, name)  # as made, with their wrappers
        self._set_task = [env.get_wrapper_attr("set_task") for env in self.envs]
        first = self.envs[0]
        self.metadata = {**type(self).metadata, "render_fps": None, **first.metadata}
        self.reports_success = bool(_attribute(first, "reports_success", False))
        own = own_horizon(first, name) if horizon is None else horizon
        super().__init__(
            num_envs=num_envs,
            horizon=DEFAULT_HORIZON if own is None else own,
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
    def has_test_tasks(self) -> bool:
        found = _attribute(self.envs[0], "sample_test_tasks", None)
        return found is not None and getattr(found, "__func__", found) is not TaskEnv.sample_test_tasks

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
        self._next_seeds[row] = seed  # the copy draws from its own generator

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
        """Store a copy's observation by value: the copy may overwrite its own array."""
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
    """Make `count` copies.

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
            f"{len(envs)} the next fails with {type(reason).__name__}: {reason}: raise the limit that it meets (ulimit "
            "-n for open files), or lower --num-tasks and --evaluation.num-tasks, times --episodes-per-task, below it"
        ) from error
    return envs


class TaskVectorWrapper(TaskVectorEnv):
    """A base for wrappers that change the observations of `env` and nothing else. The wrapper closes `env`."""

    def __init__(self, env: TaskVectorEnv, single_observation_space: gymnasium.spaces.Box):
        self._env = env
        self.metadata, self.picture_note = env.metadata, env.picture_note
        self.task_type, self.reports_success, self.is_copied = env.task_type, env.reports_success, env.is_copied
        self.steps_unlocked = env.steps_unlocked
        super().__init__(
            num_envs=env.num_envs,
            horizon=env.horizon,
            single_observation_space=single_observation_space,
            single_action_space=env.single_action_space,
            default_task=None,
            render_mode=env.render_mode,
        )
        self._tasks, self.generators, self._elapsed = list(env._tasks), env.generators, env._elapsed

    @property
    def world(self) -> TaskVectorEnv:
        """The environment inside."""
        return self._env

    @property
    def task_range(self) -> tuple[float, float] | None:  # type: ignore[override]
        return self._env.task_range

    @task_range.setter
    def task_range(self, task_range: tuple[float, float] | None) -> None:
        self._env.task_range = task_range

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._env.sample_tasks(num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._env.sample_test_tasks(num_tasks, rng)

    @property
    def has_test_tasks(self) -> bool:
        return self._env.has_test_tasks

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        super().set_tasks(tasks)
        self._env.set_tasks(tasks)

    def render_one(self, index: int) -> NDArray[np.uint8]:
        return self._env.render_one(index)

    def close_extras(self, **kwargs: Any) -> None:
        self._env.close()

    def _seed_row(self, row: int, seed: int | None) -> None:
        self._env._seed_row(row, seed)

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        self._env._reset_rows(rows, tasks)

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        observations, *rest = self._env._step_rows(actions, alive)
        return self._seen(observations), *rest  # type: ignore[return-value]

    def _observe(self) -> NDArray:
        return self._seen(self._env._observe())

    @abstractmethod
    def _seen(self, observations: NDArray) -> NDArray:
        """Fresh observations [n, ...] from those of `env`."""


def _wrong_result(row: int, method: str, result: Any, wanted: str) -> SimulationError:
    """The error for a copy that returned something in another form."""
    return SimulationError(row, f"{method} returned {reprlib.repr(result)}: let it return {wanted}")


def _error_of(row: int, error: Exception) -> SimulationError:
    """A copy's exception as an error of its row."""
    reason = error.reason if isinstance(error, SimulationError) else f"{type(error).__name__}: {error}"
    return SimulationError(row, reason)


def tells_success(env: TaskVectorEnv) -> bool:
    """Whether the infos of one episode of random actions hold "success" or "is_success"; False if it fails."""
    actions = copy.deepcopy(env.action_space)
    actions.seed(0)
    env.set_tasks(env.sample_tasks(1, np.random.default_rng(0)) * env.num_envs)
    alive = np.ones(env.num_envs, dtype=bool)
    try:
        env.reset(seed=0)
        while alive.any():
            _, _, terminated, truncated, infos = env.step(actions.sample(), alive)
            if "success" in infos:
                return True
            alive &= ~(terminated | truncated)
    except SimulationError:
        return False  # training will run into it and report it
    return False


def _attribute(env: gymnasium.Env, name: str, default: Any) -> Any:
    """An attribute of the environment or of one of its wrappers."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


DEFAULT_HORIZON = 200
"""Steps of an episode at most where neither the environment nor the user says how many: as in Finn et al. 2017."""


def own_horizon(env: gymnasium.Env, name: str) -> int | None:
    """The most steps an episode may take: the attribute `horizon`, a time limit in the chain of wrappers, or the one it
    was registered with; the smallest, if there are several, and None if there is none.

    Raises:
        ValueError: for a horizon that is no whole number.
    """
    horizon = _attribute(env, "horizon", None)
    if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int | np.integer)):
        raise ValueError(f"the horizon of {name} must be a whole number of steps, got {horizon!r}")
    registered = None if env.spec is None else env.spec.max_episode_steps
    stated = [int(each) for each in (horizon, registered, *_time_limits(env)) if each is not None]
    return min(stated, default=None)


def _time_limits(env: gymnasium.Env) -> list[int]:
    """[steps] of all wrappers that are, or look like, Gymnasium's TimeLimit."""
    limits = [getattr(env, "_max_episode_steps", None)]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        limits.append(getattr(env, "_max_episode_steps", None))
    return [limit for limit in limits if isinstance(limit, int) and limit > 0]
