"""From a name to a world, and what is said where there is none."""

import os
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from gymnasium.vector.utils import batch_space
from push import Place, PushVectorEnv

import envs
from envs.plug_in import World, find_world, flattened, make_batch, make_single
from envs.task_env import SimulationError, TaskVectorEnv

SOURCE = """
import gymnasium
import numpy as np
from gymnasium.wrappers import ClipAction, RescaleAction, TimeLimit, TransformAction, TransformReward
from envs.toys.navigation import Navigation2DVectorEnv

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

def clipped():
    return TransformReward(ClipAction(Walk()), lambda r: r)

def doubled():
    return TransformAction(ClipAction(Walk()), lambda a: 2 * a, gymnasium.spaces.Box(-0.5, 0.5, (1,)))

def limited():
    return TransformReward(RescaleAction(TimeLimit(Endless(), 7), np.float32(-3.0), np.float32(3.0)), lambda r: r)

def limited_twice():
    return TimeLimit(TimeLimit(Walk(), 3), 9)

class OwnLimit(gymnasium.Wrapper):
    _max_episode_steps = 8  # as Gymnasium's TimeLimit calls it

def limited_by_another():
    return RescaleAction(OwnLimit(Endless()), np.float32(-3.0), np.float32(3.0))

class OfOneStep(Endless):
    def step(self, action):
        return np.zeros(1, np.float32), self.task, False, True, {}

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
        ("walks:Walk-v3", 4),  # the attribute; 6 steps are registered
        ("walks:user/Endless-v0", 6),
        ("walks:limited", 7),
        ("walks:limited_twice", 3),  # the smallest is the one that ends it
        ("walks:limited_by_another", 8),
        ("walks:Endless", 200),  # nobody says
        ("walks:OfOneStep", 200),
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
    "name",
    [
        "lamp",
        "lamp:",
        "lamp.py",
        "./lamp.py",
        "lamp.LampEnv",
        "lamp.py:LampEnv",
        "./lamp.py:LampEnv",
        "./lamp:LampEnv",
        "maml/lamp-rllab-v0",  # what a name of one word becomes
    ],
)
def test_a_name_that_is_almost_right_gets_the_right_one(name, here):
    source = "raise SystemExit('I was run')\nclass LampEnv(Base): pass\nclass _Hidden(Base): pass\nclass Bulb: pass\n"
    (here / "lamp.py").write_text(source)
    with pytest.raises(ValueError, match=r"got '.*': did you mean lamp:LampEnv\?$"):
        find_world(name)


def test_a_file_elsewhere_is_told_with_its_folder(here, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for folder, ending in ((elsewhere, f", given in the folder {elsewhere}"), (here, "")):
        (folder / "lamp.py").write_text("class LampEnv(Base): pass")
        for name in (f"{folder}/lamp.py:LampEnv", f"{folder}/lamp.py"):
            with pytest.raises(ValueError, match=rf"did you mean lamp:LampEnv{ending}\?$"):
                find_world(name)


def test_a_name_in_a_folder_and_one_that_may_be_several(here):
    (here / "inner").mkdir()
    (here / "inner" / "lamp.py").write_text("class Dark(Base): pass\nclass Light(Base): pass\nclass Bulb: pass\n")
    for name, guess in (
        ("inner/lamp.py:Light", "inner.lamp:Light"),
        ("inner.lamp.Light", "inner.lamp:Light"),
        ("inner.lamp", "inner.lamp:Dark or inner.lamp:Light"),
    ):
        with pytest.raises(ValueError, match=rf"did you mean {guess}\?"):
            find_world(name)
    (here / "inner" / "lamp.py").write_text("class:")
    for name in (
        "inner.lamp",
        "dusk.Light",
        "dusk",
        "dusk.py:Light",
        "../",
        "a b",
        "HalfCheetah-v99",
        ":Light",
        "",
        "random",
    ):
        with pytest.raises(ValueError) as caught:
            find_world(name)
        assert "did you mean" not in str(caught.value)  # Gymnasium's own suggestions are capitalised


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
        # bytes, from their bounds to 0..1: 51 / 255 = 0.2; (6 - 4) / (8 - 4) = 0.5; where both bounds are 7 it is 0
        (Box(0, 255, (2, 2), np.uint8), np.array([[0, 51], [204, 255]], np.uint8), [0, 0.2, 0.8, 1]),
        (Box(np.uint8([4, 7]), np.uint8([8, 7]), dtype=np.uint8), np.array([6, 7], np.uint8), [0.5, 0]),
        (Box(0, 1, (2,), np.uint8), np.array([0, 1], np.uint8), [0, 1]),
        (Box(0, 255, (2,), np.int64), np.array([3, 200]), [3, 200]),  # whole numbers may count anything
        (
            Dict(camera=Box(0, 255, (1, 2), np.uint8), gear=Discrete(2), speed=Box(-9, 9, (1,), np.float64)),
            {"camera": np.array([[51, 255]], np.uint8), "gear": 1, "speed": np.array([7.0])},
            [0.2, 1, 0, 1, 7],
        ),
        (Tuple([Box(0, 255, (1,), np.uint8), Discrete(2)]), (np.array([51], np.uint8), 0), [0.2, 1, 0]),
        (Box(-1, 1, (), np.float32), np.float32(0.5), [0.5]),
        (Dict(b=Discrete(2), a=Box(-1, 1, (2,), np.float64)), {"b": 1, "a": np.array([0.1, 0.2])}, [0, 1, 0.1, 0.2]),
        (Tuple([Discrete(2), Box(-1, 1, (1,))]), (0, np.array([0.5], np.float32)), [1, 0, 0.5]),
    ],
)
def test_observations_are_laid_flat(space, observation, flat):
    env = flattened("it", Seer(space, [observation]))
    seen, _ = env.reset()
    assert seen.dtype.kind == "f" and seen.ndim == 1 and env.observation_space.contains(seen)
    np.testing.assert_allclose(seen, np.array(flat, seen.dtype), rtol=1e-6)


class CameraVectorEnv(PushVectorEnv):
    """Its observation is a picture [2, 3] of bytes, all of them 51 times the place of the task."""

    def __init__(self, num_envs=1, horizon=10):
        super().__init__(num_envs, horizon)
        self.single_observation_space = Box(0, 255, (2, 3), np.uint8)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def sample_tasks(self, num_tasks, rng):
        return [Place(float(place)) for place in rng.integers(0, 6, num_tasks)]

    def _step_rows(self, actions, alive):
        _, *rest = super()._step_rows(actions, alive)
        return self._observe(), *rest

    def _observe(self):
        return np.repeat(51 * self._place, 6).reshape(-1, 2, 3).astype(np.uint8)


def test_a_batch_s_bytes_are_scaled(here):
    env = make_batch(World("camera", CameraVectorEnv, True, False), 2, 4, None)
    assert env.horizon == 4 and env.single_observation_space == Box(0, 1, (2, 3))
    env.set_tasks([Place(1.0), Place(5.0)])
    seen, _ = env.reset(seed=[3, 4])
    np.testing.assert_allclose(seen, np.full((2, 2, 3), 0.2) * np.array([1, 5])[:, None, None], rtol=1e-6)
    stepped = env.step(np.zeros((2, 1), np.float32), alive=np.array([True, False]))
    np.testing.assert_allclose(stepped[0][:, 0, 0], [0.2, 0.0], rtol=1e-6)
    assert all(env.observation_space.contains(observations) for observations in (seen, stepped[0]))


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


def test_a_user_s_module_that_has_the_name_of_this_project_s_is_to_be_renamed(here, monkeypatch):
    (here / "envs").mkdir()
    (here / "envs" / "tasks.py").write_text(SOURCE)
    monkeypatch.setattr(envs, "__path__", [*envs.__path__])
    with pytest.raises(
        ValueError, match=r"this project has envs.tasks, too, which hides .*envs/tasks.py: rename yours"
    ):
        find_world("envs.tasks:Walk")
    assert find_world("envs.toys.navigation:Navigation2DVectorEnv").is_batch


def test_actions_that_are_clipped_have_the_bounds_that_they_are_clipped_to(here):
    assert make_single(find_world("walks:clipped"), None, None).action_space == Box(-1, 1, (1,))
    assert batch("walks:clipped").single_action_space == Box(-1, 1, (1,))
    assert batch("walks:doubled").single_action_space == Box(-0.5, 0.5, (1,))  # what stands above a ClipAction holds
    assert batch("walks:limited").single_action_space == Box(-3, 3, (1,))
