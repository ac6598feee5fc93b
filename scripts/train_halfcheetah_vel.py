"""HalfCheetah at a target velocity, by the protocol of Finn et al. 2017."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("maml/HalfCheetahVel-rllab-v0"))
