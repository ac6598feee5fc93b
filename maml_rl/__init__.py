"""Meta-learning that you can run, trust and build on: MAML and its kin, in reinforcement learning and at H = 1.

run = maml_rl.train("Navigation2D", num_iterations=15)
agent = run.agent().adapt(env)
action = agent.act(observation)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maml_rl.runtime import prepare_process
from maml_rl.version import __version__

if TYPE_CHECKING:
    from maml_rl.api.agent import Agent, AgentError, load_agent
    from maml_rl.api.classifier import FewShotClassifier
    from maml_rl.api.experiment import Experiment, load_experiment
    from maml_rl.api.run import Run, load
    from maml_rl.api.train import train, train_seeds
    from maml_rl.experiments.table import register
    from maml_rl.training.callbacks import Callback, StopTraining

prepare_process()

_HOMES = {
    "Agent": "maml_rl.api.agent",
    "AgentError": "maml_rl.api.agent",
    "load_agent": "maml_rl.api.agent",
    "FewShotClassifier": "maml_rl.api.classifier",
    "Experiment": "maml_rl.api.experiment",
    "load_experiment": "maml_rl.api.experiment",
    "Run": "maml_rl.api.run",
    "load": "maml_rl.api.run",
    "train": "maml_rl.api.train",
    "train_seeds": "maml_rl.api.train",
    "register": "maml_rl.experiments.table",
    "Callback": "maml_rl.training.callbacks",
    "StopTraining": "maml_rl.training.callbacks",
}
"""Public names and their modules, which take seconds to import and so are imported only when first used."""

__all__ = [
    "Agent",
    "AgentError",
    "Callback",
    "Experiment",
    "FewShotClassifier",
    "Run",
    "StopTraining",
    "__version__",
    "load",
    "load_agent",
    "load_experiment",
    "register",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module maml_rl has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
