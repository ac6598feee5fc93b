"""Sampling on a Ray cluster: one machine or many, some of which may be lost on the way.

Tasks of Ray, not actors: they are placed, and placed again, wherever a CPU is free. Ray's own retries are off, because
the one policy of retrying lies in `work.py`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle

from maml_rl.core.lift import available_cores
from maml_rl.runtime import keep_ray_quiet
from maml_rl.sampling.failures import said
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.sampling.work import (
    Failure,
    Lost,
    Outcome,
    ParamArrays,
    Played,
    Recipe,
    Work,
    Workbench,
    arrays_of_task,
    pickled,
)

LOOPBACK = "127.0.0.1"
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_DIE = 0.2  # between the last word of a process and its end
SECONDS_UNWATCHED = 1.0  # between two looks at whether Ray still runs
SECONDS_TO_START = 300.0  # for the first worker to be placed, to import and to make its environment

Introduction = tuple[bytes, tuple[str, ...]]
"""The pickled recipe, and the folders in which the driver looks for modules: sent to each worker once."""


class RayCrew:
    """As many tasks at a time as the cluster has CPUs. Use from one thread at a time."""

    def __init__(self, recipe: Recipe, address: str | None, num_workers: int | None, task_timeout: float):
        """
        Args:
            address: "auto", host:port, or None for a Ray of this machine alone, which ends with the crew. If this
                process is connected to a Ray already, it is that one, and it stays.
            num_workers: tasks at a time; None for one per CPU, counted anew in every sampling.
            task_timeout: [s] from handing a task out, in which it must be placed and played.
        Raises:
            ValueError: if Ray is not installed or nobody answers, if the recipe cannot be pickled, or a worker cannot
                make its environment from it.
        """
        whole = pickled(recipe, "the environment and its policy")
        self._ray = _require_ray()
        self._num_workers, self._timeout = num_workers, task_timeout
        self._room, self._params = 0, None
        self._under_way: dict[Any, tuple[Work, float]] = {}  # reference -> work, when it is overdue [monotonic s]
        self._is_own = not self._ray.is_initialized()
        if self._is_own:
            with _own_handler_of_sigterm():
                _connect(self._ray, address, num_workers)
        try:
            remote = self._ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
            self._play = remote(_play)
            self._introduction = self._ray.put((whole, tuple(sys.path)))
            self._require_worker(remote(_introduce))
        except BaseException:
            self.close()
            raise

    def begin(self, params: ParamArrays) -> None:
        self._require_going()
        self._params = self._ray.put(params)
        self._room = self._num_workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def has_room(self) -> bool:
        return len(self._under_way) < self._room

    def submit(self, work: Work) -> None:
        self._require_going()
        reference = self._play.remote(self._introduction, self._params, work)
        self._under_way[reference] = work, time.monotonic() + self._timeout

    def outcomes(self) -> list[tuple[int, Outcome]]:
        overdue_first = min(overdue for _, overdue in self._under_way.values())
        ready: list[Any] = []
        while not ready:
            self._require_going()
            patience = max(0.0, overdue_first - time.monotonic())
            ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=min(patience, SECONDS_UNWATCHED))
            if not patience:
                break
        found: list[tuple[int, Outcome]] = []
        for reference in ready:
            work, _ = self._under_way.pop(reference)
            found.append((work.task_index, self._outcome(reference)))
        now = time.monotonic()
        for reference, (work, overdue) in list(self._under_way.items()):
            if overdue <= now:
                self._drop(reference)
                found.append((work.task_index, Lost(f"it was not done within {self._timeout:g} s")))
        return found

    def abandon(self) -> None:
        for reference in list(self._under_way):
            self._drop(reference)

    def close(self) -> None:
        if self._ray.is_initialized():
            if not self._ended():
                self.abandon()
            if self._is_own:
                with _own_handler_of_sigterm():
                    self._ray.shutdown()
        self._is_own = False

    def _require_going(self) -> None:
        """Raise if Ray has ended: if asked for anything, it would end this process and not say where training stands.

        Raises:
            SamplingError: if it has ended.
        """
        if ended := self._ended():
            self._under_way.clear()  # nobody is left to be told to stop
            reason = f"Ray's {ended} on this machine has ended, killed from outside or for want of memory"
            raise SamplingError(f"{reason}: resume the run, with --sampler processes if it happens again", None, None)

    def _ended(self) -> str:
        """The first process of Ray on this machine that is no more; nothing if there is none, or others started it."""
        node = self._ray._private.worker._global_node
        gone = [name for name, _ in node.dead_processes()] if node is not None else []
        return next((name for name in ("raylet", "gcs_server") if name in gone), "")

    def _drop(self, reference: Any) -> None:
        """Forget a task, and end the worker that it may be hung in."""
        del self._under_way[reference]
        self._ray.cancel(reference, force=True)

    def _outcome(self, reference: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=self._timeout)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # before the work could be begun
            return Failure(f"a worker raised {_last_line(error)}", None, str(error))
        except errors.RayError as error:
            time.sleep(SECONDS_TO_DIE)
            self._require_going()
            return Lost(f"its worker or node was lost ({type(error).__name__})")

    def _require_worker(self, introduce: Any) -> None:
        """
        Raises:
            ValueError: if no worker of the cluster can be introduced to the work.
        """
        reference = introduce.remote(self._introduction)
        try:
            failure = self._ray.get(reference, timeout=SECONDS_TO_START)
        except self._ray.exceptions.GetTimeoutError:
            raise ValueError(
                f"a worker of the Ray cluster must be free within {SECONDS_TO_START:g} s, but none was: "
                "see `ray status` for who holds its CPUs"
            ) from None
        except self._ray.exceptions.RayError as error:
            raise ValueError(
                f"workers must be able to import what the driver imports, but one raised {_last_line(error)}: "
                "install the same packages on every node"
            ) from error
        if failure is not None:
            raise ValueError(
                f"the environment must be one that a worker can make, but there it raised {failure.reason}: "
                "install its module on every node"
            )


def _introduce(introduction: Introduction) -> Failure | None:
    try:
        _bench(introduction)
    except (Exception, SystemExit) as error:
        return Failure(said(error), None, f"in a worker:\n{traceback.format_exc()}")
    return None


def _play(introduction: Introduction, params: ParamArrays, work: Work) -> Played | Failure:
    """Play one task in a worker, where Ray passes what lies in its store as values."""
    failure = _introduce(introduction)
    return failure or _bench(introduction).play(work, arrays_of_task(params, work.task_index))


@functools.lru_cache(maxsize=2)  # a family and its judge
def _bench(introduction: Introduction) -> Workbench:
    """This process's environment for the recipe."""
    recipe, paths = introduction
    sys.path.extend(path for path in paths if path not in sys.path)
    return Workbench(cloudpickle.loads(recipe))


def _require_ray() -> Any:
    """The package, imported only where it is used: that takes a second.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ValueError(
            f"sampler ray needs the package ray, which cannot be imported ({error}): pip install 'maml_rl[ray]', "
            "or take the sampler processes"
        ) from None


@contextlib.contextmanager
def _own_handler_of_sigterm() -> Iterator[None]:
    """Let SIGTERM do afterwards what it did before: while connected, Ray would write a trace and abort the process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _connect(ray: Any, address: str | None, num_workers: int | None) -> None:
    """
    Raises:
        ValueError: if nobody answers there.
    """
    keep_ray_quiet()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            _start(ray, num_cpus=num_workers or available_cores(), **quiet)
            return
        host, _, port = _where(address).rpartition(":")
        if host:
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()  # Ray itself tries for minutes
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError, OverflowError, ray.exceptions.RayError) as error:
        raise ValueError(
            f"ray_address must be that of a running Ray cluster, but {address or 'this machine'} gives no answer "
            f"({said(error)}): start one with `ray start --head`, with the same token here as there, or leave the "
            "address out for one on this machine"
        ) from error


def _start(ray: Any, **settings: Any) -> None:
    """A Ray of this machine alone, which listens on the loopback interface only: no other machine reaches it.

    Ray takes 127.0.0.1 for its address on macOS and Windows; on Linux it replaces it by the machine's own, and then
    listens on all interfaces, unless clusters are switched off while it starts.
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    allowed = getattr(constants, "ENABLE_RAY_CLUSTER", True)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(address="local", _node_ip_address=LOOPBACK, include_dashboard=False, **settings)
    finally:
        constants.ENABLE_RAY_CLUSTER = allowed
    found = ray.util.get_node_ip_address()
    if found != LOOPBACK:  # in a later version of Ray
        logging.getLogger(__name__).warning(
            "Ray %s listens on %s: keep other machines out by a firewall", ray.__version__, found
        )


def _where(address: str) -> str:
    """host:port, which for "auto" is what Ray has noted on this machine; nothing if it has not."""
    if address != "auto":
        return address
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    return os.environ.get("RAY_ADDRESS") or (note.read_text().strip() if note.exists() else "")


def _last_line(error: BaseException) -> str:
    """The last line of a message: Ray puts a worker's whole traceback into it, with the error itself at the end."""
    return str(error).strip().rpartition("\n")[2]
