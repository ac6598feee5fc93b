"""The numbers of the two families of physics in the meta-RL literature, each with unit and source.

"rllab" is what the experiments of Finn et al. 2017 ran on (github.com/cbfinn/maml_rl, rllab/envs/mujoco);
"gym" is what came with OpenAI Gym and is now Gymnasium's HalfCheetah-v5 and Ant-v5, with the episode length that
later work (ProMP, PEARL, VariBAD) uses. Their returns cannot be compared: an episode lasts 2 s (the ant's 4 s) here,
10 s there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar


@dataclass(frozen=True)
class Physics:
    """The settings by which a body is simulated, observed, rewarded and reset."""

    name: str
    timestep: float  # of the simulation, [s]
    frame_skip: int  # simulation steps per action
    velocity: Literal["center_of_mass", "root_displacement"]  # what the reward calls forward velocity, [m/s]:
    #   center_of_mass: the whole robot's, at the instant after the step; root_displacement: the torso's, over the step
    control_cost: float  # times sum(a^2) of the clipped action, [reward]
    position_noise: Literal["normal", "uniform"]  # of the reset: N(0, 1) or U(-1, 1), times
    position_noise_scale: float  # [m, rad]
    velocity_noise_scale: float  # times N(0, 1), [m/s, rad/s]
    min_speed: float  # target speeds are drawn uniformly from here, [m/s]
    max_speed: float  # to here, [m/s]
    horizon: int  # [steps]

    @property
    def step_duration(self) -> float:
        """Time between two actions. [s]"""
        return self.timestep * self.frame_skip


@dataclass(frozen=True, kw_only=True)
class HalfCheetahPhysics(Physics):
    """The half cheetah's further settings."""

    observes_center_of_mass: bool  # append the whole robot's centre of mass (x, y, z) [m] to qpos[1:], qvel


@dataclass(frozen=True, kw_only=True)
class AntPhysics(Physics):
    """The ant's further settings."""

    contact: Contact | None  # of every geom; None for MuJoCo's own
    starts_bent: bool  # from init_qpos of ant.xml (z = 0.55 m, knees bent by 1 rad), else all joints 0, z = 0.75 m
    measures: Literal["new_state", "last_stage"]  # when contact forces and positions are taken:
    #   new_state: mj_forward after the step; last_stage: as mj_step leaves them, at the last stage of Runge-Kutta
    observes_place: bool  # all of qpos and all 14 rows of contact forces, the torso's rotation matrix and the centre
    #   of mass, 125 numbers; else without x, y and the world body's row of forces, 105 numbers
    contact_cost: float  # times the sum of squares of the contact forces clipped to +-1, [reward]
    survival_reward: float  # per step, [reward]
    pays_last_survival: bool  # also for a step that terminates the episode
    min_height: float  # the episode terminates when the torso's z leaves these, [m]
    max_height: float
    goal_range: float  # goals are drawn from U(-goal_range, goal_range)^2, [m]


class Contact(NamedTuple):
    """MuJoCo's solver parameters: how geoms yield to each other."""

    solref: tuple[float, float]  # time constant [s], damping ratio
    solimp: tuple[float, float, float]  # impedance at zero depth and beyond the width, width [m]


HALF_CHEETAH_PHYSICS = {
    "rllab": HalfCheetahPhysics(
        name="rllab",
        timestep=0.01,  # half_cheetah.xml
        frame_skip=1,  # rllab MujocoEnv
        observes_center_of_mass=True,  # rllab HalfCheetahEnv.get_current_obs: 8 + 9 + 3 numbers
        velocity="center_of_mass",  # rllab get_body_comvel("torso"): mass-weighted over the subtree
        control_cost=0.05,  # rllab: 1e-1 * 0.5 * sum(a^2)
        position_noise="normal",  # rllab MujocoEnv.reset_mujoco
        position_noise_scale=0.01,
        velocity_noise_scale=0.1,
        min_speed=0.0,  # Finn et al. 2017, section 5.3
        max_speed=2.0,
        horizon=200,  # Finn et al. 2017, section 5.3: 2 s
    ),
    "gym": HalfCheetahPhysics(
        name="gym",
        timestep=0.01,  # half_cheetah.xml
        frame_skip=5,  # Gymnasium HalfCheetah-v5
        observes_center_of_mass=False,  # HalfCheetah-v5: 8 + 9 numbers
        velocity="root_displacement",  # HalfCheetah-v5
        control_cost=0.05,  # pytorch-maml-rl, PEARL, VariBAD: 0.5 * 1e-1; HalfCheetah-v5 itself charges 0.1
        position_noise="uniform",  # HalfCheetah-v5 reset_model
        position_noise_scale=0.1,
        velocity_noise_scale=0.1,
        min_speed=0.0,
        max_speed=2.0,
        horizon=200,  # PEARL, VariBAD, ProMP: 10 s
    ),
}


ANT_PHYSICS = {
    "rllab": AntPhysics(
        name="rllab",
        timestep=0.02,  # rllab ant.xml, RK4
        frame_skip=1,  # rllab MujocoEnv
        contact=Contact(solref=(0.02, 1.0), solimp=(0.8, 0.8, 0.01)),  # rllab ant.xml, default geom
        starts_bent=True,  # rllab MujocoEnv reads init_qpos
        measures="new_state",  # rllab MujocoEnv.forward_dynamics: step, then forward
        observes_place=True,  # rllab AntEnvRand.get_current_obs: 15 + 14 + 84 + 9 + 3 numbers
        velocity="center_of_mass",  # rllab get_body_comvel("torso"): mass-weighted over the subtree
        control_cost=0.005,  # rllab: 0.5 * 1e-2 * sum((a / 150)^2), its motors take +-150
        contact_cost=0.0005,  # rllab: 0.5 * 1e-3
        survival_reward=0.05,  # rllab
        pays_last_survival=True,  # rllab
        min_height=0.2,  # rllab: done unless 0.2 <= z <= 1.0
        max_height=1.0,
        position_noise="normal",  # rllab MujocoEnv.reset_mujoco
        position_noise_scale=0.01,
        velocity_noise_scale=0.1,
        min_speed=0.0,  # Finn et al. 2017, section 5.3
        max_speed=3.0,
        goal_range=3.0,  # rllab AntEnvRandGoal
        horizon=200,  # Finn et al. 2017, section 5.3: 4 s
    ),
    "gym": AntPhysics(
        name="gym",
        timestep=0.01,  # ant.xml, RK4
        frame_skip=5,  # Gymnasium Ant-v5
        contact=None,
        starts_bent=False,  # Ant-v5 does not read init_qpos
        measures="last_stage",  # Ant-v5: mj_rnePostConstraint right after mj_step
        observes_place=False,  # Ant-v5: 13 + 14 + 78 numbers
        velocity="root_displacement",  # Ant-v5
        control_cost=0.5,  # Ant-v5
        contact_cost=0.0005,  # Ant-v5
        survival_reward=1.0,  # Ant-v5 healthy_reward
        pays_last_survival=False,  # Ant-v5
        min_height=0.2,  # Ant-v5 healthy_z_range
        max_height=1.0,
        position_noise="uniform",  # Ant-v5 reset_model
        position_noise_scale=0.1,
        velocity_noise_scale=0.1,
        min_speed=0.0,
        max_speed=3.0,
        goal_range=3.0,
        horizon=200,  # PEARL, VariBAD, ProMP: 10 s
    ),
}


def half_cheetah_physics(name: str) -> HalfCheetahPhysics:
    """The half cheetah's constants called `name`; ValueError names the ones there are."""
    return _called(name, HALF_CHEETAH_PHYSICS)


def ant_physics(name: str) -> AntPhysics:
    """The ant's constants called `name`; ValueError names the ones there are."""
    return _called(name, ANT_PHYSICS)


P = TypeVar("P", bound=Physics)


def _called(name: str, table: dict[str, P]) -> P:
    if name not in table:
        raise ValueError(f"physics must be one of {sorted(table)}, got {name!r}")
    return table[name]
