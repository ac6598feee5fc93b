"""What is filmed is what was scored."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from small_policy import make_small

import envs  # noqa: F401 - registers the ids
from maml_rl.core.inner import InnerConfig
from maml_rl.core.keys import EVALUATION, INITIALISATION, Key
from maml_rl.core.lift import Threads
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.pictures.film import (
    MAX_PICTURES,
    Recording,
    Scene,
    caption,
    film_pace,
    median_episode,
    record,
    thinned,
)
from maml_rl.pictures.video import VideoError
from maml_rl.rl.experience import recipe_of

KEY = Key(9, EVALUATION, 5)
EPISODES, HORIZON = 3, 12


class Painted:
    """An environment that draws its elapsed steps, in place of a picture that takes a graphics library."""

    picture_note = ""

    def __init__(self, env):
        self._env, self.elapsed = env, 0

    def __getattr__(self, name):
        return getattr(self._env, name)

    def reset(self, **settings):
        self.elapsed = 0
        return self._env.reset(**settings)

    def step(self, actions, alive=None):
        self.elapsed += 1
        return self._env.step(actions, alive)

    def render_one(self, index):
        return np.full((2, 3, 3), self.elapsed + 100 * index, dtype=np.uint8)


def painted(env_id, num_envs=EPISODES):
    return Painted(gymnasium.make_vec(env_id, num_envs=num_envs, horizon=HORIZON))


def small(env_id, num_threads=1, in_a_row=False):
    inner = InnerConfig(later_ratio=0.5)
    return make_small(env_id, Threads(num_threads), EPISODES, HORIZON, inner, in_a_row)


def beginning(env_id):
    """One task, the recipe of its episodes, and who acts before any adaptation."""
    family, _, learner = small(env_id)
    state = learner.init(Key(1, INITIALISATION, 0))
    (task,) = family.source.sample_tasks(1, np.random.default_rng(0))
    return task, recipe_of(family.collector), learner.actor(state, learner.begin(state, 1, KEY), KEY)


@pytest.mark.parametrize("is_judged", [False, True])
@pytest.mark.parametrize("in_a_row", [False, True])
@pytest.mark.parametrize("env_id", ["maml/Navigation2D-v0", "maml/HalfCheetahVel-rllab-v0"])
def test_a_recording_is_the_scored_episodes_bit_for_bit(env_id, in_a_row, is_judged):
    family, judge, learner = small(env_id, 2, in_a_row)
    tasks = family.source.sample_tasks(3, np.random.default_rng(0))
    state = learner.init(Key(1, INITIALISATION, 0))
    env = painted(env_id, 1 if in_a_row else EPISODES)
    evaluation = Evaluation(family, range(3), judge if is_judged else None)
    recipe = recipe_of(judge if is_judged else family.collector)
    for stage in evaluation.stages(learner, state, tasks, KEY):
        for index, task in enumerate(tasks):
            played = record(env, recipe, stage.actor, Scene(task, index, stage.key, row=1), every=5)
            scored = stage.scored
            for episode in range(EPISODES):
                length = int(scored.mask[index, episode].sum())
                seen = scored.observations[index, episode, :length].numpy()
                assert played.paths[episode].shape[0] == length + 1
                np.testing.assert_array_equal(played.paths[episode][:-1].astype(np.float32), seen)
                last = played.paths[episode][-1].astype(np.float32)  # where the last step led
                np.testing.assert_array_equal(last, scored.last_observations[index, episode].numpy())
            assert played.returns[-1] == pytest.approx(scored.rewards[index, 1].sum().item(), rel=1e-6)
            assert len(played.pictures) == len(played.steps) == 1 + -(-played.steps[-1] // 5)


def test_pictures_are_of_the_start_every_nth_step_and_the_end():
    env_id = "maml/HalfCheetahVel-rllab-v0"
    (task, recipe, actor), env = beginning(env_id), painted(env_id)
    played = record(env, recipe, actor, Scene(task, 0, KEY, row=1), every=5)
    assert played.steps == [0, 5, 10, HORIZON]
    assert [int(picture[0, 0, 0]) - 100 for picture in played.pictures] == played.steps  # of row 1
    assert len(played.returns) == len(played.speeds) == 4 and played.returns[0] == played.speeds[0] == 0.0
    # a centre of mass that starts near 0 has gone speed x time, but for the noise of the start [m]
    assert played.paths[1][-1, 17] == pytest.approx(played.speeds[-1] * 0.01 * HORIZON, abs=0.05)
    silent = record(env, recipe, actor, Scene(task, 0, KEY, row=0), every=0)
    assert silent.pictures == [] and np.array_equal(silent.paths[0], played.paths[0])
    torch.testing.assert_close(torch.tensor(played.paths[1]), torch.tensor(silent.paths[1]), rtol=0, atol=0)


def test_a_picture_of_another_size_is_refused_by_its_step():
    class Growing(Painted):
        def render_one(self, index):
            return np.zeros((2 + self.elapsed, 3, 3), dtype=np.uint8)

    env_id = "maml/Navigation2D-v0"
    (task, recipe, actor), env = beginning(env_id), Growing(painted(env_id)._env)
    with pytest.raises(
        VideoError, match=r"of the shape \[2, 3, 3\], but the one of step 5 is of uint8 and \[7, 3, 3\]"
    ):
        record(env, recipe, actor, Scene(task, 0, KEY, row=1), every=5)


def test_the_median_episode_has_as_many_above_as_below():
    assert median_episode(torch.tensor([5.0, -1.0, 3.0])) == 2
    assert median_episode(torch.tensor([2.0])) == 0


RECORDING = Recording([], [np.zeros((1, 1, 3), np.uint8)] * 4, [0, 2, 4, 5], [0.0, -1.0, -2.0, -2.54], [])


def test_a_thinned_recording_keeps_its_ends():
    kept = thinned(RECORDING, 2)
    assert kept.steps == [0, 4, 5] and kept.returns == [0.0, -2.0, -2.54] and kept.speeds == []


def test_captions_say_task_gradient_steps_step_and_return():
    assert caption(RECORDING, 3, 0, None) == ["before adaptation", "step 5: return -2.5"]
    assert caption(RECORDING, 3, 1, "task") == ["task", "after 1 gradient step", "step 5: return -2.5"]
    moving = RECORDING._replace(speeds=[0.0, 0.5, 1.0, 1.25])
    assert caption(moving, 3, 2, None) == ["after 2 gradient steps", "step 5: return -2.5, mean speed 1.25 m/s"]


@pytest.mark.parametrize(
    ("horizon", "life", "every", "fps", "remark"),
    [
        (200, 100, 2, 25.0, "played at 0.5 times its speed"),
        (200, 20, 2, 10.0, ""),
        (100, 10, 1, 10.0, ""),
        (5, 1, 1, 5.0, "played at 5 times its speed"),
        (200, None, 2, 25.0, ""),  # not stated
        (5, 0, 1, 25.0, ""),
    ],
)
def test_pace_of_a_film(horizon, life, every, fps, remark):
    env = SimpleNamespace(horizon=horizon, metadata={"render_fps": life})
    pace = film_pace(env)
    assert (pace.every, pace.fps, pace.remark) == (every, fps, remark)
    assert horizon / pace.every <= MAX_PICTURES
