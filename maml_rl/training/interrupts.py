"""SIGINT, SIGTERM and SIGHUP as an exception that is raised only where it does no harm; outside of training, they end
the process quietly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a run to end: Ctrl-C, a shutdown or a queue's limit, a closed terminal (Windows has no SIGHUP)."""


class Interrupted(KeyboardInterrupt):
    """The exception for a signal that asks the run to end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """A `with` block in which a signal raises `Interrupted` inside `allowed()`, and elsewhere waits for that.

    It raises once; later signals are only recorded, so that a second Ctrl-C cannot break into the clean-up.
    Outside the main thread, where Python cannot handle signals, it does nothing. A signal that the process
    was started to ignore stays ignored.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._allowed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for signum in ENDING:
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


def exit_on_signals() -> None:
    """Have a signal n end this process with one sentence and status 128 + n wherever no `Interrupts` is active.

    A program calls it first. An exception would end its imports, which take seconds, with a traceback, or would be
    swallowed by them. There is nothing to clean up: files are whole at any moment, and workers end with their parent.
    """
    for signum in ENDING:
        if signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler):  # else ignored, or handled already
            signal.signal(signum, _exit)


def _exit(signum: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # nobody is reading it
        os.write(2, f"stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)
