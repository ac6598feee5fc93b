"""The half cheetah, asked to run at a speed or in a direction."""

from __future__ import annotations

import functools
from abc import abstractmethod
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from ..adapters import SingleFromVector
from ..task_env import episode_length
from ..tasks import Motion, TaskDistribution
from .mujoco_batch import MujocoTaskVectorEnv, Pay, SpeedToKeep, WayToRun
from .physics import HalfCheetahPhysics, half_cheetah_physics
from .planar_chain import PlanarChain

TOTAL_MASS = 14.0  # [kg], the settotalmass of half_cheetah.xml
XML = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"


@functools.cache
def half_cheetah_model() -> mujoco.MjModel:
    """Gymnasium's half cheetah, loaded without warnings.

    The compiler attribute settotalmass of the file is deprecated and warns at every load; the two calls below do
    the same, bit for bit.
    """
    spec = mujoco.MjSpec.from_file(str(XML))
    spec.compiler.settotalmass = -1.0
    model = spec.compile()
    mujoco.mj_setTotalmass(model, TOTAL_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


class HalfCheetahVectorEnv(MujocoTaskVectorEnv):
    """Observation and velocity of the half cheetah: what its tasks have in common."""

    camera = "track"
    physics: HalfCheetahPhysics

    def __init__(
        self,
        num_envs: int = 1,
        physics: str = "rllab",
        horizon: int | None = None,
        max_episode_steps: int | None = None,
        num_threads: int = 1,
        render_mode: str | None = None,
    ):
        """
        Args:
            physics: "rllab" or "gym".
            horizon: [steps]; None for the physics' own. `max_episode_steps` is Gymnasium's name for it.
            num_threads: that step the simulations.
            render_mode: None or "rgb_array".
        """
        constants = half_cheetah_physics(physics)
        model = half_cheetah_model()
        self._chain = PlanarChain(model)
        self._num_observations = model.nq - 1 + model.nv + 3 * constants.observes_center_of_mass
        super().__init__(
            model=model,
            physics=constants,
            distribution=self.distribution(constants),
            num_envs=num_envs,
            horizon=episode_length(horizon, max_episode_steps, constants.horizon),
            num_observations=self._num_observations,
            num_threads=num_threads,
            render_mode=render_mode,
        )

    @staticmethod
    @abstractmethod
    def distribution(physics: HalfCheetahPhysics) -> TaskDistribution:
        """The distribution of its tasks."""

    def place(self) -> NDArray[np.float64]:
        return self._qpos[:, 0].copy()

    def measure(self, place_before: NDArray[np.float64]) -> tuple[NDArray[np.float64], Motion]:
        qpos, qvel = self._qpos, self._qvel
        observations = np.empty((self.num_envs, self._num_observations))
        observations[:, :8] = qpos[:, 1:]
        observations[:, 8:17] = qvel
        if self.physics.velocity == "root_displacement":
            x_velocity = (qpos[:, 0] - place_before) / self.physics.step_duration
        else:
            observations[:, 17:], x_velocity = self._chain.center_of_mass(qpos, qvel)
        return observations, Motion(x_velocity, qpos[:, :1])

    def pay(self, progress: NDArray[np.float64], control_cost: NDArray, terminated: NDArray[np.bool_]) -> Pay:
        return progress - control_cost, {}


class HalfCheetahVelVectorEnv(SpeedToKeep, HalfCheetahVectorEnv):
    """Many half cheetahs, each with a speed to keep: see `HalfCheetahVelEnv` for the specification."""

    post_y = 0.6  # behind the robot


class HalfCheetahDirVectorEnv(WayToRun, HalfCheetahVectorEnv):
    """Many half cheetahs, each sent one way: see `HalfCheetahDirEnv` for the specification."""


class HalfCheetahVelEnv(SingleFromVector):
    """A half cheetah that keeps a target speed.

    ## Task
    `TargetVelocity(speed)`: forward speed g in [m/s], drawn from U(0, 2). The robot is not told.

    ## Action
    Box(-1, 1, (6,), float32): torques at bthigh, bshin, bfoot, fthigh, fshin, ffoot as fractions of 120, 90, 60,
    120, 60, 30 [N m]. Values beyond +-1 are clipped.

    ## Observation
    | index | quantity | unit | rllab | gym |
    |---|---|---|---|---|
    | 0 | height of the torso above its initial 0.7 m | m | x | x |
    | 1 | pitch of the torso | rad | x | x |
    | 2-7 | angles of bthigh, bshin, bfoot, fthigh, fshin, ffoot | rad | x | x |
    | 8, 9 | velocity of the torso along x, z | m/s | x | x |
    | 10-16 | rates of the pitch and of the six angles | rad/s | x | x |
    | 17-19 | centre of mass of the whole robot, x, y, z | m | x | - |

    Box(-inf, inf, (20,) in rllab, (17,) in gym, float64).

    ## Reward
    -|v - g| - 0.05 * sum(a^2), with a the clipped action and v the forward velocity:
    - rllab: of the whole robot's centre of mass, at the instant after the step;
    - gym: of the torso, its displacement over the step divided by 0.05 s.

    Info: `x_velocity` is v [m/s], `control_cost` is 0.05 * sum(a^2).

    ## Time
    Simulation step 0.01 s. rllab: one per action, 0.01 s. gym: five per action, 0.05 s.

    ## Reset
    Around the model's initial state (all joints 0, at rest):
    - rllab: positions + N(0, 0.01^2), velocities + N(0, 0.1^2);
    - gym: positions + U(-0.1, 0.1), velocities + N(0, 0.1^2), the same numbers as HalfCheetah-v5 from the same seed.

    ## End
    Never terminates; truncated after `horizon` steps, 200.

    ## Arguments
    `physics`: "rllab" or "gym". `horizon`: [steps], None for 200. `render_mode`: None or "rgb_array".

    ## Source
    Finn, Abbeel, Levine 2017 (arXiv:1703.03400), section 5.3; "rllab" follows the rllab environments that paper ran,
    "gym" Gymnasium's HalfCheetah-v5, whose observations and velocities it reproduces bit for bit.

    ## Version history
    - v0: first version, on MuJoCo 4.0. Returns compare only within one version of MuJoCo.
    """

    def __init__(self, physics: str = "rllab", horizon: int | None = None, render_mode: str | None = None):
        super().__init__(HalfCheetahVelVectorEnv(1, physics, horizon, render_mode=render_mode))


class HalfCheetahDirEnv(SingleFromVector):
    """A half cheetah that runs forward, or backward.

    ## Task
    `Direction(sign)`: d = -1 (backward) if a draw from U(0, 2) is below 1, else +1 (forward). The robot is not told.

    ## Reward
    d * v - 0.05 * sum(a^2), with a the clipped action and v the forward velocity [m/s] as in `HalfCheetahVelEnv`.

    ## Action, observation, time, reset, end, arguments, source
    Those of `HalfCheetahVelEnv`.

    ## Version history
    - v0: first version, on MuJoCo 4.0. Returns compare only within one version of MuJoCo.
    """

    def __init__(self, physics: str = "rllab", horizon: int | None = None, render_mode: str | None = None):
        super().__init__(HalfCheetahDirVectorEnv(1, physics, horizon, render_mode=render_mode))
