"""Random Markov decision processes of ten states (Duan et al. 2016): learns in about a minute."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.train import train

    sys.exit(train("maml/TabularMDP-v0"))
