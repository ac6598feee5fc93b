"""A sound environment passes; one with a fault is told which, and how to mend it."""

import random

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Sequence, Tuple

from envs.checking.check import BEHAVIOUR, CONTRACT, DEFINITIONS, FORM, REPEATABLE, SCALE, check_world
from envs.plug_in import World, find_world
from envs.task_env import TaskVectorEnv


class Valley(gymnasium.Env):
    """Sound in every respect: a ball in a valley whose lowest point is the task."""

    observation_space = Box(-5.0, 5.0, (1,), np.float32)
    action_space = Box(-0.2, 0.2, (1,), np.float32)
    horizon = 20
    next_valley = 0.0

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1.0, 1.0, num_tasks).tolist()

    def set_task(self, task):
        self.next_valley = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.valley, self.ball, self.time = self.next_valley, self.np_random.normal(0.0, 0.1, 1), 0
        return self.seen(), {}

    def step(self, action):
        self.ball, self.time = np.clip(self.ball + action, -5.0, 5.0), self.time + 1
        return self.seen(), self.reward(), False, False, {}

    def seen(self):
        return self.ball.astype(np.float32)

    def reward(self):
        return -abs(float(self.ball[0]) - self.valley)


def a_valley(**changes):
    """A class like Valley but for some attributes."""
    return type("Changed", (Valley,), changes)


def drawing(render):
    """A valley that says it draws."""

    def init(self, render_mode=None):
        self.render_mode = render_mode

    return {"metadata": {"render_modes": ["rgb_array"], "render_fps": 10}, "__init__": init, "render": render}


def check(make, horizon=None, thorough=True, is_batch=False):
    return check_world(World("valley", make, is_batch, False), horizon, thorough)


def without(name):
    """A valley that has not got a method."""
    methods = {key: value for key, value in vars(Valley).items() if key not in (name, "__dict__", "__weakref__")}
    return type("Without", (gymnasium.Env,), {**methods, "reset": reset_without_super})


def reset_without_super(self, *, seed=None, options=None):
    return np.zeros(1, np.float32), {}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"horizon": None, "step": lambda self, action: (*Valley.step(self, action)[:3], self.time >= 7, {})},
        {"action_space": Discrete(2), "step": lambda self, action: Valley.step(self, np.array([0.1 * action]))},
        {
            "action_space": Box(-1.0, 1.0, (2, 3), np.float32),
            "step": lambda self, action: Valley.step(self, action[1, :1]),
        },
        {"observation_space": Box(-5.0, 5.0, (1,), np.float64), "seen": lambda self: self.ball.copy()},
        {
            "observation_space": Dict(place=Box(-5.0, 5.0, (1,), np.float32), parity=Tuple([Discrete(2)])),
            "seen": lambda self: {"place": Valley.seen(self), "parity": (self.time % 2,)},
        },
        {"reward": lambda self: np.float32(Valley.reward(self))},
        drawing(lambda self: np.zeros((4, 6), np.uint8)),
        {"observation_space": Box(0, 255, (1,), np.uint8), "seen": lambda self: np.uint8([255])},  # scaled to 1
        {"seen": lambda self: np.zeros(1, np.float32)},  # of no size
        {"reward": lambda self: [0.0, *range(20)][self.time] + self.valley},  # knows of no time past its horizon
    ],
)
def test_a_sound_environment_has_every_property(changes):
    horizon = None if changes.get("horizon", 20) else 20  # an end of its own makes up for a number it does not state
    assert check(a_valley(**changes), horizon) == []


@pytest.mark.parametrize(
    "name", ["navigation:Navigation2DEnv", "bandit:BernoulliBanditEnv", "tabular_mdp:TabularMDPEnv"]
)
def test_single_environments_of_the_project_have_every_property(name):
    findings = check_world(find_world(f"envs.toys.{name}"), None, thorough=True)
    # Gymnasium's checker wants two steps of every episode, and a bandit has one
    assert [finding.name for finding in findings] == (["gymnasium_agrees"] if "bandit" in name else [])


class Tied:
    """A task that cannot leave its process."""

    def __init__(self, place):
        self.place = place

    def __eq__(self, other):
        return self.place == other.place

    def __hash__(self):
        return hash(self.place)

    def __reduce__(self):
        raise TypeError("not to be pickled")


def reset_in_place(self, *, seed=None, options=None):
    gymnasium.Env.reset(self, seed=seed)
    self.valley, self.time = self.next_valley, 0
    self.ball[:] = self.np_random.normal(0.0, 0.1, 1)
    return self.seen(), {}


def step_in_place(self, action):
    self.ball += action
    return self.seen(), self.reward(), False, False, {}


def step_with_momentum(self, action):
    self.speed = getattr(self, "speed", 0.0) + 0.01 * action
    return Valley.step(self, self.speed)


def set_within(self, task):
    task["place"][0] *= 0.5
    self.next_valley = task["place"][0]


def sample_from_nothing(self, num_tasks, rng):
    return {}["gold"]


def noisy(draw):
    return {"reward": lambda self: Valley.reward(self) + draw()}


FAULTS = [
    # (what is changed, the property, severity, words of the finding)
    (
        {"sample_tasks": lambda self, n: [0.0] * n},
        "methods_take_their_arguments",
        "error",
        "sample_tasks takes the arguments (n): define it as `def sample_tasks(self, num_tasks, rng)`",
    ),
    (
        {"set_task": lambda self: None},
        "methods_take_their_arguments",
        "error",
        "set_task takes the arguments (): define it as `def set_task(self, task)`",
    ),
    (
        {"sample_test_tasks": lambda self: [0.0]},
        "methods_take_their_arguments",
        "error",
        "define it as `def sample_test_tasks(self, num_tasks, rng)`",
    ),
    (
        {"metadata": {"render_modes": ["human"]}},
        "pictures_can_be_filmed",
        "warning",
        "the render modes are ['human'], so that no films can be made: give it the render mode rgb_array, too",
    ),
    ({"step": lambda self: None}, "methods_take_their_arguments", "error", "define it as `def step(self, action)`"),
    (
        {"sample_tasks": sample_from_nothing},
        "tasks_can_be_drawn",
        "error",
        "sample_from_nothing raised KeyError: 'gold'",
    ),
    (
        {"reward": lambda self: __import__("no_such_library")},
        "steps_return_what_they_must",
        "error",
        "valley needs the package no_such_library, which is not installed: pip install no_such_library",
    ),
    ({"reward": lambda self: 1e39}, "steps_return_what_they_must", "error", "is 1e+39, beyond 3.4e+38, the largest"),
    (
        {"observation_space": Box(-np.inf, np.inf, (1,), np.float64), "seen": lambda self: np.full(1, 1e39)},
        "steps_return_what_they_must",
        "error",
        "the observation of reset is [1.e+39], beyond 3.4e+38, the largest number in 32 bits: scale it",
    ),
    (
        {  # which is laid flat, in a wrapper that hands options on
            "observation_space": Discrete(3),
            "seen": lambda self: 1,
            "reset": lambda self, *, seed=None: Valley.reset(self, seed=seed),
        },
        "methods_take_their_arguments",
        "error",
        "reset takes the arguments (*, seed=None): define it as",
    ),
    (
        {"sample_tasks": lambda self, n, rng: [0.0] * 4},
        "tasks_can_be_drawn",
        "error",
        "returned [0.0, 0.0, 0.0, 0.0] in",
    ),
    ({"sample_tasks": lambda self, n, rng: (0.1 for _ in range(n))}, "tasks_can_be_drawn", "error", "return a list"),
    ({"observation_space": None}, "spaces_are_known", "error", "observation_space is None: set self.observation_space"),
    ({"observation_space": Sequence(Discrete(2))}, "spaces_are_known", "error", "use Box, Discrete, MultiDiscrete"),
    (
        {"action_space": Box(-np.inf, 1.0, (1,))},
        "spaces_are_known",
        "error",
        "a Box of floating-point numbers with finite",
    ),
    (
        {"action_space": Box(0, 9, (1,), np.int64)},
        "spaces_are_known",
        "error",
        "a Box of floating-point numbers with finite",
    ),
    ({"action_space": Tuple([Discrete(2)])}, "spaces_are_known", "error", "let it be Discrete, MultiDiscrete"),
    (
        {"horizon": None},
        "the_horizon_is_known",
        "warning",
        "valley does not say how many steps an episode may take, so that 200 are taken at most: give it an attribute",
    ),
    ({"horizon": 2.5}, "the_horizon_is_known", "error", "must be a whole number of steps, got 2.5"),
    ({"horizon": 0}, "the_horizon_is_known", "error", "the horizon is 0 steps: let it be at least 1"),
    (
        {"reset": lambda self, *, seed=None, options=None: np.zeros(1)},
        "steps_return_what_they_must",
        "error",
        "reset returned",
    ),
    (
        {"reset": lambda self: (np.zeros(1), {})},
        "methods_take_their_arguments",
        "error",
        "reset takes the arguments (): define it as `def reset(self, *, seed=None, options=None)`",
    ),
    (
        {"step": lambda self, action: (np.zeros(1), 0.0, False, {})},
        "steps_return_what_they_must",
        "error",
        "step 0 returned",
    ),
    (
        {"seen": lambda self: np.zeros(1 + (self.time > 3), np.float32)},
        "steps_return_what_they_must",
        "error",
        "step 3 has shape (2,) in place of (1,): let",
    ),
    (
        {"seen": lambda self: np.zeros(1 + (self.time > 17), np.float32)},
        "steps_return_what_they_must",
        "error",
        "step 17 has shape (2,)",
    ),
    (
        {"seen": lambda self: self.ball},
        "steps_return_what_they_must",
        "error",
        "is of float64 but observation_space of float32: return np.asarray(observation, np.float32), or",
    ),
    (
        {"seen": lambda self: np.full(1, 9.0, np.float32)},
        "steps_return_what_they_must",
        "error",
        "holds 9.0 at [0], outside -5.0 to 5.0: clip it",
    ),
    (
        {"seen": lambda self: np.full(1, np.nan, np.float32)},
        "steps_return_what_they_must",
        "error",
        "reset is not finite",
    ),
    ({"seen": lambda self: "north"}, "steps_return_what_they_must", "error", "has shape ()"),
    (
        {"observation_space": Discrete(3), "seen": lambda self: 3},
        "steps_return_what_they_must",
        "error",
        "3, which is not in Discrete(3)",
    ),
    (
        {"observation_space": Dict(a=Discrete(2), b=Discrete(2)), "seen": lambda self: {"a": 0}},
        "steps_return_what_they_must",
        "error",
        "has the entries ['a'] in place of ['a', 'b']",
    ),
    (
        {"observation_space": Dict(a=Box(0, 1, (2,))), "seen": lambda self: {"a": np.zeros(3)}},
        "steps_return_what_they_must",
        "error",
        "the observation of reset, entry 'a', has shape (3,) in place of (2,)",
    ),
    ({"reward": lambda self: np.inf}, "steps_return_what_they_must", "error", "the reward of step 0 is inf"),
    ({"reward": lambda self: self.ball}, "steps_return_what_they_must", "error", "float(...) makes one of an array"),
    ({"reward": lambda self: None}, "steps_return_what_they_must", "error", "the reward of step 0 is None"),
    (
        {"step": lambda self, action: (self.seen(), 0.0, 0, False, {})},
        "steps_return_what_they_must",
        "error",
        "terminated of step 0 is 0",
    ),
    (
        {"reward": lambda self: {}["gold"]},
        "steps_return_what_they_must",
        "error",
        "KeyError: 'gold' (test_check.py, line",
    ),
    (
        {"observation_space": Box(-1e9, 1e9, (1,)), "seen": lambda self: np.float32([1e6])},
        "observations_are_of_unit_size",
        "warning",
        "observations is 1e+06, far from 1, and hardly anything is learned from such numbers: divide them by their "
        "size in the environment, or train with --observations normalised",
    ),
    (
        {"seen": lambda self: np.float32([1e-4])},
        "observations_are_of_unit_size",
        "warning",
        "observations is 0.0001, far from 1",
    ),
    ({"step": step_with_momentum}, "a_seed_decides_everything", "error", "of the same environment have equal seed"),
    (noisy(np.random.default_rng(0).normal), "a_seed_decides_everything", "error", "draw from self.np_random alone"),
    (
        {
            "sample_tasks": lambda self, n, rng: [{"place": [x]} for x in rng.normal(size=n).tolist()],
            "set_task": set_within,
        },
        "tasks_stay_as_drawn",
        "error",
        "set_task changes a task that was drawn before, from {'place': [",
    ),
    (
        {"sample_tasks": lambda self, n, rng: np.random.default_rng().normal(size=n).tolist()},
        "tasks_depend_on_rng_alone",
        "error",
        "draw from rng alone",
    ),
    (noisy(random.random), "global_generators_stay", "error", "the global generator of random is drawn from"),
    (
        {"sample_tasks": lambda self, n, rng: np.random.normal(size=n).tolist()},
        "global_generators_stay",
        "error",
        "of numpy.random is drawn from",
    ),
    (
        {"set_task": lambda self, task: setattr(self, "valley", task) or setattr(self, "next_valley", task)},
        "a_task_waits_for_reset",
        "warning",
        "let set_task keep the task aside",
    ),
    (
        {"sample_tasks": lambda self, n, rng: rng.choice(np.linspace(-1.0, 1.0, 10), n, replace=False).tolist()},
        "tasks_do_not_run_out",
        "warning",
        "sample_tasks(40, rng) failed with ValueError: Cannot take a larger sample",
    ),
    (
        {"sample_test_tasks": lambda self, n, rng: [0.0, 1.0][:n]},
        "tasks_do_not_run_out",
        "warning",
        "sample_test_tasks(40, rng) returned 2 tasks: draw with replacement",
    ),
    (
        {"set_task": lambda self, task: None},
        "tasks_matter",
        "warning",
        "8 tasks gave the same observations and rewards",
    ),
    (
        {"reset": lambda self, *, seed=None: Valley.reset(self, seed=seed)},
        "gymnasium_agrees",
        "warning",
        "Gymnasium's own checker says: The `reset` method",
    ),
    (
        {"ball": np.zeros(1), "reset": reset_in_place, "step": step_in_place},  # an array of the class: of all copies
        "copies_share_nothing",
        "error",
        "reset of one copy changes the episodes of others, through the class attribute Changed.ball: keep",
    ),
    (
        {
            "observation_space": Box(-50.0, 50.0, (1,), np.float64),
            "__init__": lambda self: setattr(self, "ball", np.zeros(1)),
            "reset": reset_in_place,
            "step": step_in_place,
            "seen": lambda self: self.ball,
        },
        "observations_keep",
        "error",
        "return a copy",
    ),
    (
        {
            "sample_tasks": lambda self, n, rng: [Tied(x) for x in rng.normal(size=n)],
            "set_task": lambda self, task: setattr(self, "next_valley", task.place),
        },
        "tasks_can_be_sent",
        "warning",
        "cannot be pickled, so that workers",
    ),
    (
        drawing(lambda self: None),
        "pictures_can_be_filmed",
        "warning",
        "drawing returned NoneType in place of a picture: return one array of np.uint8",
    ),
    (
        drawing(lambda self: np.zeros((2, 3 + self.time, 3), np.uint8)),
        "pictures_can_be_filmed",
        "warning",
        "drawing returned pictures of the shapes [2, 3, 3] and then [2, 4, 3]: return",
    ),
    (drawing(lambda self: {}["gold"]), "pictures_can_be_filmed", "warning", "KeyError: 'gold'"),
]


@pytest.mark.parametrize(("changes", "name", "severity", "words"), FAULTS)
def test_a_fault_is_found(changes, name, severity, words):
    findings = {finding.name: finding for finding in check(a_valley(**changes))}
    assert name in findings, findings
    assert findings[name].severity == severity and words in str(findings[name])
    allowed = {name, "a_seed_decides_everything", "tasks_depend_on_rng_alone", "a_row_does_not_depend_on_others"}
    assert findings.keys() <= {*allowed, "gymnasium_agrees"}  # the last repeats what others say


def test_every_property_has_a_fault():
    elsewhere = {"episodes_end", "a_row_does_not_depend_on_others"}
    assert {name for _, name, _, _ in FAULTS} | elsewhere == {
        each.__name__ for each in (*DEFINITIONS, *FORM, *CONTRACT, *SCALE, *REPEATABLE, *BEHAVIOUR)
    }


@pytest.mark.parametrize("name", ["sample_tasks", "set_task"])
def test_a_method_is_missing(name):
    (finding,) = check(without(name))
    assert finding.severity == "error" and f"valley has no {name}: give it {name}(self, " in str(finding)


def test_an_episode_that_never_ends():
    class Endless(Valley):
        horizon = None

    (finding,) = check(Endless, horizon=30)
    assert finding.name == "episodes_end" and finding.severity == "warning"
    assert "did not end in 30 steps, where --horizon cuts it" in str(finding)
    assert check(Valley, horizon=30) == []  # states its length


def test_a_time_limit_anywhere_in_the_chain_is_an_episode_s_length():
    class Endless(Valley):
        horizon = None

    def limited():
        return gymnasium.wrappers.OrderEnforcing(gymnasium.wrappers.TimeLimit(Endless(), 30))

    for horizon in (None, 50):
        assert check(limited, horizon) == []


def test_a_family_of_one():
    (finding,) = check_world(find_world("CartPole-v1"), None, thorough=True)
    assert finding.severity == "warning" and "CartPole-v1 has no tasks and is taken as a family of one" in str(finding)


def test_the_cheap_part_leaves_behaviour_alone():
    assert check(a_valley(set_task=lambda self, task: None), thorough=False) == []  # no task matters
    large = a_valley(observation_space=Box(-1e9, 1e9, (1,)), seen=lambda self: np.float32([300.0]))
    assert [f.name for f in check(large, thorough=False)] == ["observations_are_of_unit_size"]
    assert [f.name for f in check(a_valley(reward=lambda self: None), thorough=False)] == [
        "steps_return_what_they_must"
    ]


class ValleyVectorEnv(TaskVectorEnv):
    task_type = float

    def __init__(self, num_envs=1, horizon=20, render_mode=None):
        super().__init__(num_envs, horizon, Box(-50.0, 50.0, (1,), np.float64), Valley.action_space, 0.0, render_mode)
        self.balls, self.valleys = np.zeros((num_envs, 1)), np.zeros(num_envs)

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1.0, 1.0, num_tasks).tolist()

    def _reset_rows(self, rows, tasks):
        for row, task in zip(rows, tasks, strict=True):
            self.balls[row], self.valleys[row] = self.generators[row].normal(0.0, 0.1, 1), task

    def _step_rows(self, actions, alive):
        stepped = slice(None) if alive is None else alive
        self.balls[stepped] += actions[stepped]
        over = np.zeros(self.num_envs, dtype=bool)
        return self._observe(), -np.abs(self.balls[:, 0] - self.valleys), over, over.copy(), {}

    def _observe(self):
        return self.balls.copy()


def step_the_dead(self, actions, alive):
    return ValleyVectorEnv._step_rows(self, actions, None)


def share_a_generator(self, rows, tasks):
    for row, task in zip(rows, tasks, strict=True):
        self.balls[row], self.valleys[row] = self.generators[0].normal(0.0, 0.1, 1), task


def set_tasks_at_once(self, tasks):
    TaskVectorEnv.set_tasks(self, tasks)
    self.valleys[:] = tasks


def tasks_of_all_batches(self, tasks):
    TaskVectorEnv.set_tasks(self, tasks)
    type(self).latest = tasks[0]


def step_to_the_latest(self, actions, alive):
    observations, _, *ends = ValleyVectorEnv._step_rows(self, actions, alive)
    return observations, -np.abs(self.balls[:, 0] - self.latest), *ends


def test_a_sound_batch():
    assert check(ValleyVectorEnv, is_batch=True) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"_step_rows": step_the_dead}, "a_row_does_not_depend_on_others"),
        ({"_reset_rows": share_a_generator}, "a_row_does_not_depend_on_others"),
        ({"_observe": lambda self: self.balls}, "observations_keep"),
        ({"set_tasks": set_tasks_at_once}, "a_task_waits_for_reset"),
        ({"set_tasks": tasks_of_all_batches, "_step_rows": step_to_the_latest}, "copies_share_nothing"),
        ({"_observe": lambda self: self.balls.copy()[:, 0]}, "steps_return_what_they_must"),
    ],
)
def test_a_faulty_batch(changes, name):
    findings = check(type("Changed", (ValleyVectorEnv,), changes), is_batch=True)
    assert (name, "error") in [(finding.name, finding.severity) for finding in findings]
    # an array that is handed out is the caller's: zeroing its rows that are not alive then changes the state
    assert {finding.name for finding in findings} <= {name, "a_row_does_not_depend_on_others"}


def test_a_batch_observes_a_box():
    class Chosen(ValleyVectorEnv):
        def __init__(self, num_envs=1):
            super().__init__(num_envs)
            self.single_observation_space = Discrete(3)

    (finding,) = check(Chosen, is_batch=True)
    assert "single_observation_space is Discrete(3): let it be a Box" in str(finding)
