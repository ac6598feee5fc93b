"""Write one HTML file about what was run: `python scripts/report.py RUN_DIR --output report.html`."""

import sys

from maml_rl.training.interrupts import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the imports, which take seconds
    from maml_rl.commands.report import report

    sys.exit(report())
