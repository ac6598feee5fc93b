"""Many MuJoCo robots of one model side by side, stepped by `mujoco.batch.Batch` outside the interpreter lock."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import mujoco.batch
import numpy as np
from numpy.typing import NDArray

from ..task_env import SimulationError, Step, Task, TaskVectorEnv
from ..tasks import DirectionTasks, Motion, TaskDistribution, VelocityTasks
from .physics import Physics

STAGE_NONE = mujoco.mjtStage.mjSTAGE_NONE.value
STAGE_ACC = mujoco.mjtStage.mjSTAGE_ACC.value
Pay = tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]  # rewards [n]; what they are made of, for the infos


class MujocoTaskVectorEnv(TaskVectorEnv):
    """`num_envs` simulations of `model`; a subclass says what is observed, measured and paid.

    Its functions `measure`, `pay` and `is_terminated` work on arrays with the simulations as leading axis and are the
    one definition of the environment: the single environment is a view on a batch of one. The results of a row do
    not depend on the other rows, nor on the number of threads.
    """

    metadata = {**TaskVectorEnv.metadata, "render_modes": ["rgb_array"]}  # noqa: RUF012
    steps_unlocked = True
    camera: str | int = -1  # that films, -1 is the free one
    picture_size: tuple[int, int] = (480, 480)  # height and width [pixels]; to be set before the first picture

    def __init__(
        self,
        model: mujoco.MjModel,
        physics: Physics,
        distribution: TaskDistribution,
        num_envs: int,
        horizon: int,
        num_observations: int,
        num_threads: int = 1,
        render_mode: str | None = None,
        stage_after_step: int = STAGE_NONE,
        keeps_data: bool = False,
    ):
        """
        Args:
            model: with actuators all in [-1, 1].
            num_observations: O.
            num_threads: that step the simulations, the caller's included.
            stage_after_step: up to which MuJoCo recomputes what it derives from the state once a step is done.
            keeps_data: one MjData per simulation, for what only `get_data` can reach.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        super().__init__(
            num_envs=num_envs,
            horizon=horizon,
            single_observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (num_observations,), np.float64),
            single_action_space=gymnasium.spaces.Box(-1.0, 1.0, (model.nu,), np.float32),
            default_task=distribution.default,
            render_mode=render_mode,
        )
        _quieten()
        self.model, self.physics = model, physics
        self.task_type = distribution.task_type
        self.initial_qpos = model.qpos0.copy()
        self.metadata = {**self.metadata, "render_fps": round(1.0 / physics.step_duration)}
        self._distribution = distribution
        self._task_rows = np.tile(distribution.rows([distribution.default]), (num_envs, 1))  # of the tasks under way
        self.stage_after_step = stage_after_step
        self._batch = mujoco.batch.Batch(model, num_envs, num_threads, keeps_data)
        self._qpos = self._batch.bind("qpos")  # [n, nq], views of the simulations' states
        self._qvel = self._batch.bind("qvel")  # [n, nv]
        self._ctrl = self._batch.bind("ctrl")  # [n, A]
        self._warning_counts = self._batch.warning[:, :, 1]  # [n, kinds of warning]
        self._coordinates = (model.nq, model.nv)
        self._every_row = np.arange(num_envs)
        self._renderer: mujoco.Renderer | None = None
        self._picture_data: mujoco.MjData | None = None

    # --- what a subclass says, over arrays ---------------------------------------------------------------------

    @abstractmethod
    def place(self) -> NDArray[np.float64]:
        """A copy of where the robots are [n, ...], in the form that `measure` takes differences of. [m]"""

    @abstractmethod
    def measure(self, place_before: NDArray[np.float64]) -> tuple[NDArray[np.float64], Motion]:
        """Fresh observations [n, O], and the motion of the step just taken."""

    @abstractmethod
    def pay(self, progress: NDArray[np.float64], control_cost: NDArray, terminated: NDArray[np.bool_]) -> Pay:
        """Rewards [n] for the progress in each row's task, less the costs."""

    def is_terminated(self) -> NDArray[np.bool_]:
        """Whether the episode has terminated [n]; here never."""
        return np.zeros(self.num_envs, dtype=bool)

    def _after_reset(self, rows: NDArray[np.intp]) -> None:
        """Compute what is observed beyond qpos and qvel; here nothing.

        Without it there is no forward(): mj_step computes all it needs from qpos and qvel, and the reset clears the
        warm start.
        """

    def _after_step(self, rows: NDArray[np.intp]) -> None:
        """Fetch what `measure` needs of the simulations stepped; here nothing."""

    # --- TaskVectorEnv -----------------------------------------------------------------------------------------

    @property
    def task_range(self) -> tuple[float, float] | None:  # type: ignore[override]
        return self._distribution.task_range

    @task_range.setter
    def task_range(self, task_range: tuple[float, float] | None) -> None:
        if task_range is None:
            raise ValueError("task_range must be two numbers, the lower first, got None")
        self._distribution = self._distribution.within(task_range)

    def sample_tasks(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return self._distribution.sample(num_tasks, rng)

    def _reset_rows(self, rows: NDArray[np.intp], tasks: list[Task]) -> None:
        self._task_rows[rows] = self._distribution.rows(tasks)
        self._batch.reset(ids=rows, stage=STAGE_NONE)
        for row in rows:
            position, velocity = reset_noise(self.generators[row], self.physics, *self._coordinates)
            self._qpos[row] = self.initial_qpos + position
            self._qvel[row] += velocity
        self._after_reset(rows)

    def _step_rows(self, actions: NDArray, alive: NDArray[np.bool_] | None) -> Step:
        clipped = np.clip(actions, -1.0, 1.0)
        self._ctrl[...] = clipped
        place_before = self.place()
        self._advance(alive)
        self._after_step(self._every_row if alive is None else np.flatnonzero(alive))
        observations, motion = self.measure(place_before)
        terminated = self.is_terminated()
        control_cost = self.physics.control_cost * np.square(clipped).sum(axis=1)
        progress = self._distribution.progress(motion, self._task_rows)
        rewards, parts = self.pay(progress, control_cost, terminated)
        infos = {"x_velocity": motion.x_velocity, "control_cost": control_cost, **parts}
        return observations, rewards, terminated, np.zeros(self.num_envs, dtype=bool), infos

    def _observe(self) -> NDArray[np.float64]:
        return self.measure(self.place())[0]

    def _advance(self, alive: NDArray[np.bool_] | None) -> None:
        """Run MuJoCo for one action; a simulation it gave up raises."""
        try:
            self._batch.step(ids=alive, nstep=self.physics.frame_skip, stage=self.stage_after_step)
        except mujoco.batch.SimulationError as error:
            row = int(error.ids[0])
            raise SimulationError(row, f"MuJoCo failed: {self._batch.error(row)}") from error
        # mj_step silently resets a diverged state; only its warning counters, cleared by a reset, tell
        if self._warning_counts.any():
            self._raise_divergence(alive)

    def _raise_divergence(self, alive: NDArray[np.bool_] | None) -> None:
        warned = self._warning_counts != 0
        if alive is not None:
            warned &= alive[:, None]
        if warned.any():
            row, kind = (int(i) for i in np.argwhere(warned)[0])
            name = mujoco.mjtWarning(kind).name.removeprefix("mjWARN_")
            raise SimulationError(
                row, f"MuJoCo warned of {name}: the simulation diverged or ran out of room; reset it to go on"
            )

    # --- pictures ----------------------------------------------------------------------------------------------

    def render_one(self, index: int) -> NDArray[np.uint8]:
        """A picture [height, width, 3] of simulation `index`, by the tracking camera."""
        if self._renderer is None:  # once: making the drawing context takes a second
            self._renderer = _make_renderer(self.model, *self.picture_size)
            self._picture_data = mujoco.MjData(self.model)
        assert self._picture_data is not None
        self._batch.get_data(index, self._picture_data)
        mujoco.mj_forward(self.model, self._picture_data)
        self._renderer.update_scene(self._picture_data, camera=self.camera)
        place = self.post(index)
        if place is not None:
            draw_post(self._renderer.scene, *place)
        return self._renderer.render()

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """MuJoCo's generalised positions of every robot [n, nq], a copy. [m, rad]"""
        return self._qpos.copy()

    def post(self, index: int) -> tuple[float, float] | None:
        """The place (x, y) of the post that shows the task of simulation `index` now, [m]; here there is none."""
        return None

    def close_extras(self, **kwargs: Any) -> None:
        """Free the drawing context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Make a renderer without shadows and mirrors: where no graphics card draws, most of the time goes into them, and
    the shadows leave black wedges on the floor."""
    renderer = mujoco.Renderer(model, height, width)
    for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SHADOW):
        renderer.scene.flags[flag] = False
    return renderer


class SpeedToKeep(MujocoTaskVectorEnv):
    """Tasks of a robot that has a speed to keep."""

    picture_note = "the red post moves at the target speed"
    post_y: float  # of the post, which stands beside the robot's way, [m]

    @staticmethod
    def distribution(physics: Physics) -> TaskDistribution:
        return VelocityTasks(physics.min_speed, physics.max_speed)

    def post(self, index: int) -> tuple[float, float]:
        """A post that moves along x at the target speed."""
        seconds = self._elapsed[index] * self.physics.step_duration
        return float(self._task_rows[index, 0] * seconds), self.post_y


class WayToRun(MujocoTaskVectorEnv):
    """Tasks of a robot that is sent forward or backward."""

    @staticmethod
    def distribution(physics: Physics) -> TaskDistribution:
        return DirectionTasks()


def draw_post(scene: mujoco.MjvScene, x: float, y: float) -> None:
    """Add a red post at (x, y) [m] to a picture."""
    if scene.ngeom >= scene.maxgeom:
        return
    geom, size, place = scene.geoms[scene.ngeom], np.array([0.03, 0.5, 0.0]), np.array([x, y, 0.5])
    colour = np.array([0.85, 0.15, 0.1, 1.0], dtype=np.float32)
    mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_CYLINDER, size, place, np.eye(3).ravel(), colour)
    geom.emission = 0.5  # as bright on the side that no light falls on
    scene.ngeom += 1


def reset_noise(
    rng: np.random.Generator | None, physics: Physics, nq: int, nv: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Displacements of qpos [nq] and qvel [nv] from the model's initial state, drawn in this order."""
    assert rng is not None
    scale = physics.position_noise_scale
    if physics.position_noise == "uniform":
        position = rng.uniform(-scale, scale, nq)
    else:
        position = scale * rng.standard_normal(nq)
    return position, physics.velocity_noise_scale * rng.standard_normal(nv)


class _LogConfig(ctypes.Structure):
    """mjLogConfig of mujoco/mjtype.h."""

    _fields_ = (
        ("logto_console", ctypes.c_bool),
        ("logto_file", ctypes.c_bool),
        ("logfile", ctypes.c_char * 1024),
        ("topics", ctypes.c_int),
    )


def _quieten() -> None:
    """Keep MuJoCo from leaving MUJOCO_LOG.TXT in the working directory, and from timing its steps; its warnings still
    reach stderr.

    A log file that the user chose is left alone, and so is a clock of theirs (`mujoco.set_mjcb_time`). Neither setting
    has a Python binding, hence ctypes.
    """
    library = _library()
    if library is None:
        return
    library.mju_getLogConfig.restype = _LogConfig
    library.mju_setLogConfig.argtypes = [_LogConfig]
    library.mju_setLogConfig.restype = None
    config = library.mju_getLogConfig()
    if config.logfile == b"MUJOCO_LOG.TXT":
        config.logto_file = False
        library.mju_setLogConfig(config)
    if mujoco.get_mjcb_time() is None:
        _clock_of(library).value = None


@contextlib.contextmanager
def with_timers() -> Iterator[None]:
    """Let MuJoCo time its steps for MjData.timer, as its Python package has it: it then reads the clock some twenty
    times a step, which takes 0.6 of a half cheetah's 4.4 microseconds. Environments turn that off for the process; no
    number of the physics depends on it."""
    library = _library()
    if library is None or _CLOCK is None:
        yield
        return
    clock = _clock_of(library)
    before, clock.value = clock.value, _CLOCK
    try:
        yield
    finally:
        clock.value = before


@functools.cache
def _library() -> ctypes.CDLL | None:
    """MuJoCo's library; None under another way of packaging: then a file may be left and time be lost, which harms
    nothing."""
    folder = Path(mujoco.__file__).parent
    libraries = [path for end in ("so", "dylib") for path in sorted(folder.glob(f"*mujoco*.{end}*"))]
    return ctypes.CDLL(str(libraries[0])) if libraries else None


def _clock_of(library: ctypes.CDLL) -> ctypes.c_void_p:
    """The function that MuJoCo reads the clock by, or null."""
    return ctypes.c_void_p.in_dll(library, "mjcb_time")


_CLOCK = None if (_found := _library()) is None else _clock_of(_found).value  # that of MuJoCo's Python package
