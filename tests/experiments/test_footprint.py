"""What cannot fit into this machine is refused before anything is made, and what can is not."""

import json

import gymnasium
import numpy as np
import pytest

from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.core import memory
from maml_rl.experiments import footprint
from maml_rl.experiments.config import OMNIGLOT, SINUSOID
from maml_rl.experiments.presets import EXPERIMENTS, default_config
from maml_rl.policies.gaussian import Gaussian
from maml_rl.policies.policy import PolicySpec

TINY = ["--env", "maml/Navigation2D-v0", "--num-tasks", "2", "--episodes-per-task", "2", "--horizon", "5"]
TINY += ["--num-iterations", "1", "--evaluation.num-tasks", "2", "--evaluate-every", "0"]


class Camera(gymnasium.Env):
    """Pictures of 84 x 84 x 3 that say nothing."""

    horizon = 200
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (84, 84, 3), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def sample_tasks(self, num_tasks, rng):
        return list(rng.random(num_tasks))

    def set_task(self, task):
        self.task = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros((84, 84, 3), np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros((84, 84, 3), np.float32), -abs(float(action[0]) - self.task), False, False, {}


MANY_TASKS = 40_000_000  # more than any machine has memory for


def test_the_trajectories_of_a_camera_are_counted(tmp_path, capfd):
    flags = ["--num-tasks", str(MANY_TASKS), "--output-dir", str(tmp_path / "run")]
    assert train(f"{__name__}:Camera", flags) == 2
    # tasks x 20 episodes x 200 steps x 84 x 84 x 3 float32, of which three batches are held at once
    told = capfd.readouterr().err.replace(",", "").split()
    held = int(told[told.index("memory") + 1])
    assert held == pytest.approx(3 * MANY_TASKS * 20 * 200 * 84 * 84 * 3 * 4, rel=0.01)
    assert not (tmp_path / "run").exists()


def test_a_run_that_trains_elsewhere_is_evaluated_on_a_smaller_machine(tmp_path, capfd):
    run = tmp_path / "run"
    assert train(arguments=[*TINY, "--output-dir", str(run)]) == 0
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["training"]["num_tasks"] = MANY_TASKS  # as if it had been trained elsewhere
    (run / "config.json").write_text(json.dumps(saved))
    assert evaluate([str(run), "--num-tasks", "1"]) == 0
    assert evaluate([str(run), "--num-tasks", str(MANY_TASKS)]) == 2
    assert "but this machine has" in capfd.readouterr().err
    assert train(arguments=["--resume", str(run), "--num-iterations", "2"]) == 2
    assert "but this machine has" in capfd.readouterr().err


def test_the_largest_part_is_named_with_its_remedy():
    parts = [memory.Part("pictures", 400, "lower ways"), memory.Part("parameters", 700, "lower num_filters")]
    with pytest.raises(ValueError, match=r"needs at least 1,100 bytes.*700 bytes of them for parameters.*has 1,000"):
        memory.require_memory(parts, has=1000)
    memory.require_memory(parts[:1], has=1000)
    memory.require_memory(parts, has=1100)


@pytest.mark.parametrize(
    ("env", "learner"),
    [*((env, "maml") for env in EXPERIMENTS), (SINUSOID, "maml"), (OMNIGLOT, "prototypical"), (OMNIGLOT, "maml")],
)
def test_no_preset_needs_more_than_a_small_machine_has(env, learner):
    config = default_config(env, learner, ways=20, shots=5)
    if config.kind == "pictures":
        needs = footprint.few_shot(config, 1)
    elif config.kind == "regression":
        needs = footprint.sinusoid(config)
    else:
        robot = PolicySpec(111, Gaussian(8, init_std=1.0, min_std=1e-6))
        needs = footprint.reinforcement(config, robot, config.task.sampling.horizon or 200)
    for parts in needs:
        assert 0 < sum(part.size for part in parts) < 4 * 10**9
