"""What all tests share."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import push  # noqa: F401 - registers test/Push-v0 and test/Reach-v0

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
