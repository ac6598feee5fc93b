"""Meta-World's ML1 and ML10: a robot arm, fifty kinds of manipulation, and goals that are not observed.

The package `metaworld` is optional and imported only when an environment is made: see docs/metaworld.md.
"""

from __future__ import annotations

import functools
import pickle
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from .adapters import SingleFromVector
from .task_env import SimulationError, Step, Task, TaskVectorEnv, episode_length

HORIZON = 500  # [steps]; Meta-World itself steps no further
GOALS_SEED = 0  # of the 50 goals for training and the 50 for testing of each class; versioned with the ids
MAX_IDLE = 40  # simulations that stand by for their class to come again; each holds about 19 MB

_HAND = [[-0.525, 0.348, -0.0525], [0.525, 1.025, 0.7]]  # the gripper's range [m]
_FRAME = [[*_HAND[i], sign, *[sign * np.inf] * 14] for i, sign in enumerate((-1.0, 1.0))]  # opening, two objects
_LOW, _HIGH = (np.array([*frame, *frame, 0.0, 0.0, 0.0]) for frame in _FRAME)  # now, one step ago, no goal
# anchor, relative position and quaternion, torque scale, as Meta-World has them; "the pose is to be recomputed": no
_WELD = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0, 0.0]


@dataclass(frozen=True)
class MetaWorldTask:
    """A class of Meta-World, and where its object and goal lie."""

    name: str  # of Meta-World's class: "reach-v3", ...
    placement: tuple[float, ...]  # Meta-World's `rand_vec`: of most classes object and goal, of some only one [m]

    def __str__(self) -> str:
        return f"{self.name} at ({', '.join(f'{x:.2f}' for x in self.placement)}) m"


@functools.cache
def load_metaworld() -> ModuleType:
    """The package `metaworld`, made to work with MuJoCo's present layout.

    Raises:
        gymnasium.error.DependencyNotInstalled: with the command that installs it.
    """
    try:
        import metaworld
        from metaworld.sawyer_xyz_env import SawyerMocapBase
    except ImportError as error:
        raise gymnasium.error.DependencyNotInstalled(
            f"Meta-World cannot be imported ({error}): take "
            "pip install --no-deps -r requirements-metaworld.txt in the project's source, see docs/metaworld.md there"
        ) from error
    mocap_base: Any = SawyerMocapBase
    written_for_11_columns = mocap_base.reset_mocap_welds

    def reset_mocap_welds(self: Any) -> None:
        """Reset welds as Meta-World does, also where they have a twelfth number: the pose is not to be recomputed."""
        if self.model.eq_data.shape[1] == 12:
            self.model.eq_data[self.model.eq_type == mujoco.mjtEq.mjEQ_WELD] = _WELD
        else:
            written_for_11_columns(self)

    mocap_base.reset_mocap_welds = reset_mocap_welds
    return metaworld


class Splits(NamedTuple):
    """A benchmark's tasks to train on and to test on; none is in both."""

    train: list[MetaWorldTask]
    test: list[MetaWorldTask]


@functools.cache
def benchmark_tasks(benchmark: str, seed: int) -> Splits:
    """The tasks to train on and those to test on, 50 of each class. Takes seconds, once.

    ML1 has one class with other goals to test on; ML10 trains on ten classes and tests on five others. The lists come
    from Meta-World's own benchmark classes: its Gymnasium id ML1-train gives test tasks.

    Args:
        benchmark: "ML10", or for ML1 the name of a class.
        seed: of the goals.
    """
    metaworld = load_metaworld()
    made = metaworld.ML10(seed=seed) if benchmark == "ML10" else metaworld.ML1(benchmark, seed=seed)
    return Splits(*([_from_theirs(task) for task in tasks] for tasks in (made.train_tasks, made.test_tasks)))


def _from_theirs(task: Any) -> MetaWorldTask:
    return MetaWorldTask(task.env_name, tuple(pickle.loads(task.data)["rand_vec"].tolist()))


def _to_theirs(task: MetaWorldTask, env_class: type) -> Any:
    data = {"rand_vec": np.array(task.placement), "env_cls": env_class, "partially_observable": True}
    return load_metaworld().Task(task.name, pickle.dumps(data))


class _Simulation(NamedTuple):
    name: str  # of its class
    env: Any  # Meta-World's environment


class MetaWorldVectorEnv(TaskVectorEnv):
    """Many arms, each with a task, stepped one after the other: see `MetaWorldEnv` for the specification.

    A sub-environment takes up a simulation of its task's class; one that it leaves stands by for others.
    """

    task_type = MetaWorldTask
    reports_success = True
    is_copied = True

    def __init__(
        self,
        num_envs: int = 1,
        horizon: int | None = None,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        *,
        benchmark: str,
        max_idle: int = MAX_IDLE,
    ):
        """
        Args:
            horizon: [steps], at most 500; None for 500. `max_episode_steps` is Gymnasium's name for it.
            render_mode: None.
            benchmark: "ML10", or for ML1 the name of a class such as "reach-v3".
            max_idle: simulations that stand by.
        Raises:
            gymnasium.error.DependencyNotInstalled: without Meta-World.
        """
        self._max_idle = max_idle
        self._classes = load_metaworld().ALL_V3_ENVIRONMENTS
        if benchmark != "ML10" and benchmark not in self._classes:
            raise ValueError(f"benchmark must be ML10 or a class of Meta-World, got {benchmark!r}")
        super().__init__(
            num_envs=num_envs,
            horizon=episode_length(horizon, max_episode_steps, HORIZON),
            single_observation_space=gymnasium.spaces.Box(_LOW, _HIGH, dtype=np.float64),
            single_action_space=gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32),
            default_task=None,
            render_mode=render_mode,
        )
        if self.horizon > HORIZON:
            raise ValueError(f"horizon must be at most {HORIZON} steps in Meta-World, got {self.horizon}")
        self._benchmark = benchmark
        self._active: list[_Simulation | None] = [None] * num_envs  # each row's own
        self._idle: list[_Simulation] = []  # the longest idle first
        self._observations = np.zeros((num_envs, len(_LOW)))

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[MetaWorldTask]:
        return self._deal(self._splits.train, num_tasks, rng)

    def sample_test_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[MetaWorldTask]:
        return self._deal(self._splits.test, num_tasks, rng)

    @property
    def _splits(self) -> Splits:
        return benchmark_tasks(self._benchmark, GOALS_SEED)

    def close_extras(self, **kwargs: Any) -> None:
        for simulation in (*self._active, *self._idle):
            if simulation is not None:
                simulation.env.close()
        self._active, self._idle = [None] * self.num_envs, []

    def _deal(self, tasks: list[MetaWorldTask], num_tasks: int, rng: np.random.Generator) -> list[MetaWorldTask]:
        """Draw tasks: classes in turn, and in random order every goal of a class before any of them again.

        Not independent draws: every class has its share of a batch, and 50 test tasks of ML1 are all there are.
        """
        classes: dict[str, list[MetaWorldTask]] = {}
        for task in tasks:
            classes.setdefault(task.name, []).append(task)
        decks = [[goals[i] for i in rng.permutation(len(goals))] for goals in classes.values()]
        decks = [decks[i] for i in rng.permutation(len(decks))]
        turns = (divmod(i, len(decks)) for i in range(num_tasks))
        return [decks[place][turn % len(decks[place])] for turn, place in turns]

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        tasks = [self._splits.train[0] if task is None else task for task in tasks]
        self._release(rows, tasks)
        for row, task in zip(rows, tasks, strict=True):
            env = self._acquire(row, task.name)
            env.set_task(_to_theirs(task, type(env)))
            self._observations[row], _ = env.reset()
        surplus = max(0, len(self._idle) - self._max_idle)
        for simulation in self._idle[:surplus]:
            simulation.env.close()
        self._idle = self._idle[surplus:]

    def _release(self, rows: NDArray[np.intp], tasks: list[MetaWorldTask]) -> None:
        """Set aside the simulations whose class is no longer wanted in their row."""
        for row, task in zip(rows, tasks, strict=True):
            simulation = self._active[row]
            if simulation is not None and simulation.name != task.name:
                self._idle.append(simulation)
                self._active[row] = None

    def _acquire(self, row: int, name: str) -> Any:
        """Meta-World's environment for this row: its own, one that stands by, or a new one."""
        simulation = self._active[row]
        if simulation is None:
            place = next((i for i, idle in enumerate(self._idle) if idle.name == name), None)
            simulation = _Simulation(name, self._classes[name]()) if place is None else self._idle.pop(place)
            self._active[row] = simulation
        return simulation.env

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        rewards, successes = np.zeros((2, self.num_envs))
        actions = np.clip(actions, -1.0, 1.0)
        for row in range(self.num_envs) if alive is None else np.flatnonzero(alive):
            simulation = self._active[row]
            assert simulation is not None  # nothing is stepped before a reset
            env = simulation.env
            self._observations[row], rewards[row], _, _, info = env.step(actions[row])
            successes[row] = info["success"]
            warned = env.data.warning.number  # mj_step silently resets a diverged state; a reset clears these counters
            if warned.any():
                raise SimulationError(
                    int(row), f"MuJoCo warned of {_warning(warned)}: the simulation diverged; reset it"
                )
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        return self._observe(), rewards, terminated, truncated, {"success": successes}

    def _observe(self) -> NDArray[np.float64]:
        return self._observations.copy()


def _warning(counts: NDArray[np.intc]) -> str:
    """The name of the first kind of warning that was given."""
    return mujoco.mjtWarning(int(np.argmax(counts != 0))).name.removeprefix("mjWARN_")


class MetaWorldEnv(SingleFromVector):
    """A Sawyer arm at a table that manipulates an object, towards a goal that it does not observe.

    ## Task
    `MetaWorldTask(name, placement)`: a class of Meta-World and where its object and goal lie [m]. ML1 has 50 goals of
    one class to train on and 50 others to test on; ML10 has 50 goals in each of ten classes to train on and of five
    other classes to test on. `sample_tasks` draws from the former, `sample_test_tasks` from the latter.

    ## Action
    Box(-1, 1, (4,), float32): the hand's move along x, y, z in units of 1 cm, and the gripper's effort. Clipped.

    ## Observation
    Box of 39, float64: hand [m], gripper's opening, positions [m] and quaternions of at most two objects (18 numbers);
    the same of one step ago; three zeros where other benchmarks of Meta-World show the goal.

    ## Reward
    Meta-World's own, in its version 2, in [0, 10] per step.

    ## Infos
    "success": 1 where the task is done at that step, by the class's own measure.

    ## Reset
    As the task places things; nothing is random.

    ## End
    Never terminated; truncated after `horizon` steps, 500, which Meta-World does not exceed.

    ## Arguments
    `benchmark`: "ML10", or for ML1 a class such as "reach-v3". `horizon`: [steps], None for 500. `render_mode`: None.

    ## Source
    Yu et al. 2019 (arXiv:1910.10897); McLean et al. 2025 (arXiv:2505.11289); the package metaworld 3.1.1.

    ## Version history
    - v0: first version: metaworld 3.1.1, goals of seed 0, MuJoCo 4 with the welds of `load_metaworld`.
    """

    def __init__(self, horizon: int | None = None, render_mode: str | None = None, *, benchmark: str):
        super().__init__(MetaWorldVectorEnv(1, horizon, render_mode=render_mode, benchmark=benchmark))
