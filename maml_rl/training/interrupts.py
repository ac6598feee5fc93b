"""SIGINT, SIGTERM and SIGHUP as an exception that comes only where it can do no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Within the `with` block, a signal raises `Interrupted` inside `allowed()` and waits for it elsewhere.

    It raises once; later signals are noted only, so that a second Ctrl-C cannot break into the clean-up.
    Outside the main thread, where Python cannot handle signals, it does nothing. A signal that the process
    was started to ignore stays ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._allowed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, previous in self._previous.items():
            signal.signal(signum, signal.SIG_DFL if previous is None else previous)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A block that a signal may leave at any point.

        Raises:
            Interrupted: on a signal, also one that came before.
        """
        self._allowed = True
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._allowed = False

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = self.received or signum
        if self._allowed:
            self._allowed = False
            raise Interrupted(signum)
