import numpy as np
import pytest

from maml_rl.core.keys import EVALUATION, TRAINING, Key
from maml_rl.policies.gaussian import Gaussian
from maml_rl.sampling.seeds import episode_noise
from maml_rl.sampling.trajectory import Shape

ACTIONS = Gaussian(2, init_std=1.0, min_std=1e-6)
KEY = Key(seed=4, stream=TRAINING, iteration=2, phase=1)
TASKS, EPISODES, HORIZON = 3, 2, 5


def noise(key=KEY, first_task=0, num_tasks=TASKS, num_episodes=EPISODES, horizon=HORIZON):
    shape = Shape(num_episodes, horizon, observation_size=3, action_width=2, reports_success=False)
    return episode_noise(key, first_task, num_tasks, shape, ACTIONS)


def test_equal_keys_give_equal_noise():
    first, second = noise(), noise(Key(4, TRAINING, 2, 1))
    assert first.reset_seeds == second.reset_seeds
    np.testing.assert_array_equal(first.actions, second.actions)


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(seed=5),
        KEY._replace(stream=EVALUATION),
        KEY._replace(iteration=3),
        KEY._replace(phase=2),
    ],
    ids=["seed", "stream", "iteration", "phase"],
)
def test_every_part_of_the_key_matters_to_every_episode(other):
    first, second = noise(), noise(other)
    assert not set(first.reset_seeds) & set(second.reset_seeds)
    assert not (first.actions == second.actions).any()


def test_every_episode_of_every_task_has_noise_of_its_own():
    drawn = noise()
    assert drawn.actions.shape == (HORIZON, TASKS * EPISODES, ACTIONS.noise_size)
    assert len(set(drawn.reset_seeds)) == TASKS * EPISODES
    assert len(np.unique(drawn.actions)) == drawn.actions.size


def test_a_block_of_tasks_gets_the_noise_that_it_has_among_all():
    every = noise()
    for start, stop in ((0, 1), (1, 3), (2, 3)):
        block, rows = (
            noise(first_task=start, num_tasks=stop - start),
            slice(start * EPISODES, stop * EPISODES),
        )
        assert block.reset_seeds == every.reset_seeds[rows]
        np.testing.assert_array_equal(block.actions, every.actions[:, rows])


def test_more_episodes_or_steps_do_not_move_the_first_ones():
    few, many = noise(num_tasks=1), noise(num_tasks=1, num_episodes=EPISODES + 3, horizon=HORIZON + 4)
    assert many.reset_seeds[:EPISODES] == few.reset_seeds
    np.testing.assert_array_equal(many.actions[:HORIZON, :EPISODES], few.actions)
