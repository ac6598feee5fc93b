"""Measure speed as ratios to the bare physics: `python scripts/benchmark.py sampling --json`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.benchmark import benchmark

    sys.exit(benchmark())
