"""Meta-train on any task environment, your own too: `python scripts/train.py --env my_module:MyEnv`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train())
