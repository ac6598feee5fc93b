"""Random Markov decision processes of ten states (Duan et al. 2016): learns in about a minute."""

import sys

from maml_rl.cli import train
from maml_rl.presets import PRESETS

if __name__ == "__main__":
    sys.exit(train(PRESETS["maml/TabularMDP-v0"]))
