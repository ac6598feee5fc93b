import itertools

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import envs  # noqa: F401 - registers the ids
from envs.robots.half_cheetah import half_cheetah_model
from envs.robots.mujoco_batch import with_timers
from envs.task_env import SimulationError
from envs.tasks import Goal, TargetVelocity

ROBOTS = [f"{body}Vel-{physics}" for body in ("HalfCheetah", "Ant") for physics in ("rllab", "gym")]
every_robot = pytest.mark.parametrize("robot", ROBOTS)


def make_vec(robot: str = "HalfCheetahVel-rllab", num_envs: int = 5, **settings):
    return gymnasium.make_vec(f"maml/{robot}-v0", num_envs=num_envs, **settings)


def diverge(env, row: int) -> None:
    env._qvel[row] = 1e30  # [m/s, rad/s]; MuJoCo gives up at 1e10


@every_robot
def test_divergence_names_the_simulation(robot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make_vec(robot)
    actions = np.zeros(env.action_space.shape)
    env.reset(seed=0)
    env.step(actions)
    diverge(env, 3)
    with pytest.raises(SimulationError, match="sub-environment 3: MuJoCo warned of BADQVEL") as caught:
        env.step(actions)
    assert caught.value.environment == 3
    assert not list(tmp_path.iterdir())  # no MUJOCO_LOG.TXT
    with pytest.raises(ResetNeeded, match="sub-environment 0 has no episode under way"):
        env.step(actions)
    observations, _ = env.reset(seed=0)
    fresh = make_vec(robot)
    np.testing.assert_array_equal(observations, fresh.reset(seed=0)[0])
    np.testing.assert_array_equal(env.step(actions)[0], fresh.step(actions)[0])


def test_mujoco_times_its_steps_only_where_asked_to():
    make_vec()
    model = half_cheetah_model()

    def seconds_noted() -> float:
        data = mujoco.MjData(model)
        mujoco.mj_step(model, data)
        return data.timer[mujoco.mjtTimer.mjTIMER_STEP].duration

    assert seconds_noted() == 0.0
    with with_timers():
        assert seconds_noted() > 0.0
    assert seconds_noted() == 0.0


def test_a_clock_of_the_users_stays():
    ticks = itertools.count()
    mujoco.set_mjcb_time(lambda: float(next(ticks)))
    try:
        make_vec()
        mujoco.mj_step(half_cheetah_model(), mujoco.MjData(half_cheetah_model()))
        assert next(ticks) > 0
    finally:
        mujoco.set_mjcb_time(None)  # MuJoCo's own again
        make_vec()


def test_a_diverged_simulation_left_out_does_not_stop_the_others():
    env = make_vec()
    actions = np.zeros(env.action_space.shape)
    env.reset(seed=0)
    diverge(env, 3)
    with pytest.raises(SimulationError):
        env.step(actions)
    alive = np.arange(5) != 3
    env.reset(seed=0, options={"reset_mask": alive})
    env.step(actions, alive=alive)


@every_robot
def test_threads_change_nothing(robot):
    one, two = make_vec(robot, num_threads=1), make_vec(robot, num_threads=2)
    actions = np.random.default_rng(0).uniform(-1, 1, (10, *one.action_space.shape))
    one.reset(seed=0)
    two.reset(seed=0)
    for action in actions:
        for a, b in zip(one.step(action)[:2], two.step(action)[:2], strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        make_vec(num_threads=0)


@pytest.fixture(scope="module")
def drawing() -> None:
    try:
        mujoco.Renderer(half_cheetah_model(), 32, 32).close()
    except Exception as error:
        pytest.skip(f"no backend draws here: {error!r}")


@pytest.mark.usefixtures("drawing")
@every_robot
def test_pictures_are_drawn(robot):
    env = gymnasium.make(f"maml/{robot}-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.dtype == np.uint8 and first.shape == (480, 480, 3) and first.std() > 10
    for _ in range(20):
        env.step(np.full(env.action_space.shape, 0.2, dtype=np.float32))
    assert (env.render() != first).any()
    env.close()

    vector = make_vec(robot, num_envs=2, render_mode="rgb_array")
    vector.reset(seed=0)
    pictures = vector.render()
    np.testing.assert_array_equal(pictures[0], first)
    assert len(pictures) == 2 and (pictures[0] != pictures[1]).any()
    vector.close()
    assert make_vec(robot).render() is None


@pytest.mark.usefixtures("drawing")
@every_robot
def test_drawing_does_not_disturb_the_simulation(robot):
    drawn, plain = make_vec(robot, render_mode="rgb_array"), make_vec(robot)
    action = np.full(drawn.action_space.shape, 0.5)
    for env in (drawn, plain):
        env.reset(seed=0)
        env.step(action)
    drawn.render_one(1)
    np.testing.assert_array_equal(drawn.step(action)[0], plain.step(action)[0])
    drawn.close()


def test_mujoco_is_the_version_the_batch_needs():
    assert tuple(int(part) for part in mujoco.__version__.split(".")[:2]) >= (3, 17)


@pytest.mark.usefixtures("drawing")
def test_the_post_moves_at_the_target_speed_and_pictures_have_the_size_asked_for():
    env = make_vec(num_envs=1, render_mode="rgb_array")
    env.picture_size = (60, 80)
    places = []
    for speed in (-0.5, 0.0, 0.5):
        env.set_tasks([TargetVelocity(speed)])
        env.reset(seed=[0])
        for _ in range(50):
            env.step(np.zeros((1, 6), dtype=np.float32))
        red, green, _ = np.moveaxis(env.render_one(0).astype(int), -1, 0)
        assert red.shape == (60, 80)
        places.append(np.argwhere(red - green > 100)[:, 1].mean())  # columns of the post
    # half a second at 0.5 m/s moves it by 0.25 m, to either side
    assert places[0] < places[1] - 3 and places[2] > places[1] + 3
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=1.5)
    env.close()


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize(("robot", "tasks"), [("AntVel", TargetVelocity), ("AntGoal", lambda x: Goal(x, 1.0))])
def test_the_ants_post_shows_the_task(robot, tasks):
    env = make_vec(f"{robot}-rllab", num_envs=1, render_mode="rgb_array")
    env.picture_size = (120, 160)
    places = []
    for number in (-1.0, 1.0):
        env.set_tasks([tasks(number)])
        env.reset(seed=[0])
        for _ in range(50):  # one second: a speed in m/s is a place in m
            env.step(np.zeros((1, 8), dtype=np.float32))
        red, green, _ = np.moveaxis(env.render_one(0).astype(int), -1, 0)
        places.append(np.argwhere(red - green > 100)[:, 1].mean())  # columns of the post
    assert places[1] > places[0] + 5
    assert env.picture_note.startswith("the red post")


def test_only_an_ant_that_sees_its_place_has_position_columns():
    # in rllab physics the first two numbers observed are x and y, in gym physics they are left out
    env = make_vec("AntGoal-rllab", num_envs=1)
    assert env.position_columns == (0, 1)
    np.testing.assert_array_equal(env.reset(seed=0)[0][0, :2], env._qpos[0, :2])
    assert make_vec("AntGoal-gym").position_columns is None
