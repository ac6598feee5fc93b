"""Few-shot classification by the protocol of a learner's paper: `python scripts/train_omniglot.py --learner maml`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train_omniglot

    sys.exit(train_omniglot())
