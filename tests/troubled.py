"""An environment that goes wrong in the ways that environments do, for tests: a module, since workers import it."""

import os
import signal
import threading
import time
from pathlib import Path

from push import PushVectorEnv


def happens_first(marker: Path) -> bool:
    """Whether nobody, in any process, has been here before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class TroubledEnv(PushVectorEnv):
    """Push, but for trouble at step 3 of the tasks of certain places. Tasks are 0.0, 1.0, 2.0, ..."""

    def __init__(self, num_envs, trouble, folder, places=(), horizon=10):
        """
        Args:
            trouble: "killed", "hung" (each once for each place), "always killed", "fails", "exits", "slow" or "".
            folder: where it is noted what has happened.
        """
        super().__init__(num_envs, horizon)
        self._trouble, self._folder, self._places = trouble, Path(folder), places

    def _step_rows(self, actions, alive):
        place = self._place[0]
        if self._elapsed[0] == 3 and place in self._places:
            self._get_into_trouble(self._folder / f"{self._trouble} at {place}")
        return super()._step_rows(actions, alive)

    def _get_into_trouble(self, marker):
        if (self._trouble == "killed" and happens_first(marker)) or self._trouble == "always killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._trouble == "hung" and happens_first(marker):
            time.sleep(1000)
        if self._trouble == "fails":
            raise KeyError("the leg fell off")
        if self._trouble == "exits":
            raise SystemExit("enough")
        if self._trouble == "slow":
            (self._folder / str(os.getpid())).touch()
            time.sleep(1000)


class MakeTroubled:
    """A recipe's make_env."""

    def __init__(self, trouble, folder, places=()):
        self._settings = trouble, str(folder), places

    def __call__(self, num_envs):
        return TroubledEnv(num_envs, *self._settings)


class Unpicklable:
    """A recipe's make_env that cannot leave its process."""

    def __init__(self):
        self._lock = threading.Lock()

    def __call__(self, num_envs):
        return PushVectorEnv(num_envs)


def fail_to_make(num_envs):
    raise FileNotFoundError("no such model: robot.xml")


UNREACHABLE = [
    (Unpicklable(), "environment and its policy must be picklable to reach a worker.*lock"),
    (fail_to_make, "a worker can make, but there it raised FileNotFoundError: no such model: robot.xml"),
]
"""Makers of environments that reach no worker, and what is said then."""
