import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import envs  # noqa: F401 - registers the id
from envs.tasks import Goal
from envs.toys.navigation import is_at_goal, move, navigation_reward


def make_vec(num_envs: int, **settings):
    return gymnasium.make_vec("maml/Navigation2D-v0", num_envs=num_envs, **settings)


def test_a_move_is_clipped_by_component():
    moved = move(np.array([[0.2, 0.0]]), np.array([[0.05, -7.0]]))
    np.testing.assert_array_equal(moved, [[0.25, -0.1]])


def test_the_reward_is_minus_the_distance():
    # 3-4-5: not squared, which would be -0.25
    reward = navigation_reward(np.array([[0.1, 0.1]]), np.array([[0.4, 0.5]]))
    assert reward[0] == pytest.approx(-0.5)


@pytest.mark.parametrize(("x", "y", "expected"), [(0.009, -0.009, True), (0.011, 0.0, False), (0.0, -0.011, False)])
def test_the_goal_is_a_square(x, y, expected):
    assert is_at_goal(np.array([[x, y]]), np.zeros((1, 2)))[0] == expected


def test_walking_to_the_goal_ends_the_episode():
    # 0.25 is three steps of at most 0.1 away, -0.1 one step
    env = make_vec(2)
    goals = np.array([[0.25, 0.0], [0.0, -0.1]])
    env.set_tasks([Goal(*goal) for goal in goals.tolist()])
    positions, _ = env.reset(seed=0)
    np.testing.assert_array_equal(positions, np.zeros((2, 2)))
    alive = np.ones(2, dtype=bool)
    endings = []
    for _ in range(3):
        positions, rewards, terminated, truncated, _ = env.step((goals - positions) * alive[:, None], alive=alive)
        assert not truncated.any()
        endings.append(terminated.tolist())
        alive &= ~terminated
    assert endings == [[False, True], [False, False], [True, False]]
    assert rewards[1] == 0.0 and rewards[0] == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ResetNeeded, match="sub-environment 0 has no episode under way"):
        env.step(np.zeros((2, 2)))


def test_goals_fill_the_square():
    # U(-0.5, 0.5): mean 0, standard error 1 / sqrt(12 * 4000) = 0.005
    goals = np.array([(task.x, task.y) for task in make_vec(1).sample_tasks(4000, np.random.default_rng(0))])
    assert np.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(goals.std(axis=0), 1 / np.sqrt(12), rtol=0.03)


def test_pictures_show_point_path_and_goal():
    env = gymnasium.make("maml/Navigation2D-v0", render_mode="rgb_array")
    env.unwrapped.set_task(Goal(-0.4, 0.3))
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.array([0.1, 0.05], dtype=np.float32))
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (240, 240, 3)
    # x = 0.4 m lies at column (0.4 + 1) * 120 = 168, y = 0.2 m at row 239 - 144 = 95
    assert picture[95, 168].tolist() == [200, 40, 40]
    assert picture[83, 72].tolist() == [30, 150, 60]
    assert picture[107, 144].tolist() == [150, 150, 150]
    assert gymnasium.make("maml/Navigation2D-v0").unwrapped.render() is None


def test_goals_come_from_the_range_that_is_set():
    env = make_vec(1)
    env.task_range = (2.0, 3.0)
    goals = env.sample_tasks(100, np.random.default_rng(0))
    assert all(2.0 <= c <= 3.0 for goal in goals for c in (goal.x, goal.y)) and make_vec(1).task_range == (-0.5, 0.5)
    assert str(Goal(0.5, -0.25)) == "go to (0.50, -0.25) m"


def test_the_position_is_where_it_is_said_to_be():
    env = make_vec(1)
    env.reset(seed=0)
    observations, *_ = env.step(np.array([[0.1, -0.05]], dtype=np.float32))
    np.testing.assert_allclose(observations[0, env.position_columns], [0.1, -0.05])
