"""Say what a task environment lacks, and how to mend it: `python scripts/check_env.py my_module:MyEnv`."""

import sys

from maml_rl.cli_check_env import check_env

if __name__ == "__main__":
    sys.exit(check_env())
