"""Every outer step by name: made from its settings, with the memory that it needs."""

import pytest
import torch

from maml_rl.core.outer.choice import OUTER_STEPS
from maml_rl.core.trees import named

every_step = pytest.mark.parametrize("name", OUTER_STEPS)


@every_step
def test_settings_and_steps_have_the_name(name):
    config = OUTER_STEPS[name]()
    assert config.step == name
    assert type(config.make()).__name__.lower() == name.replace("_", "")


@every_step
def test_another_step_s_name_is_refused(name):
    other = next(each for each in OUTER_STEPS if each != name)
    with pytest.raises(ValueError, match=rf"outer\.step must be {name} beside the settings of {name}, got {other}"):
        OUTER_STEPS[name](step=other)


def test_only_adam_carries_a_memory():
    memories = {name: set(named(kind().make().init({"p": torch.zeros(2)}))) for name, kind in OUTER_STEPS.items()}
    assert memories == {
        "trust_region": set(),
        "gradient": {"adam/first", "adam/second", "adam/num_steps"},
        "reptile": set(),
        "proximal": {"adam/first", "adam/second", "adam/num_steps", "inner_kl"},
    }
