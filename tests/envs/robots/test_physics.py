import dataclasses

import pytest

from envs.robots.ant import ant_model
from envs.robots.half_cheetah import half_cheetah_model
from envs.robots.physics import ANT_PHYSICS, HALF_CHEETAH_PHYSICS, ant_physics, half_cheetah_physics


@pytest.mark.parametrize(("name", "duration"), [("rllab", 0.01), ("gym", 0.05)])
def test_time_between_actions_of_the_half_cheetah(name, duration):
    physics = half_cheetah_physics(name)
    assert physics.name == name
    assert physics.step_duration == duration
    assert physics.timestep == half_cheetah_model().opt.timestep


@pytest.mark.parametrize(("name", "duration"), [("rllab", 0.02), ("gym", 0.05)])
def test_time_between_actions_of_the_ant(name, duration):
    physics = ant_physics(name)
    assert physics.name == name
    assert physics.step_duration == duration
    assert physics.timestep == ant_model(physics).opt.timestep


def test_constants_stay_constant():
    for table in (HALF_CHEETAH_PHYSICS, ANT_PHYSICS):
        with pytest.raises(dataclasses.FrozenInstanceError):
            table["gym"].horizon = 1


@pytest.mark.parametrize("physics", [half_cheetah_physics, ant_physics])
def test_an_unknown_name_lists_the_known(physics):
    with pytest.raises(ValueError, match=r"physics must be one of \['gym', 'rllab'\], got 'mars'"):
        physics("mars")
