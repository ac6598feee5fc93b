import pickle

import numpy as np
import pytest

from envs.task_env import SimulationError, episode_length
from envs.toys.navigation import Navigation2DVectorEnv


def test_an_error_crosses_a_process_border_whole():
    error = pickle.loads(pickle.dumps(SimulationError(3, "it fell off")))
    assert (error.environment, error.reason, str(error)) == (
        3,
        "it fell off",
        "sub-environment 3: it fell off",
    )


@pytest.mark.parametrize(
    ("horizon", "max_episode_steps", "expected"),
    [(None, None, 200), (None, 30, 30), (7, 30, 7), (0, None, 0)],
)
def test_the_horizon_goes_before_gymnasiums_name_for_it(horizon, max_episode_steps, expected):
    assert episode_length(horizon, max_episode_steps, default=200) == expected


def test_a_world_that_says_it_reports_success_must():
    class Silent(Navigation2DVectorEnv):
        reports_success = True

    env = Silent(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"Silent says reports_success, but its infos \[\] have no success"):
        env.step(np.zeros((2, 2)))
