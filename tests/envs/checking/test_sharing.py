"""Copies of an environment that share their task or their state are found before training, and the cause is named."""

import functools
import random

import gymnasium
import numpy as np
import pytest
from sound import Push

from envs.checking.check import check_world
from envs.plug_in import World

GOALS = [0.0]
GOAL = 0.0


class Settings:
    goal = 0.0


class InClass(Push):
    def set_task(self, task):
        InClass.goal = task

    def reward(self):
        return -abs(self.x - InClass.goal)


class OnlyUntilReset(Push):
    """Right on one thread, where reset follows set_task at once; wrong on two."""

    def set_task(self, task):
        type(self).goal = task


class InGlobal(Push):
    def set_task(self, task):
        global GOAL
        GOAL = task

    def reward(self):
        return -abs(self.x - GOAL)


class InListOfModule(Push):
    def set_task(self, task):
        GOALS[0] = task

    def reward(self):
        return -abs(self.x - GOALS[0])


class InOtherClass(Push):
    def set_task(self, task):
        Settings.goal = task

    def reward(self):
        return -abs(self.x - Settings.goal)


class InDefault(Push):
    """A default is one object for all calls."""

    def __init__(self, goals=[0.0]):  # noqa: B006
        self.goals = goals

    def set_task(self, task):
        self.goals[0] = task

    def reward(self):
        return -abs(self.x - self.goals[0])


def in_closure():
    goals = [0.0]

    class InClosure(Push):
        def set_task(self, task):
            goals[0] = task

        def reward(self):
            return -abs(self.x - goals[0])

    return InClosure


class StateInClass(Push):
    previous = 0.0  # action

    def step(self, action):
        before = StateInClass.previous if self.time else 0.0
        StateInClass.previous = float(action[0])
        return super().step(action - before)


class ForgetsWhenMade(Push):
    """A copy that is made, as evaluation does in the midst of training, takes all others back to the start."""

    start = 0.0

    def __init__(self):
        ForgetsWhenMade.start = 0.0

    def reset(self, *, seed=None, options=None):
        ForgetsWhenMade.start = 1.0
        return super().reset(seed=seed)

    def reward(self):
        return ForgetsWhenMade.start


class GlobalDice(Push):
    def reset(self, *, seed=None, options=None):
        random.seed(seed)
        return super().reset(seed=seed)

    def reward(self):
        return random.random()


class Rare(InClass):
    """No reward within the steps that are looked at."""

    horizon = 400

    def reward(self):
        return super().reward() if self.time > 300 else 0.0


class Elsewhere(Push):
    """The task stands in the hidden state of an iterator, where no name leads."""

    goals: dict = {}  # noqa: RUF012
    unseen = staticmethod(functools.partial(goals.get, "goal", 0.0))

    def set_task(self, task):
        self.unseen.func.__self__["goal"] = task

    def reward(self):
        return -abs(self.x - self.unseen())


del Elsewhere.goals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            InClass,
            "set_task of one copy changes the episodes of others, through the class attribute InClass.goal: keep",
        ),
        (OnlyUntilReset, "set_task of one copy .* class attribute OnlyUntilReset.goal"),
        (InGlobal, "set_task of one copy .* the global GOAL of "),
        (InListOfModule, "set_task of one copy .* the global GOALS of "),
        (InOtherClass, "set_task of one copy .* the class attribute Settings.goal"),
        (InDefault, "set_task of one copy .* self.goals of InDefault, one object in all copies"),
        (in_closure(), "set_task of one copy .* the variable goals around InClosure.set_task"),
        (StateInClass, "step of one copy .* the class attribute StateInClass.previous"),
        (ForgetsWhenMade, "__init__ of one copy changes the episodes of others"),
        (GlobalDice, "reset of one copy .* the global generator of random"),
        (Elsewhere, "set_task of one copy .* through a variable, an object or a file outside of them: keep the task"),
        (Rare, "all copies share the task or state that stands in the class attribute InClass.goal: keep the task"),
    ],
)
@pytest.mark.parametrize("thorough", [False, True])
def test_shared_state_is_refused_with_its_cause(make, words, thorough):
    findings = {f.name: f for f in check_world(World("push", make, False, False), None, thorough)}
    assert findings.keys() <= {"copies_share_nothing", "global_generators_stay"}
    assert findings["copies_share_nothing"].severity == "error"
    with pytest.raises(ValueError, match=words):
        raise ValueError(str(findings["copies_share_nothing"]))


@pytest.mark.parametrize("wrapper", [lambda env: env, lambda env: gymnasium.wrappers.TimeLimit(env, 20)])
def test_a_function_that_returns_one_environment_again(wrapper):
    base = Push()
    (finding,) = check_world(World("push", lambda: wrapper(base), False, False), None, thorough=False)
    assert "push returned one and the same Push twice: make a new one in every call" in str(finding)


class Counts(Push):
    """A count and a cache may be shared: no episode depends on them."""

    resets = 0
    models: dict = {}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        Counts.resets += 1
        self.models.setdefault(self.goal, 2.0 * self.goal)
        self.observation_space.seed(seed)
        return super().reset(seed=seed)


def test_a_count_and_a_cache_are_no_faults():
    for thorough in (False, True):
        assert check_world(World("push", Counts, False, False), None, thorough) == []


def reset_within(self, *, seed=None, options=None):
    self.goal[0] += 0.01
    return Push.reset(self, seed=seed)


TASKS = np.zeros((3, 1))


def draw_into_one_array(self, num_tasks, rng):
    TASKS[:num_tasks] = rng.uniform(-1.0, 1.0, (num_tasks, 1))
    return list(TASKS[:num_tasks])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"set_task": lambda self, task: setattr(self, "goal", task.__imul__(0.5))},
            r"set_task changes a task that was drawn before, from \[",
        ),
        ({"reset": reset_within}, "reset changes a task that was drawn before"),
        ({"reward": lambda self: float(self.goal.__iadd__(0.01)[0])}, "step changes a task that was drawn before"),
        ({"sample_tasks": draw_into_one_array}, "a later call of sample_tasks changes a task that was drawn before"),
    ],
)
def test_tasks_that_change_after_they_were_drawn(changes, words):
    as_arrays = {
        "sample_tasks": lambda self, num_tasks, rng: list(rng.uniform(-1.0, 1.0, (num_tasks, 1))),
        "reward": lambda self: -abs(self.x - float(self.aim[0])),
    }
    sound, faulty = (type("Arrays", (Push,), {**as_arrays, **more}) for more in ({}, changes))
    assert check_world(World("push", sound, False, False), None, thorough=False) == []
    findings = {f.name: f for f in check_world(World("push", faulty, False, False), None, thorough=False)}
    with pytest.raises(ValueError, match=words):
        raise ValueError(str(findings["tasks_stay_as_drawn"]))


class Momentum(gymnasium.Wrapper):
    """A wrapper that forgets to begin anew."""

    speed = 0.0

    def step(self, action):
        self.speed += 0.1 * action
        return self.env.step(self.speed)


def frozen(env):
    wrapper = gymnasium.wrappers.NormalizeObservation(env)
    wrapper.update_running_mean = False
    return wrapper


class NoReward(Push):
    def reward(self):
        return 0.0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: gymnasium.wrappers.NormalizeObservation(Push()), "NormalizeObservation"),
        (lambda: gymnasium.wrappers.NormalizeReward(Push()), "NormalizeReward"),
        (lambda: gymnasium.wrappers.NormalizeReward(NoReward()), "NormalizeReward"),  # which nothing shows at first
        (lambda: gymnasium.wrappers.TimeLimit(Momentum(gymnasium.wrappers.FlattenObservation(Push())), 20), "Momentum"),
    ],
)
def test_a_wrapper_with_a_memory_is_named_before_training(make, name):
    (finding,) = check_world(World("push", make, False, False), 20, thorough=False)
    assert finding.severity == "error"
    assert f"the wrapper {name} carries a memory from one episode into the next" in str(finding)
    assert ("train with --observations normalised" in str(finding)) == (name == "NormalizeObservation")


@pytest.mark.parametrize(
    "wrap",
    [
        frozen,
        gymnasium.wrappers.RecordEpisodeStatistics,
        lambda env: gymnasium.wrappers.StickyAction(env, 0.5),
        lambda env: gymnasium.wrappers.FrameStackObservation(env, 3),
        lambda env: gymnasium.wrappers.RescaleAction(env, -1.0, 1.0),
    ],
)
def test_wrappers_that_begin_anew_are_no_faults(wrap):
    assert check_world(World("push", lambda: wrap(Push()), False, False), 20, thorough=False) == []
