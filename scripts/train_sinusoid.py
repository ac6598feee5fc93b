"""Sinusoid regression by the protocol of Finn et al. 2017, section 5.1: 70,000 iterations of 25 tasks."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("sinusoid"))
