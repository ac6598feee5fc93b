"""Ant forward or backward, by the protocol of Finn et al. 2017: 40 episodes per task in place of 20."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("maml/AntDir-rllab-v0"))
