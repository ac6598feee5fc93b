"""Meta-learning that runs: MAML and its kin, in reinforcement learning and at H = 1."""

from maml_rl.runtime import prepare_process
from maml_rl.version import __version__

prepare_process()

__all__ = ["__version__"]
