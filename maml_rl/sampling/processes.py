"""Sampling in separate processes on this machine: for environments that are slow in Python.

Each worker is spawned, never forked, keeps its environment, and plays one task at a time. One that dies is replaced
and its task played again; one that takes too long is killed, which makes it one that died. Workers end when the
parent closes them, and when it is gone, even if they are stopped at that time.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from maml_rl.core.lift import available_cores
from maml_rl.runtime import environment_variables
from maml_rl.sampling.failures import said
from maml_rl.sampling.recipe import Recipe
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.sampling.work import (
    MAX_ATTEMPTS,
    Failure,
    Lost,
    Outcome,
    ParamArrays,
    Work,
    Workbench,
    arrays_of_task,
    pickled,
)

SECONDS_TO_START = 300.0  # for a worker to import and make its environment, before it is killed
SECONDS_TO_CLOSE = 5.0  # for one to close its environment
OF_THE_TERMINAL = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
"""Signals that reach all of a terminal's processes, on Ctrl-C and closing: the parent decides."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SPAWN = multiprocessing.get_context("spawn")


class ProcessCrew:
    """A number of worker processes. Use from one thread at a time."""

    def __init__(self, recipe: Recipe, num_workers: int | None, task_timeout: float):
        """
        Args:
            num_workers: None for one per core.
            task_timeout: [s] that a worker may take to play a task.
        Raises:
            ValueError: if the recipe cannot be pickled, or a worker cannot make its environment from it.
        """
        self._recipe = pickled(recipe, "the environment and its policy")
        self._num_workers, self._timeout = num_workers or available_cores(), task_timeout
        self._workers: list[_Worker] = []
        self._params: ParamArrays = {}
        self._failed_starts = 0  # in a row
        atexit.register(self.close)
        try:
            self._fill()
            while not all(worker.is_ready for worker in self._workers):
                self.outcomes()
        except SamplingError as error:
            self.close()
            raise ValueError(str(error)) from error
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The process numbers of the present workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def begin(self, params: ParamArrays) -> None:
        self._params = params
        for worker in [each for each in self._workers if not each.process.is_alive()]:  # died idle
            self._remove(worker)
        self._fill()

    def has_room(self) -> bool:
        return any(worker.is_free for worker in self._workers)

    def submit(self, work: Work) -> None:
        worker = next(each for each in self._workers if each.is_free)
        worker.give(work, arrays_of_task(self._params, work.task_index))

    def outcomes(self) -> list[tuple[int, Outcome]]:
        occupied = [worker for worker in self._workers if not worker.is_free]
        signs = wait([sign for worker in occupied for sign in (worker.connection, worker.process.sentinel)])
        found = []
        for worker in occupied:
            if worker.connection in signs or worker.process.sentinel in signs:
                work = worker.work
                outcome = self._hear(worker)
                if work is not None and outcome is not None:
                    found.append((work.task_index, outcome))
        return found

    def abandon(self) -> None:
        for worker in [each for each in self._workers if not each.is_free]:
            self._remove(worker)

    def close(self) -> None:
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.end(SECONDS_TO_CLOSE)
        self._workers.clear()
        atexit.unregister(self.close)

    def _fill(self) -> None:
        while len(self._workers) < self._num_workers:
            self._workers.append(_Worker(self._recipe, self._timeout))

    def _remove(self, worker: _Worker) -> None:
        worker.end(0.0)
        self._workers.remove(worker)

    def _hear(self, worker: _Worker) -> Outcome | None:
        """The outcome of a worker's task; None from one that had yet to start."""
        was_ready = worker.is_ready
        try:
            outcome = worker.answer()
        except (EOFError, OSError):
            self._remove(worker)
            if not was_ready:
                self._failed_starts += 1
                self._require_starts(worker.fate())
            self._fill()
            return Lost(f"its worker {worker.fate()}") if was_ready else None
        if was_ready:
            return outcome
        if isinstance(outcome, Failure):
            error = SamplingError(
                f"the environment must be one that a worker can make, but there it raised {outcome.reason}: "
                "keep it in a module that can be imported from elsewhere",
                None,
                None,
            )
            error.add_note(outcome.details)
            raise error
        self._failed_starts = 0
        return None

    def _require_starts(self, fate: str) -> None:
        if self._failed_starts >= MAX_ATTEMPTS:
            raise SamplingError(
                f"worker processes must start, but {self._failed_starts} in a row did not, the last one {fate}: "
                "see what they wrote above, and whether there is memory for them, or take fewer",
                None,
                None,
            )


class _Worker:
    """A process, the connection to it, and a clock that kills it when it takes too long: also in the midst of a
    message, when nothing else could end the waiting."""

    def __init__(self, recipe: bytes, timeout: float):
        self.work: Work | None = None
        self.is_ready = False
        self._timeout = timeout
        self._overdue_after: float | None = None  # [s] that it took too long
        self.connection, theirs = _SPAWN.Pipe()
        # Linux ends a worker with the thread that has started it: only the main one lasts as long as the process.
        is_lasting = threading.current_thread() is threading.main_thread()
        self.process = _SPAWN.Process(target=_serve, args=(theirs, recipe, is_lasting))
        with theirs, _fresh_start():
            self.process.start()
        self._wind(SECONDS_TO_START)

    @property
    def is_free(self) -> bool:
        return self.is_ready and self.work is None

    def give(self, work: Work, params: ParamArrays) -> None:
        self.work = work
        self._wind(self._timeout)
        with contextlib.suppress(OSError):  # it is dead, which shows when its answer is waited for
            _send(self.connection, (work, params))

    def answer(self) -> Any:
        """The message that it has sent: its greeting, or its work.

        Raises:
            EOFError, OSError: if it is dead and has not.
        """
        if not self.connection.poll():
            raise EOFError
        message = _receive(self.connection)
        self._clock.cancel()
        self.is_ready, self.work = True, None
        return message

    def dismiss(self) -> None:
        """Tell it that there is no more work."""
        self.connection.close()

    def end(self, grace: float) -> None:
        """Have it end, by force after `grace` seconds or if it is at work."""
        self._clock.cancel()
        self.dismiss()
        if grace and self.is_free:
            self.process.join(grace)
        self.process.kill()
        self.process.join()

    def fate(self) -> str:
        """The way it ended, in words."""
        if self._overdue_after is not None:
            return f"did not answer within {self._overdue_after:g} s and was killed"
        code = self.process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def _wind(self, seconds: float) -> None:
        self._clock = threading.Timer(seconds, self._expire, [seconds])
        self._clock.daemon = True
        self._clock.start()

    def _expire(self, seconds: float) -> None:
        self._overdue_after = seconds
        self.process.kill()


def _serve(connection: Connection, recipe: bytes, has_lasting_parent: bool) -> None:
    """A worker's life: make an environment, then play what comes until the connection is closed."""
    if has_lasting_parent:
        _be_killed_with_parent()
    for signum in OF_THE_TERMINAL:
        signal.signal(signum, signal.SIG_IGN)
    _block_terminal(False)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        bench = Workbench(cloudpickle.loads(recipe))
    except (Exception, SystemExit) as error:
        _send(connection, Failure(said(error), None, f"in a worker:\n{traceback.format_exc()}"))
        return
    try:
        _send(connection, None)
        while True:
            work, params = _receive(connection)
            _send(connection, bench.play(work, params))
    except (EOFError, OSError):
        bench.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # taking the interpreter down in order can last seconds


def _be_killed_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends: a stopped process cannot end by itself."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent() -> None:
    """Wait until the parent is gone, then end at once, whatever the environment is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _fresh_start() -> Iterator[None]:
    """Give processes spawned in here a clean start: one BLAS thread, Ctrl-C blocked until it is ignored, no main.

    A spawned process would run the main program once more, if it is a file, and look for one if it came from a pipe.
    There is no need: cloudpickle sends what main defines by value.
    """
    main = sys.modules["__main__"]
    resource_tracker.ensure_running()  # the first process would start it, which unblocks Ctrl-C
    mask = _block_terminal(True)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        with environment_variables(ONE_THREAD):
            yield
    finally:
        sys.modules["__main__"] = main
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _block_terminal(is_blocked: bool) -> set[int] | None:
    """Block the terminal's signals in this thread and in processes that it starts, or let them through; return the mask
    before, None on Windows, which has none."""
    if sys.platform == "win32":
        return None
    how = signal.SIG_BLOCK if is_blocked else signal.SIG_UNBLOCK
    return signal.pthread_sigmask(how, OF_THE_TERMINAL)


def _send(connection: Connection, message: Any) -> None:
    """Arrays go as they lie in memory, without a copy into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps((head, [part.nbytes for part in raw])))
    for part in raw:
        connection.send_bytes(part)


def _receive(connection: Connection) -> Any:
    head, sizes = pickle.loads(connection.recv_bytes())
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        connection.recv_bytes_into(buffer)
    return pickle.loads(head, buffers=buffers)
