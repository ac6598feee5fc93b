"""Few-shot learners side by side, by one command: `python scripts/leaderboard.py --output-dir DIR`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.leaderboard import leaderboard

    sys.exit(leaderboard())
