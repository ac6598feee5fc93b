import dataclasses

import pytest

from envs.half_cheetah import half_cheetah_model
from envs.physics import HALF_CHEETAH_PHYSICS, half_cheetah_physics


@pytest.mark.parametrize(("name", "duration"), [("rllab", 0.01), ("gym", 0.05)])
def test_time_between_actions(name, duration):
    physics = half_cheetah_physics(name)
    assert physics.name == name
    assert physics.step_duration == duration
    assert physics.timestep == half_cheetah_model().opt.timestep


def test_constants_stay_constant():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HALF_CHEETAH_PHYSICS["gym"].horizon = 1


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"physics must be one of \['gym', 'rllab'\], got 'mars'"):
        half_cheetah_physics("mars")
