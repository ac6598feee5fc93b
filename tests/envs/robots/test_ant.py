import gymnasium
import mujoco
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from envs.robots.ant import XML, ant_model
from envs.robots.physics import ANT_PHYSICS
from envs.tasks import Direction, Goal, TargetVelocity

NUM_STEPS = 150
TASKS = {"Vel": TargetVelocity(0.7), "Dir": Direction(-1), "Goal": Goal(1.5, -0.5)}
every_task = pytest.mark.parametrize("task", TASKS)
both_physics = pytest.mark.parametrize("physics", ["rllab", "gym"])


def make_vec(task: str, physics: str, num_envs: int = 1):
    return gymnasium.make_vec(f"maml/Ant{task}-{physics}-v0", num_envs=num_envs)


def actions(dtype, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(4).uniform(-high, high, (NUM_STEPS, 8)).astype(dtype)


def numbers_of(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    names = [name for name in dir(model) if not name.startswith("_")]
    return {name: getattr(model, name) for name in names if isinstance(getattr(model, name), np.ndarray)}


def progress(task: str, x_velocity, position):
    """What each kind of task pays before survival and costs."""
    return {
        "Vel": -abs(x_velocity - 0.7) + 1.0,
        "Dir": -x_velocity,
        "Goal": 4.0 - abs(position[0] - 1.5) - abs(position[1] + 0.5),
    }[task]


# --- gym: Ant-v5 -----------------------------------------------------------------------------------------------


@pytest.fixture
def ant_v5():
    return gymnasium.make("Ant-v5").unwrapped


def test_gym_physics_has_the_files_model():
    expected = numbers_of(mujoco.MjModel.from_xml_path(str(XML)))
    found = numbers_of(ant_model(ANT_PHYSICS["gym"]))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gym_physics_is_ant_v5_bit_for_bit(dtype, ant_v5):
    # forward, the direction's reward is v5's own
    ours = make_vec("Dir", "gym")
    ours.set_tasks([Direction(1)])
    ends = 0
    for episode_seed in (0, 1, 7, 123456789):
        observations, _ = ours.reset(seed=[episode_seed])
        expected, _ = ant_v5.reset(seed=episode_seed)
        np.testing.assert_array_equal(observations[0], expected)
        forces_felt = 0
        for action in actions(dtype):
            observations, rewards, terminated, _, infos = ours.step(action[None])
            expected, reward, ended, _, info = ant_v5.step(action)
            np.testing.assert_array_equal(observations[0], expected)
            np.testing.assert_array_equal(observations[0, 27:], np.clip(ant_v5.data.cfrc_ext[1:], -1, 1).ravel())
            assert infos["x_velocity"][0] == info["x_velocity"]
            assert infos["contact_cost"][0] == -info["reward_contact"]
            assert infos["control_cost"][0] == -info["reward_ctrl"]
            assert infos["survival_reward"][0] == info["reward_survive"]
            assert (rewards[0], terminated[0]) == (reward, ended)
            forces_felt += observations[0, 27:].any()
            if ended:
                ends += 1
                break
        assert forces_felt > 5
    assert ends  # the last step's survival was compared, too


@every_task
def test_gym_tasks_pay_progress_and_survival_less_costs(task):
    env = make_vec(task, "gym")
    env.set_tasks([TASKS[task]])
    env.reset(seed=[2])
    for action in actions(np.float64)[:20]:
        _, rewards, _, _, infos = env.step(action[None])
        paid = progress(task, infos["x_velocity"][0], env._qpos[0, :2]) + infos["survival_reward"][0]
        assert rewards[0] == pytest.approx(paid - infos["control_cost"][0] - infos["contact_cost"][0], abs=1e-12)
        assert infos["control_cost"][0] == pytest.approx(0.5 * np.sum(action**2))


# --- rllab -----------------------------------------------------------------------------------------------------


def test_rllab_physics_changes_only_the_step_and_the_contacts():
    stock = mujoco.MjModel.from_xml_path(str(XML))
    expected, found = numbers_of(stock), numbers_of(ant_model(ANT_PHYSICS["rllab"]))
    of_sensors = {"sensordata", "names", "names_map"}
    differing = {
        name
        for name in expected
        if not name.startswith(("sensor_", "site_", "name_"))
        and name not in of_sensors
        and not np.array_equal(expected[name], found[name])
    }
    assert differing <= {"geom_solimp", "body_sitenum", "body_siteadr"}
    assert ant_model(ANT_PHYSICS["rllab"]).opt.timestep == 0.02 and stock.opt.timestep == 0.01
    np.testing.assert_array_equal(found["geom_solimp"][:, :3], np.tile([0.8, 0.8, 0.01], (stock.ngeom, 1)))
    np.testing.assert_array_equal(found["geom_solref"], np.tile([0.02, 1.0], (stock.ngeom, 1)))


def rllab_model_without_sensors() -> mujoco.MjModel:
    """The file's model with three numbers changed."""
    model = mujoco.MjModel.from_xml_path(str(XML))
    model.opt.timestep = 0.02
    model.geom_solref[:] = [0.02, 1.0]
    model.geom_solimp[:, :3] = [0.8, 0.8, 0.01]
    return model


@every_task
def test_rllab_physics_is_a_plain_loop_over_mujoco(task):
    env = make_vec(task, "rllab")
    env.set_tasks([TASKS[task]])
    observations, _ = env.reset(seed=[9])

    model = rllab_model_without_sensors()
    data = mujoco.MjData(model)
    rng = np.random.Generator(np.random.PCG64(9))
    start = [0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1]  # m, quaternion, rad
    data.qpos[:] = start + rng.standard_normal(15) * 0.01
    data.qvel[:] = rng.standard_normal(14) * 0.1

    def expected_observation():
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        mujoco.mj_subtreeVel(model, data)
        forces = np.clip(data.cfrc_ext, -1, 1).ravel()
        return np.concatenate([data.qpos, data.qvel, forces, data.xmat[1], data.subtree_com[1]])

    np.testing.assert_array_equal(observations[0], expected_observation())
    assert observations.shape == (1, 125)
    forces_felt = 0
    for action in actions(np.float64, 1.5):
        observations, rewards, terminated, _, infos = env.step(action[None])
        clipped = np.clip(action, -1.0, 1.0)
        data.ctrl[:] = clipped
        mujoco.mj_step(model, data)
        np.testing.assert_array_equal(observations[0], expected_observation())  # contact forces bit for bit
        velocity = data.subtree_linvel[1, 0]
        assert infos["x_velocity"][0] == velocity
        forces = np.clip(data.cfrc_ext, -1, 1)
        forces_felt += forces[1:].any()
        costs = 0.005 * np.sum(clipped**2) + 0.0005 * np.sum(forces**2)
        paid = progress(task, velocity, data.subtree_com[1]) + 0.05 - costs
        assert rewards[0] == pytest.approx(paid, rel=0, abs=1e-12)
        assert terminated[0] == (not 0.2 <= data.qpos[2] <= 1.0)
        if terminated[0]:
            break
    assert forces_felt > 10


def test_rllab_pays_survival_for_the_last_step_too():
    for physics, paid in (("rllab", 0.05), ("gym", 0.0)):
        env = make_vec("Dir", physics)
        env.reset(seed=[0])
        env._qpos[0, 2] = 1.5
        _, _, terminated, _, infos = env.step(np.zeros((1, 8)))
        assert terminated[0] and infos["survival_reward"][0] == paid


# --- both ------------------------------------------------------------------------------------------------------


@both_physics
def test_a_standing_ant_feels_the_floor(physics):
    env = make_vec("Vel", physics)
    env.reset(seed=0)
    for _ in range(60):
        _, _, terminated, _, infos = env.step(np.zeros((1, 8)))
        assert not terminated[0]
    assert infos["contact_cost"][0] > 0
    # at rest the floor carries the weight: the forces' sum along z, unclipped
    weight = -env.model.opt.gravity[2] * env.model.body_subtreemass[1]
    for _ in range(60):
        env.step(np.zeros((1, 8)))
    assert env._forces[0, :, 5].sum() == pytest.approx(weight, rel=0.05)


@both_physics
def test_forces_of_rows_left_out_stay(physics):
    env, twin = make_vec("Vel", physics, 3), make_vec("Vel", physics, 3)
    for each in (env, twin):
        each.reset(seed=0)
        for action in actions(np.float64)[:12]:
            each.step(np.tile(action, (3, 1)))
    alive = np.array([True, False, True])
    before = env._observe()
    env.step(np.ones((3, 8)), alive=alive)
    np.testing.assert_array_equal(env._observe()[1], before[1])
    assert (env._observe()[0] != before[0]).any()


@both_physics
def test_the_world_ends_outside_the_heights(physics):
    env = make_vec("Dir", physics, num_envs=6)
    env.reset(seed=0)
    env._qpos[:, 2] = [0.2, 0.2 - 1e-9, 1.0, 1.0 + 1e-9, 0.5, np.nan]
    np.testing.assert_array_equal(env.is_terminated(), [False, True, False, True, False, True])


@both_physics
def test_going_backward_pays_the_opposite_speed(physics):
    env = make_vec("Dir", physics, num_envs=2)
    env.set_tasks([Direction(1), Direction(-1)])
    env.reset(seed=[3, 3])
    for action in actions(np.float64)[:5]:
        _, rewards, _, _, infos = env.step(np.stack([action, action]))
        assert rewards[0] - rewards[1] == pytest.approx(2 * infos["x_velocity"][0], abs=1e-12)


@both_physics
def test_tasks_are_drawn_as_in_the_paper(physics):
    # U(0, 3): mean 1.5, standard error 3 / sqrt(12 * 4000) = 0.014
    speeds = [task.speed for task in make_vec("Vel", physics).sample_tasks(4000, np.random.default_rng(0))]
    assert min(speeds) >= 0.0 and max(speeds) <= 3.0 and np.mean(speeds) == pytest.approx(1.5, abs=0.06)
    # a fair coin: mean 0, standard error 1 / sqrt(4000) = 0.016
    signs = [task.sign for task in make_vec("Dir", physics).sample_tasks(4000, np.random.default_rng(0))]
    assert set(signs) == {-1, 1} and np.mean(signs) == pytest.approx(0.0, abs=0.07)
    # U(-3, 3)^2: mean 0, standard error 6 / sqrt(12 * 4000) = 0.027; standard deviation sqrt(3)
    goals = make_vec("Goal", physics).sample_tasks(4000, np.random.default_rng(0))
    places = np.array([(goal.x, goal.y) for goal in goals])
    assert np.abs(places).max() <= 3.0 and np.abs(places.mean(axis=0)).max() < 0.11
    assert places.std() == pytest.approx(np.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("physics", "spread"), [("rllab", 0.01), ("gym", 0.1 / np.sqrt(3))])
def test_reset_noise_has_the_stated_spread(physics, spread):
    # a sample of 1000 x 8: relative standard error of a standard deviation below 1 / sqrt(2 * 8000) = 0.008
    env = make_vec("Vel", physics, num_envs=1000)
    env.reset(seed=0)
    assert (env._qpos[:, 7:] - env.initial_qpos[7:]).std() == pytest.approx(spread, rel=0.04)
    assert env._qvel.std() == pytest.approx(0.1, rel=0.04)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_unknown_physics(make):
    with pytest.raises(ValueError, match=r"physics must be one of \['gym', 'rllab'\], got 'mars'"):
        make("maml/AntGoal-rllab-v0", physics="mars")
