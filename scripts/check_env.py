"""Check a task environment: `python scripts/check_env.py my_module:MyEnv`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.check_env import check_env

    sys.exit(check_env())
