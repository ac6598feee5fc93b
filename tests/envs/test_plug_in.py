"""From a name to a world, and what is said where there is none."""

import os
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

from envs.plug_in import find_world, flattened, make_batch, make_single
from envs.task_env import SimulationError, TaskVectorEnv

SOURCE = """
import gymnasium
import numpy as np
from gymnasium.wrappers import RescaleAction, TimeLimit
from envs.navigation import Navigation2DVectorEnv

class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    horizon = 4
    task = 0.0
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1, 1, num_tasks).tolist()

    def set_task(self, task):
        self.task = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.task, False, False, {}

class Needy(Walk):
    def __init__(self, size):
        pass

class Seeing(Walk):
    def __init__(self):
        import cv2

class Failing(Walk):
    def __init__(self):
        {}["gold"]

class Batch(Navigation2DVectorEnv):
    pass

class NoEnvironment:
    pass

class Untasked(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Discrete(2)

class Endless(Walk):
    horizon = None

def wrapped():
    return RescaleAction(Walk(), np.float32(-3.0), np.float32(3.0))

def nothing():
    return None

number = 3
gymnasium.register("Walk-v3", entry_point=Walk, max_episode_steps=6)
gymnasium.register("user/Endless-v0", entry_point=Endless, max_episode_steps=6)
gymnasium.register("user/Untasked-v0", entry_point=Untasked, max_episode_steps=6)
gymnasium.register("user/Batch-v0", vector_entry_point=Batch)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory of a user, with modules that nobody else sees."""
    (tmp_path / "walks.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import math\n\nmath.sqrt('x')\n")
    (tmp_path / "hungry.py").write_text("import no_such_library\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    registry = dict(gymnasium.registry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if os.path.abspath(p) != str(tmp_path)])
    yield tmp_path
    for name in ("walks", "broken", "hungry", "leaving"):
        sys.modules.pop(name, None)
    gymnasium.registry.clear()
    gymnasium.registry.update(registry)


def batch(name, num_envs=2, horizon=None, render_mode=None) -> TaskVectorEnv:
    return make_batch(find_world(name), num_envs, horizon, render_mode)


@pytest.mark.parametrize(
    ("name", "horizon"),
    [
        ("walks:Walk", 4),
        ("walks:wrapped", 4),
        ("walks:Batch", 100),
        ("walks:Walk-v3", 4),  # an attribute counts for more than the registration
        ("walks:user/Endless-v0", 6),
        ("walks:user/Untasked-v0", 6),
        ("walks:user/Batch-v0", 100),
        ("CartPole-v1", 500),
        ("maml/Navigation2D-v0", 100),
    ],
)
def test_every_kind_of_name(name, horizon, here):
    env = batch(name)
    assert isinstance(env, TaskVectorEnv) and env.num_envs == 2 and env.horizon == horizon
    assert batch(name, horizon=3).horizon == 3
    tasks = env.sample_tasks(2, np.random.default_rng(0))
    env.set_tasks(tasks)
    assert len(tasks) == 2 and len(str(tasks[0])) > 0


def test_tasks_reach_an_environment_through_its_wrappers(here):
    env = batch("walks:wrapped")
    env.set_tasks([0.25, 0.5])
    env.reset(seed=0)
    assert env.single_action_space.high == [3.0]
    assert env.step(np.zeros((2, 1), np.float32))[1].tolist() == [0.25, 0.5]


def test_the_flag_shortens_and_lengthens_what_gymnasium_limits(here):
    for horizon, steps in ((2, 2), (9, 9), (None, 6)):
        env = batch("walks:user/Endless-v0", horizon=horizon)
        env.reset(seed=0)
        ends = [bool(env.step(np.zeros((2, 1), np.float32))[3].all()) for _ in range(steps)]
        assert ends == [False] * (steps - 1) + [True]


def test_pictures_are_asked_for_by_render_mode(here):
    assert batch("walks:Walk", render_mode="rgb_array").render_mode == "rgb_array"
    assert batch("walks:Walk").metadata["render_modes"] == ["rgb_array"] and batch("walks:Walk").render_mode is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Walk", r"'nowhere' is neither on sys.path nor in .*: go to the folder that holds it, or put that"),
        ("walks.inner:Walk", r"'walks.inner' .*"),
        (
            "broken:Walk",
            r"'broken' fails with TypeError: must be real number, not str \(broken.py, line 3\): correct it until",
        ),
        (
            "hungry:Walk",
            r"'hungry' needs the package no_such_library, which is not installed: pip install no_such_library, or put",
        ),
        (
            "walks:Seeing",
            r"^walks:Seeing needs the package cv2, which is not installed: pip install opencv-python, or put the",
        ),
        ("walks:Failing", r"^walks:Failing\(\) raised KeyError: 'gold' \(walks.py, line \d+\): correct what raises it"),
        ("leaving:Walk", r"'leaving' fails with SystemExit: 3 \(leaving.py, line 1\)"),
        (
            "walks:Wolk",
            r"walks \(.*walks.py\) has no 'Wolk' and registers no id of that name; its environments are \['Batch', ",
        ),
        ("walks:NoEnvironment", r"walks:NoEnvironment is <class 'walks.NoEnvironment'>: derive it from one of them"),
        ("walks:number", r"must be a gymnasium.Env or an envs.task_env.TaskVectorEnv, but walks:number is 3"),
        ("walks:nothing", r"walks:nothing returned None: return one"),
        (
            "walks:Needy",
            r"walks:Needy must be made by its name\(\), but that fails with TypeError: .*'size'.*let its __init__",
        ),
        (
            "walks:Untasked",
            r"walks:Untasked has no sample_tasks and no set_task: give it sample_tasks\(self, num_tasks, rng\)",
        ),
        (
            "walks:Endless",
            r"walks:Endless does not say how many steps an episode may take: give it an attribute horizon,",
        ),
        ("walks:", r"env must be an id or module:Class, got 'walks:'"),
        (
            "Nowhere-v0",
            r"env must be a registered task environment, got 'Nowhere-v0' .* or module:Class; known: \['maml/",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(name, message, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    with pytest.raises(ValueError, match=message) as caught:
        batch(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "users"),
    [
        ("HalfCheetah-v5", "imageio", "gymnasium.envs.mujoco"),
        ("phys2d/CartPole-v1", "jax", "gymnasium.envs.phys2d"),
        ("tabular/Blackjack-v0", "jax", "gymnasium.envs.tabular"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(name, package, users, monkeypatch):
    for module in list(sys.modules):
        if module.startswith((users, f"{package}.")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=f"needs the package {package}, which is not installed: pip install {package}$"
    ):
        batch(name, horizon=5)


class Seer(gymnasium.Env):
    action_space = Discrete(2)
    horizon = 5

    def __init__(self, space, observations):
        self.observation_space, self._observations = space, iter(observations)

    def sample_tasks(self, num_tasks, rng):
        return [0] * num_tasks

    def set_task(self, task):
        pass

    def reset(self, *, seed=None, options=None):
        return next(self._observations), {}

    def step(self, action):
        return next(self._observations), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "observation", "flat"),
    [
        (Discrete(3, start=5), 6, [0, 1, 0]),
        (MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0]),
        (Box(0, 255, (2, 2), np.uint8), np.array([[1, 2], [3, 4]], np.uint8), [1, 2, 3, 4]),
        (Box(-1, 1, (), np.float32), np.float32(0.5), [0.5]),
        (Dict(b=Discrete(2), a=Box(-1, 1, (2,), np.float64)), {"b": 1, "a": np.array([0.1, 0.2])}, [0, 1, 0.1, 0.2]),
        (Tuple([Discrete(2), Box(-1, 1, (1,))]), (0, np.array([0.5], np.float32)), [1, 0, 0.5]),
    ],
)
def test_observations_are_laid_flat(space, observation, flat):
    env = flattened("it", Seer(space, [observation]))
    seen, _ = env.reset()
    assert seen.dtype.kind == "f" and seen.ndim == 1 and env.observation_space.contains(seen)
    np.testing.assert_array_equal(seen, np.array(flat, seen.dtype))


def test_an_observation_that_changes_its_shape_is_located(here, monkeypatch):
    space = Box(-1, 1, (2,), np.float32)
    good = np.zeros(2, np.float32)
    for bad in (np.zeros(3, np.float32), np.zeros(1, np.float32)):  # one number would fill a row of two

        def make(bad=bad):
            return Seer(space, [good, good, bad])

        env = make_batch(find_world("walks:Walk")._replace(make=make), 2, None, None)
        env.reset(seed=0)
        env.step(np.zeros(2, np.int64))
        with pytest.raises(
            SimulationError, match=rf"sub-environment 0: observation has shape \({len(bad)},\) in place of"
        ):
            env.step(np.zeros(2, np.int64))


@pytest.mark.parametrize(
    ("method", "returned", "words"),
    [
        (
            "step",
            (np.zeros(1), None, False, False, {}),
            r"step returned \(array\(\[0.\]\), None, False, False, {}\): let",
        ),
        ("step", (np.zeros(1), 0.0, False, {}), r"let it return \(observation, reward, terminated, truncated, info\)"),
        ("step", (np.zeros(1), 0.0, False, False, None), r"step returned .*None\): let it return"),
        ("step", None, "step returned None: let it return"),
        ("reset", np.zeros(1), r"reset returned array\(\[0.\]\): let it return \(observation, info\)"),
        ("reset", (np.full(1, np.nan), {}), r"observation is not finite: \[nan\]; look for a division by zero"),
        ("reset", (np.full(1, 1e39), {}), "not finite: .inf.; look .* or for numbers beyond 3.4e38, the largest in 32"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_a_copy_returns_in_the_midst_of_training_is_located(method, returned, words, here, monkeypatch):
    env = batch("walks:Walk")
    env.reset(seed=0)
    env.step(np.zeros((2, 1), np.float32))
    monkeypatch.setattr(env.envs[1], method, lambda *args, **settings: returned)
    with pytest.raises(SimulationError, match=f"^sub-environment 1: {'.*' if words[0] != '^' else ''}{words}"):
        env.reset(seed=1)
        env.step(np.zeros((2, 1), np.float32))


def test_one_environment_as_its_author_made_it(here):
    env = make_single(find_world("walks:wrapped"), None, None)
    assert isinstance(env, gymnasium.wrappers.RescaleAction) and type(env.unwrapped).__name__ == "Walk"
