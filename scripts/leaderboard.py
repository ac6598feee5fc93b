"""Few-shot learners side by side, by one command: `python scripts/leaderboard.py --output-dir DIR`."""

import sys

from maml_rl.cli_leaderboard import leaderboard

if __name__ == "__main__":
    sys.exit(leaderboard())
