"""The adapters also pass through test_every_environment.py."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from push import Place, ReachVectorEnv

import envs  # noqa: F401 - registers the ids
from envs.adapters import SingleFromVector, VectorFromSingle, tells_success
from envs.task_env import SimulationError, TaskEnv


class Countdown(TaskEnv):
    """Pays the task's number each step; truncates itself after `task` steps, before its horizon."""

    horizon = 10

    def __init__(self):
        self.observation_space = gymnasium.spaces.Discrete(100)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._next_task = self._task = 5

    def sample_tasks(self, num_tasks, rng):
        return rng.integers(1, 9, num_tasks).tolist()

    def set_task(self, task):
        self._next_task = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._task, self._time = self._next_task, 0
        return int(self.np_random.integers(50, 100)), {}

    def step(self, action):
        self._time += 1
        return self._time, self._task, False, self._time >= self._task, {"action": action, "note": "words"}


def test_any_single_environment_becomes_a_vector():
    vector = VectorFromSingle(Countdown, num_envs=2)
    vector.set_tasks([1, 3])
    starts, _ = vector.reset(seed=[4, 4])
    assert starts.tolist() == [Countdown().reset(seed=4)[0]] * 2
    observations, rewards, _, truncated, infos = vector.step(np.array([1, 0]))
    assert observations.tolist() == [1, 1] and rewards.tolist() == [1.0, 3.0]
    assert truncated.tolist() == [True, False]
    assert infos["action"].tolist() == [1.0, 0.0] and "note" not in infos
    with pytest.raises(ResetNeeded, match="sub-environment 0 has no episode under way"):
        vector.step(np.array([1, 0]))
    vector.reset(options={"reset_mask": np.array([True, False])})
    assert vector.step(np.array([1, 0]))[0].tolist() == [1, 2]


def test_copies_that_cannot_all_be_made_are_counted_and_closed():
    made, closed = [], []

    class Scarce(Countdown):
        def __init__(self):
            if len(made) == 3:
                raise OSError(24, "Too many open files")
            super().__init__()
            made.append(self)

        def close(self):
            closed.append(self)

    with pytest.raises(
        ValueError, match=r"^scarce is needed in 5 copies, .* after 3 the next fails with OSError"
    ) as error:
        VectorFromSingle(Scarce, num_envs=5, name="scarce")
    assert (
        "Too many open files: raise the limit that it meets (ulimit -n for open files), or lower --num-tasks and"
        in str(error.value)
    )
    assert closed == made


def test_an_error_names_the_copy():
    vector = VectorFromSingle(lambda: gymnasium.make("maml/HalfCheetahVel-gym-v0"), num_envs=3)
    vector.reset(seed=0)
    vector.envs[1].unwrapped._vector._qvel[0] = 1e30
    with pytest.raises(SimulationError, match=r"^sub-environment 1: MuJoCo warned of BADQVEL"):
        vector.step(np.zeros((3, 6)))


def test_whatever_a_copy_raises_names_it():
    class Thin(Countdown):
        """Over ice that breaks under the second task."""

        def reset(self, *, seed=None, options=None):
            if self._next_task == 2:
                raise KeyError("no ice")
            return super().reset(seed=seed, options=options)

        def step(self, action):
            if self._task == 3:
                raise ZeroDivisionError("the ice broke")
            return super().step(action)

    env = VectorFromSingle(Thin, 2)
    env.set_tasks([1, 3])
    env.reset(seed=[7, 8])
    with pytest.raises(SimulationError, match="sub-environment 1: ZeroDivisionError: the ice broke") as caught:
        env.step(np.array([0, 0]))
    assert caught.value.environment == 1 and isinstance(caught.value.__cause__, ZeroDivisionError)
    env.set_tasks([1, 2])
    with pytest.raises(SimulationError, match="sub-environment 1: KeyError: 'no ice'"):
        env.reset(seed=[7, 8])


def test_a_contract_cannot_be_left_half_filled():
    class NoTasks(TaskEnv):
        pass

    with pytest.raises(TypeError, match="abstract"):
        NoTasks()


def test_a_time_limit_of_gymnasium_is_kept():
    vector = VectorFromSingle(lambda: gymnasium.wrappers.TimeLimit(Countdown(), 2), num_envs=1)
    vector.reset(seed=0)
    assert [bool(vector.step(np.array([0]))[3]) for _ in range(2)] == [False, True]


def test_one_is_one():
    with pytest.raises(ValueError, match="SingleFromVector needs num_envs = 1, got 3"):
        SingleFromVector(gymnasium.make_vec("maml/Navigation2D-v0", num_envs=3))
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        VectorFromSingle(Countdown, num_envs=0)


def test_a_range_of_tasks_is_that_of_the_copies():
    class Ranged(Countdown):
        task_range = (1.0, 2.0)

        def sample_tasks(self, num_tasks, rng):
            return rng.uniform(*self.task_range, num_tasks).tolist()

    vector = VectorFromSingle(Ranged, num_envs=2)
    assert vector.task_range == (1.0, 2.0) and VectorFromSingle(Countdown, num_envs=1).task_range is None
    vector.task_range = (5.0, 6.0)
    assert all(5.0 <= task <= 6.0 for task in vector.sample_tasks(20, np.random.default_rng(0)))


def test_success_and_tasks_set_aside_pass_through():
    class Tested(Countdown):
        reports_success = True

        def sample_test_tasks(self, num_tasks, rng):
            return [task + 100 for task in self.sample_tasks(num_tasks, rng)]

        def step(self, action):
            *step, _ = super().step(action)
            return *step, {"success": np.bool_(self._time == 2)}

    vector = VectorFromSingle(Tested, num_envs=2)
    assert vector.reports_success and not VectorFromSingle(Countdown, num_envs=1).reports_success
    aside = vector.sample_test_tasks(3, np.random.default_rng(0))
    assert aside == [task + 100 for task in vector.sample_tasks(3, np.random.default_rng(0))]
    assert vector.has_test_tasks and not VectorFromSingle(Countdown, num_envs=1).has_test_tasks
    single = SingleFromVector(VectorFromSingle(Tested, num_envs=1))
    assert single.reports_success and single.sample_test_tasks(3, np.random.default_rng(0)) == aside
    vector.reset(seed=0)
    assert [vector.step(np.zeros(2, dtype=int))[4]["success"].tolist() for _ in range(2)] == [[0, 0], [1, 1]]
    plain = VectorFromSingle(Countdown, num_envs=1)
    tasks = [sample(9, np.random.default_rng(0)) for sample in (plain.sample_tasks, plain.sample_test_tasks)]
    assert tasks[0] == tasks[1]


@pytest.mark.parametrize(
    ("space", "outside"),
    [
        (gymnasium.spaces.MultiDiscrete([2, 3]), [[0, 3]]),
        (gymnasium.spaces.MultiDiscrete([2, 3], start=[5, 5]), [[5, 4]]),
        (gymnasium.spaces.MultiBinary(2), [[0, -1]]),
        (gymnasium.spaces.MultiDiscrete([2, 3]), [[0.0, 1.0]]),
    ],
)
def test_an_index_that_is_none_of_the_choices_is_refused(space, outside):
    class Choosy(Countdown):
        def __init__(self):
            super().__init__()
            self.action_space = space

        def step(self, action):
            assert space.contains(action)
            return super().step(0)

    vector = VectorFromSingle(Choosy, num_envs=1)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be whole numbers in Multi"):
        vector.step(np.array(outside))
    vector.step(space.sample()[None])


class Reporting(Countdown):
    """Tells success in the way of a subclass."""

    def step(self, action):
        *step, _ = super().step(action)
        return *step, self.told(is_over=bool(step[3]))


def reporting(told):
    return type("Reporting", (Reporting,), {"told": lambda self, is_over: told(is_over)})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (lambda is_over: {"success": is_over}, True),
        (lambda is_over: {"is_success": np.float32(is_over)}, True),  # Stable-Baselines3's and Gymnasium-Robotics' name
        (lambda is_over: {"is_success": True} if is_over else {}, True),  # with the last step alone
        (lambda is_over: {"is_success": False}, True),  # it may come with training
        (lambda is_over: {"succeeded": True, "is_success": "yes"}, False),
        (lambda is_over: {}, False),
        (lambda is_over: {}["gold"], False),
    ],
)
def test_success_is_found_in_infos(told, expected):
    assert tells_success(VectorFromSingle(reporting(told), num_envs=2)) == expected


def test_is_success_counts_as_success():
    def successes(told):
        vector = VectorFromSingle(reporting(told), num_envs=2)
        vector.set_tasks([1, 2])
        vector.reset(seed=0)
        alive = np.array([True, True])
        steps = []
        for _ in range(2):
            _, _, _, truncated, infos = vector.step(np.zeros(2, dtype=int), alive)
            steps.append(infos["success"].tolist())
            alive &= ~truncated
        return steps

    expected = [[1.0, 0.0], [0.0, 1.0]]
    assert successes(lambda is_over: {"is_success": is_over}) == expected
    assert successes(lambda is_over: {"is_success": True} if is_over else {}) == expected
    assert successes(lambda is_over: {"is_success": not is_over, "success": is_over}) == expected  # its own name first


def test_a_batch_may_say_is_success_as_well():
    class Arriving(ReachVectorEnv):
        def _step_rows(self, actions, alive):
            *step, infos = super()._step_rows(actions, alive)
            return *step, {"is_success": infos["success"]}

    one, other = Arriving(2), ReachVectorEnv(2)
    for env in (one, other):
        env.set_tasks([Place(0.0), Place(5.0)])
        env.reset(seed=[3, 4])
    action = np.zeros((2, 1), np.float32)
    np.testing.assert_array_equal(one.step(action)[4]["success"], other.step(action)[4]["success"])
