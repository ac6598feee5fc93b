"""The numbers of the two families of physics in the meta-RL literature, each with unit and source.

"rllab" is what the experiments of Finn et al. 2017 ran on (github.com/cbfinn/maml_rl, rllab/envs/mujoco);
"gym" is what came with OpenAI Gym and is now Gymnasium's HalfCheetah-v5, with the episode length and costs that
later work (ProMP, PEARL, VariBAD) uses. Their returns cannot be compared: an episode lasts 2 s here, 10 s there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Physics:
    """How a body is simulated, observed, paid and reset."""

    name: str
    timestep: float  # of the simulation, [s]
    frame_skip: int  # simulation steps per action
    observes_center_of_mass: bool  # append the whole robot's centre of mass (x, y, z) [m] to qpos[1:], qvel
    velocity: Literal["center_of_mass", "root_displacement"]  # what the reward calls forward velocity, [m/s]:
    #   center_of_mass: the whole robot's, at the instant after the step; root_displacement: of qpos[0], over the step
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


HALF_CHEETAH_PHYSICS = {
    "rllab": Physics(
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
    "gym": Physics(
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


def half_cheetah_physics(name: str) -> Physics:
    """The constants called `name`; ValueError names the ones there are."""
    if name not in HALF_CHEETAH_PHYSICS:
        raise ValueError(f"physics must be one of {sorted(HALF_CHEETAH_PHYSICS)}, got {name!r}")
    return HALF_CHEETAH_PHYSICS[name]
