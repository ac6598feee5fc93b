"""Memory does not grow with the number of iterations."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import dataclasses, json, os, sys
from pathlib import Path
from maml_rl.core.keys import INITIALISATION, TASKS, TRAINING, Key
from maml_rl.experiments.build import build
from maml_rl.experiments.presets import default_config
from maml_rl.sampling.local import SamplingConfig

PAGE = os.sysconf("SC_PAGE_SIZE")
config = default_config(sys.argv[1], "maml")
if hasattr(config.task, "sampling"):
    sampling = SamplingConfig(episodes_per_task=4, horizon=20)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, sampling=sampling))
built = build(config)
state = built.learner.init(Key(0, INITIALISATION, 0))
resident = {}
for iteration in range(260):
    key = Key(0, TRAINING, iteration)
    tasks = built.family.source.sample_tasks(4, key.rng(TASKS))
    state, _ = built.learner.meta_step(state, tasks, key)
    resident[iteration] = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
built.close()
print(json.dumps(resident[259] - resident[59]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("env", ["maml/HalfCheetahVel-rllab-v0", "maml/Navigation2D-v0", "sinusoid"])
def test_two_hundred_iterations_leave_less_than_five_megabytes(env):
    # In a process of its own, so that nothing else's memory is counted; the first iterations fill caches.
    done = subprocess.run([sys.executable, "-c", SCRIPT, env], capture_output=True, text=True, check=True, timeout=600)
    assert json.loads(done.stdout) < 5e6
