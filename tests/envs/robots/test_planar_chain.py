import mujoco
import numpy as np
import pytest

from envs.robots.half_cheetah import half_cheetah_model
from envs.robots.planar_chain import PlanarChain


def test_center_of_mass_is_mujocos():
    model = half_cheetah_model()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    qpos, qvel = rng.uniform(-2.0, 2.0, (50, model.nq)), rng.uniform(-5.0, 5.0, (50, model.nv))
    centers, x_velocities = PlanarChain(model).center_of_mass(qpos, qvel)
    for row in range(len(qpos)):
        data.qpos[:], data.qvel[:] = qpos[row], qvel[row]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        np.testing.assert_allclose(centers[row], data.subtree_com[1], rtol=0, atol=1e-13)
        np.testing.assert_allclose(x_velocities[row], data.subtree_linvel[1, 0], rtol=0, atol=1e-13)


def test_rows_do_not_depend_on_their_number():
    chain = PlanarChain(half_cheetah_model())
    qpos, qvel = np.random.default_rng(0).uniform(-9.0, 9.0, (2, 400, 9))
    centers, x_velocities = chain.center_of_mass(qpos, qvel)
    for rows in (slice(0, 1), slice(3, 5), slice(390, 400)):
        some, some_velocities = chain.center_of_mass(qpos[rows], qvel[rows])
        np.testing.assert_array_equal(some, centers[rows])
        np.testing.assert_array_equal(some_velocities, x_velocities[rows])


def test_another_build_is_refused():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(ValueError, match="PlanarChain needs joints x, z, then one hinge"):
        PlanarChain(model)
