import gymnasium
import mujoco
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from envs.robots.half_cheetah import XML, half_cheetah_model
from envs.tasks import Direction, TargetVelocity

NUM_STEPS = 200


def make_vec(task: str, physics: str, num_envs: int = 1):
    return gymnasium.make_vec(f"maml/HalfCheetah{task}-{physics}-v0", num_envs=num_envs)


def actions(dtype, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(4).uniform(low, high, (NUM_STEPS, 6)).astype(dtype)


def test_the_model_loads_without_a_word_and_is_the_files(capfd):
    model = half_cheetah_model.__wrapped__()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    expected = mujoco.MjModel.from_xml_path(str(XML))
    assert model.body_mass.sum() == pytest.approx(14.0)
    for name in dir(expected):
        if not name.startswith("_") and isinstance(getattr(expected, name), np.ndarray):
            np.testing.assert_array_equal(getattr(model, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gym_physics_is_half_cheetah_v5_bit_for_bit(dtype):
    # with the same control cost, v5 pays x_velocity - cost: our reward for running forward
    ours = make_vec("Dir", "gym")
    theirs = gymnasium.make("HalfCheetah-v5", ctrl_cost_weight=0.05)
    ours.set_tasks([Direction(1)])
    for episode_seed in (0, 123456789):
        observations, _ = ours.reset(seed=[episode_seed])
        expected, _ = theirs.reset(seed=episode_seed)
        np.testing.assert_array_equal(observations[0], expected)
        for action in actions(dtype):
            observations, rewards, _, _, infos = ours.step(action[None])
            expected, reward, _, _, info = theirs.step(action)
            np.testing.assert_array_equal(observations[0], expected)
            assert infos["x_velocity"][0] == info["x_velocity"]
            assert rewards[0] == reward


def test_rllab_physics_is_a_plain_loop_over_mujoco():
    env = make_vec("Vel", "rllab")
    env.set_tasks([TargetVelocity(0.7)])
    observations, _ = env.reset(seed=[9])

    model = mujoco.MjModel.from_xml_path(str(XML))
    data = mujoco.MjData(model)
    rng = np.random.Generator(np.random.PCG64(9))
    data.qpos[:] += rng.standard_normal(9) * 0.01
    data.qvel[:] += rng.standard_normal(9) * 0.1

    def check(observation):
        mujoco.mj_forward(model, scratch)
        mujoco.mj_subtreeVel(model, scratch)
        np.testing.assert_array_equal(observation[:17], np.concatenate([scratch.qpos[1:], scratch.qvel]))
        np.testing.assert_allclose(observation[17:], scratch.subtree_com[1], rtol=0, atol=1e-12)
        return scratch.subtree_linvel[1, 0]

    scratch = mujoco.MjData(model)
    scratch.qpos[:], scratch.qvel[:] = data.qpos, data.qvel
    check(observations[0])
    for action in actions(np.float64, -1.5, 1.5):
        observations, rewards, terminated, _, infos = env.step(action[None])
        clipped = np.clip(action, -1.0, 1.0)
        data.ctrl[:] = clipped
        mujoco.mj_step(model, data)
        scratch.qpos[:], scratch.qvel[:] = data.qpos, data.qvel
        velocity = check(observations[0])
        assert infos["x_velocity"][0] == pytest.approx(velocity, rel=0, abs=1e-12)
        reward = -abs(velocity - 0.7) - 0.05 * np.sum(clipped**2)
        assert rewards[0] == pytest.approx(reward, rel=0, abs=1e-12)
        assert not terminated[0]


@pytest.mark.parametrize("physics", ["rllab", "gym"])
def test_going_backward_pays_the_opposite_speed(physics):
    env = make_vec("Dir", physics, num_envs=2)
    env.set_tasks([Direction(1), Direction(-1)])
    env.reset(seed=[3, 3])
    for action in actions(np.float64)[:5]:
        _, rewards, _, _, infos = env.step(np.stack([action, action]))
        assert infos["x_velocity"][0] == infos["x_velocity"][1]
        np.testing.assert_array_equal(rewards, [1, -1] * infos["x_velocity"] - infos["control_cost"])


def test_tasks_are_drawn_as_in_the_paper():
    # U(0, 2): mean 1, standard error 2 / sqrt(12 * 4000) = 0.009
    speeds = [task.speed for task in make_vec("Vel", "rllab").sample_tasks(4000, np.random.default_rng(0))]
    assert min(speeds) >= 0.0 and max(speeds) <= 2.0 and np.mean(speeds) == pytest.approx(1.0, abs=0.04)
    # a fair coin: mean 0, standard error 1 / sqrt(4000) = 0.016
    signs = [task.sign for task in make_vec("Dir", "rllab").sample_tasks(4000, np.random.default_rng(0))]
    assert set(signs) == {-1, 1} and np.mean(signs) == pytest.approx(0.0, abs=0.07)


@pytest.mark.parametrize(("physics", "spread"), [("rllab", 0.01), ("gym", 0.1 / np.sqrt(3))])
def test_reset_noise_has_the_stated_spread(physics, spread):
    # a sample of 1000 x 8: relative standard error of a standard deviation below 1 / sqrt(2 * 8000) = 0.008
    observations, _ = make_vec("Vel", physics, num_envs=1000).reset(seed=0)
    assert observations[:, :8].std() == pytest.approx(spread, rel=0.04)
    assert observations[:, 8:17].std() == pytest.approx(0.1, rel=0.04)


def test_a_direction_is_one_of_two():
    with pytest.raises(ValueError, match=r"sign must be \+1 \(forward\) or -1 \(backward\), got 0"):
        Direction(0)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_unknown_physics(make):
    with pytest.raises(ValueError, match=r"physics must be one of \['gym', 'rllab'\], got 'mars'"):
        make("maml/HalfCheetahVel-rllab-v0", physics="mars")


def test_speeds_come_from_the_range_that_is_set():
    env = make_vec("Vel", "rllab")
    assert env.task_range == (0.0, 2.0)
    draws = [task.speed for task in env.sample_tasks(200, np.random.default_rng(0))]
    env.task_range = (2.0, 4.0)
    far = [task.speed for task in env.sample_tasks(200, np.random.default_rng(0))]
    np.testing.assert_allclose(far, np.add(draws, 2.0))  # the same draws from a range as wide
    assert make_vec("Vel", "rllab").task_range == (0.0, 2.0)  # of this environment alone
    assert make_vec("Dir", "rllab").task_range is None


def test_tasks_in_words():
    tasks = [TargetVelocity(1.234), Direction(1), Direction(-1)]
    assert list(map(str, tasks)) == ["run at 1.23 m/s", "run forward", "run backward"]
