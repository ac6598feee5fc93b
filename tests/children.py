"""Child processes that tests kill."""

import os
from collections.abc import Callable


def fork(function: Callable[[], int | None]) -> int:
    """The id of a child process that runs `function` and exits with what it returns."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = function() or 0
        finally:
            os._exit(status)
    return child


def exit_status(child: int) -> int:
    """Waits for a child process; minus n if signal n killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
