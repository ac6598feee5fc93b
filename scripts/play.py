"""Watch a run act and adapt in the browser: `python scripts/play.py RUN_DIR`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()
    from maml_rl.commands.play import play_run

    sys.exit(play_run())
