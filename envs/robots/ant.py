"""The four-legged ant, asked to run at a speed, in a direction, or to a goal."""

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
from ..tasks import GoalTasks, Motion, TaskDistribution
from .mujoco_batch import STAGE_ACC, STAGE_NONE, MujocoTaskVectorEnv, Pay, SpeedToKeep, WayToRun
from .physics import AntPhysics, ant_physics

XML = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml"
TORSO = 1  # the body that carries all others
MAX_FORCE = 1.0  # contact forces and torques are clipped to +- this, [N], [N m]; rllab and Ant-v5


@functools.cache
def ant_model(physics: AntPhysics) -> mujoco.MjModel:
    """Gymnasium's ant with the step and the contacts of `physics`.

    With measures="new_state" it also has two sensors: one for the velocity of the centre of mass, and one whose only
    purpose is that mj_forward computes contact forces, which it does for force sensors alone.
    """
    spec = mujoco.MjSpec.from_file(str(XML))
    spec.option.timestep = physics.timestep
    if physics.contact is not None:
        for geom in spec.geoms:
            geom.solref = physics.contact.solref
            geom.solimp[:3] = physics.contact.solimp
    if physics.measures == "new_state":
        _add_sensors(spec)
    return spec.compile()


def _add_sensors(spec: mujoco.MjSpec) -> None:
    spec.add_sensor(
        name="velocity",
        type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname="torso",
    )
    spec.body("torso").add_site(name="probe")
    spec.add_sensor(name="force", type=mujoco.mjtSensor.mjSENS_FORCE, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="probe")


class AntVectorEnv(MujocoTaskVectorEnv):
    """Observation, costs and end of the ant: what its tasks have in common."""

    camera = "track"
    physics: AntPhysics
    bonus = 0.0  # per step: where progress is negative it keeps an early end from paying, [reward]

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
        constants = ant_physics(physics)
        model = ant_model(constants)
        whole = model.nq + model.nv + 6 * model.nbody
        super().__init__(
            model=model,
            physics=constants,
            distribution=self.distribution(constants),
            num_envs=num_envs,
            horizon=episode_length(horizon, max_episode_steps, constants.horizon),
            num_observations=whole + 9 + 3 if constants.observes_place else whole - 2 - 6,
            num_threads=num_threads,
            render_mode=render_mode,
            stage_after_step=STAGE_ACC if constants.measures == "new_state" else STAGE_NONE,
            keeps_data=constants.measures == "last_stage",
        )
        if constants.starts_bent:
            self.initial_qpos = model.numeric("init_qpos").data.copy()
        self._xpos = self._batch.bind("xpos")  # [n, bodies, 3]
        if constants.measures == "last_stage":
            self._forces = np.zeros((num_envs, model.nbody, 6))
            self._scratch = mujoco.MjData(model)
            return
        self._forces = self._batch.bind("cfrc_ext")  # [n, bodies, 6]
        self._rotations = self._batch.bind("xmat")  # [n, bodies, 9]
        self._centers = self._batch.bind("subtree_com")  # [n, bodies, 3]
        self._velocities = self._batch.bind("sensordata")  # [n, 3 + 3]: of the centre of mass, then the probe's

    @staticmethod
    @abstractmethod
    def distribution(physics: AntPhysics) -> TaskDistribution:
        """The distribution of its tasks."""

    def place(self) -> NDArray[np.float64]:
        return self._xpos[:, TORSO, 0].copy()

    def measure(self, place_before: NDArray[np.float64]) -> tuple[NDArray[np.float64], Motion]:
        forces = self._clipped_forces()
        if self.physics.observes_place:
            parts = [self._qpos, self._qvel, forces, self._rotations[:, TORSO], self._centers[:, TORSO]]
        else:
            parts = [self._qpos[:, 2:], self._qvel, forces[:, 6:]]
        return np.concatenate(parts, axis=1), self._motion(place_before)

    def _motion(self, place_before: NDArray[np.float64]) -> Motion:
        if self.physics.velocity == "center_of_mass":
            return Motion(self._velocities[:, 0].copy(), self._centers[:, TORSO, :2])
        return Motion((self.place() - place_before) / self.physics.step_duration, self._qpos[:, :2])

    def pay(self, progress: NDArray[np.float64], control_cost: NDArray, terminated: NDArray[np.bool_]) -> Pay:
        contact_cost = self.physics.contact_cost * np.square(self._clipped_forces()).sum(axis=1)
        survival = np.full(self.num_envs, self.physics.survival_reward)
        if not self.physics.pays_last_survival:
            survival[terminated] = 0.0
        rewards = progress + self.bonus + survival - (control_cost + contact_cost)
        return rewards, {"contact_cost": contact_cost, "survival_reward": survival}

    def is_terminated(self) -> NDArray[np.bool_]:
        """Whether the torso is too low or too high, or its height no number."""
        height = self._qpos[:, 2]
        return ~((self.physics.min_height <= height) & (height <= self.physics.max_height))

    def _clipped_forces(self) -> NDArray[np.float64]:
        """Contact torques and forces on each body [n, 6 * bodies]. [N m], [N]"""
        return np.clip(self._forces, -MAX_FORCE, MAX_FORCE).reshape(self.num_envs, -1)

    def _after_reset(self, rows: NDArray[np.intp]) -> None:
        self._batch.forward(ids=rows, stage=STAGE_ACC)
        if self.physics.measures == "last_stage":
            self._forces[rows] = 0.0  # as Ant-v5, which computes them only after a step

    def _after_step(self, rows: NDArray[np.intp]) -> None:
        """The last stage's contacts lie where no array of the batch reaches, hence one simulation after the other."""
        if self.physics.measures == "new_state":
            return
        model, scratch = self.model, self._scratch
        for row in rows.tolist():
            self._batch.get_data(row, scratch)
            mujoco.mj_rnePostConstraint(model, scratch)
            self._forces[row] = scratch.cfrc_ext


class AntVelVectorEnv(SpeedToKeep, AntVectorEnv):
    """Many ants, each with a speed to keep: see `AntVelEnv` for the specification."""

    bonus = 1.0  # rllab AntEnvRand
    post_y = 1.2  # behind the robot


class AntDirVectorEnv(WayToRun, AntVectorEnv):
    """Many ants, each sent one way: see `AntDirEnv` for the specification."""


class AntGoalVectorEnv(AntVectorEnv):
    """Many ants, each with a place to go to: see `AntGoalEnv` for the specification."""

    bonus = 4.0  # rllab AntEnvRandGoal
    picture_note = "the red post stands at the goal"

    @staticmethod
    def distribution(physics: AntPhysics) -> TaskDistribution:
        return GoalTasks(-physics.goal_range, physics.goal_range)

    @property
    def position_columns(self) -> tuple[int, int] | None:  # type: ignore[override]
        return (0, 1) if self.physics.observes_place else None

    def post(self, index: int) -> tuple[float, float]:
        """A post at the goal."""
        x, y = self._task_rows[index].tolist()
        return x, y


class AntVelEnv(SingleFromVector):
    """An ant that keeps a target speed.

    ## Task
    `TargetVelocity(speed)`: forward speed g in [m/s], drawn from U(0, 3). The robot is not told.

    ## Action
    Box(-1, 1, (8,), float32): torques at hip and ankle of legs 4, 1, 2, 3 as fractions of 150 [N m]. Values beyond
    +-1 are clipped.

    ## Observation
    | quantity | unit | rllab | gym |
    |---|---|---|---|
    | position x, y of the torso | m | 0, 1 | - |
    | height of the torso, its orientation (quaternion w, x, y, z) | m, - | 2-6 | 0-4 |
    | angles of hip and ankle of legs 1 to 4 | rad | 7-14 | 5-12 |
    | velocity of the torso, its angular velocity | m/s, rad/s | 15-20 | 13-18 |
    | rates of the eight angles | rad/s | 21-28 | 19-26 |
    | contact torque and force on the world body (zero), clipped to +-1 | N m, N | 29-34 | - |
    | the same on each of the 13 bodies | N m, N | 35-112 | 27-104 |
    | rotation matrix of the torso, row by row | - | 113-121 | - |
    | centre of mass of the whole robot, x, y, z | m | 122-124 | - |

    Box(-inf, inf, (125,) in rllab, (105,) in gym, float64). Contact forces (MuJoCo's cfrc_ext) are taken
    - rllab: at the state observed (mj_forward after the step and after the reset);
    - gym: as Ant-v5 does, at the last Runge-Kutta stage of the step; zero after the reset.

    ## Reward
    -|v - g| + 1 + survival - c * sum(a^2) - 0.0005 * sum(f^2), with a the clipped action, f the clipped contact
    forces and v the forward velocity:
    - rllab: survival 0.05, c = 0.005; v of the whole robot's centre of mass, at the instant after the step;
    - gym: survival 1, but 0 in a step that terminates the episode, c = 0.5; v of the torso, its displacement over the
      step divided by 0.05 s, both positions taken when the contact forces are.

    Info: `x_velocity` is v [m/s]; `control_cost`, `contact_cost` and `survival_reward` are parts of the reward.

    ## Time
    rllab: one simulation step of 0.02 s per action. gym: five of 0.01 s. Both fourth-order Runge-Kutta.

    ## Contacts
    rllab: solref 0.02 1, solimp 0.8 0.8 0.01, softer than MuJoCo's own, which gym has.

    ## Reset
    At rest, plus noise:
    - rllab: height 0.55 m, knees bent by 1 rad (init_qpos of ant.xml); positions + N(0, 0.01^2), velocities
      + N(0, 0.1^2);
    - gym: height 0.75 m, all joints 0; positions + U(-0.1, 0.1), velocities + N(0, 0.1^2), the same numbers as Ant-v5
      from the same seed.

    ## End
    Terminated when the height of the torso leaves [0.2, 1] m; truncated after `horizon` steps, 200. A state that is not
    finite, or that MuJoCo gives up, raises `SimulationError`.

    ## Arguments
    `physics`: "rllab" or "gym". `horizon`: [steps], None for 200. `render_mode`: None or "rgb_array".

    ## Source
    Finn, Abbeel, Levine 2017 (arXiv:1703.03400), section 5.3; "rllab" follows the rllab environments that paper ran,
    "gym" Gymnasium's Ant-v5, whose observations, velocities, costs and ends it reproduces bit for bit.

    ## Version history
    - v0: first version, on MuJoCo 4.0. Returns compare only within one version of MuJoCo.
    """

    def __init__(self, physics: str = "rllab", horizon: int | None = None, render_mode: str | None = None):
        super().__init__(AntVelVectorEnv(1, physics, horizon, render_mode=render_mode))


class AntDirEnv(SingleFromVector):
    """An ant that runs forward, or backward.

    ## Task
    `Direction(sign)`: d = +1 (forward) or -1 (backward), equally likely. The robot is not told.

    ## Reward
    d * v + survival - c * sum(a^2) - 0.0005 * sum(f^2), its parts as in `AntVelEnv`. In gym and forward this is
    Ant-v5's own.

    ## Action, observation, time, contacts, reset, end, arguments, source
    Those of `AntVelEnv`.

    ## Version history
    - v0: first version, on MuJoCo 4.0. Returns compare only within one version of MuJoCo.
    """

    def __init__(self, physics: str = "rllab", horizon: int | None = None, render_mode: str | None = None):
        super().__init__(AntDirVectorEnv(1, physics, horizon, render_mode=render_mode))


class AntGoalEnv(SingleFromVector):
    """An ant that walks to a place.

    ## Task
    `Goal(x, y)`: drawn from U(-3, 3)^2 [m]. The robot is not told.

    ## Reward
    -(|x - goal x| + |y - goal y|) + 4 + survival - c * sum(a^2) - 0.0005 * sum(f^2) after the step, its other parts as
    in `AntVelEnv`; x and y [m] of
    - rllab: the whole robot's centre of mass;
    - gym: the torso, which is not observed.

    ## Action, observation, time, contacts, reset, end, arguments, source
    Those of `AntVelEnv`.

    ## Version history
    - v0: first version, on MuJoCo 4.0. Returns compare only within one version of MuJoCo.
    """

    def __init__(self, physics: str = "rllab", horizon: int | None = None, render_mode: str | None = None):
        super().__init__(AntGoalVectorEnv(1, physics, horizon, render_mode=render_mode))
