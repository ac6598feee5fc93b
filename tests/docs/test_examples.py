"""The programs that people copy run from any folder."""

from pathlib import Path

import pytest
from printed import printed_by

from maml_rl.commands.check_env import check_env

ROOT = Path(__file__).parents[2]
LAST = {
    "train_and_adapt": "return ",
    "own_environment": "return after 0, 1, 2 gradient steps: [",
    "own_network": "action at the start: [",
    "own_learner": "mean squared error before and after ten examples: [",
    "own_pictures": "6_corners_0.0: taken for ",
}


@pytest.mark.parametrize("name", LAST)
def test_an_example_runs(name, tmp_path):
    printed = printed_by(str(ROOT / "examples" / f"{name}.py"), "--small", folder=tmp_path)
    assert printed.splitlines()[-1].startswith(LAST[name])


def test_the_environment_to_copy_is_sound(monkeypatch, capfd):
    monkeypatch.chdir(ROOT / "examples")
    assert check_env(["own_environment:Swing"]) == 0, capfd.readouterr().err
