"""The one folder that a run leaves: made once, never overwritten, written by one process at a time.

    config.json     the settings      metrics.csv    a row per iteration
    checkpoints/    see checkpoint    tensorboard/   the rows as events       lock    while a process writes

config.json carries a format version; the settings of older ones are converted when they are read.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import itertools
import json
import os
import reprlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from maml_rl.storage.atomic import SUFFIX, remove_unfinished, write_atomically

FORMAT_VERSION = 2
KNOWN_VERSIONS = (1, 2)  # experiments/migration.py brings older ones to the present form
PARTS = ("checkpoints", "tensorboard", "metrics.csv")  # beside config.json, with which a folder becomes a run
UNFINISHED = f"config.json{SUFFIX}"  # without config.json: the sign of a run that a killed process was making
MOST_NAMED = 4  # folders, in a message
_locked_here: set[Path] = set()  # POSIX locks do not keep a process from taking its own lock twice


class ConfigError(ValueError):
    """A saved config is missing, cut, of another version, or not what it should be."""


class RunFolderError(ValueError):
    """A run folder cannot be made, is not one, or is in use."""


class RunFolder:
    """A locked run folder; leaving the `with` block unlocks it."""

    def __init__(self, path: Path):
        """Lock the existing folder `path`. Use `create` or `open`."""
        self.path = path
        self._lock = _Lock(path / "lock")

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], or_beside: bool = False) -> RunFolder:
        """Make the folder with `config`, plain JSON values, in it.

        Args:
            or_beside: take path-2, path-3, ... where the name is taken, by whomever and however lately.
        Raises:
            RunFolderError: if it exists and is not empty, cannot be made, or another process is making it.
            ConfigError: if `config` is not plain JSON.
        """
        data = _encode(config)
        try:
            if or_beside:
                path = claimed(path)
            path.mkdir(parents=True, exist_ok=True)
            _require_empty(path)
            return cls._fill(path, data)
        except OSError as error:
            raise RunFolderError(f"run folder {path} cannot be made: {error.strerror or error}") from error

    @classmethod
    def _fill(cls, path: Path, data: bytes) -> RunFolder:
        folder = cls(path)
        try:
            _clear(path)
            write_atomically(path / "config.json", data)  # first: from here on it can be resumed
            folder.checkpoints.mkdir()
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Lock an existing run's folder in order to resume it.

        Raises:
            ConfigError: if its config.json is missing or refused.
            RunFolderError: if it cannot be written to or another process has it.
        """
        cls.read_config(path)
        try:
            folder = cls(path)
            try:
                remove_unfinished(path)
            except BaseException:
                folder.close()
                raise
        except OSError as error:
            raise RunFolderError(f"run folder {path} must be writable: {error.strerror or error}") from error
        return folder

    def copy(self, path: Path) -> RunFolder:
        """Make the new folder `path` a copy of this run, to go on there and leave this one as it is.

        Raises:
            RunFolderError: as `create`, and if `path` lies in this folder.
        """
        if self.path.resolve() in path.resolve().parents:
            raise RunFolderError(f"run folder {path} must not lie in {self.path}, which is to be copied to it")
        try:
            path.mkdir(parents=True, exist_ok=True)
            _require_empty(path)
            return self._copy(path)
        except OSError as error:
            raise RunFolderError(f"run folder {path} cannot be made: {error.strerror or error}") from error

    def _copy(self, path: Path) -> RunFolder:
        folder = RunFolder(path)
        try:
            _clear(path)
            shutil.copyfile(self.path / "config.json", path / UNFINISHED)
            for part in (self.path / name for name in PARTS):
                if part.is_dir():
                    shutil.copytree(part, path / part.name)
                elif part.exists():
                    shutil.copyfile(part, path / part.name)
            os.replace(path / UNFINISHED, path / "config.json")  # last: before, the copy is not whole
        except BaseException:
            folder.close()
            raise
        return folder

    @staticmethod
    def require_new(path: Path) -> None:
        """
        Raises:
            RunFolderError: if a run cannot be created at `path` because something is there.
        """
        if path.is_dir():
            _require_empty(path)
        elif path.exists():
            raise RunFolderError(f"run folder {path} cannot be made: a file of that name exists")

    def write_config(self, config: dict[str, Any]) -> None:
        """Replace the saved settings, for a run that goes on with others."""
        write_atomically(self.path / "config.json", _encode(config))

    @staticmethod
    def read_config(path: Path) -> tuple[int, dict[str, Any]]:
        """The format version and the config that the run in folder `path` was made with.

        Raises:
            ConfigError: if it is missing, cut, of another format version, or not an object.
        """
        version, saved = read_settings(path / "config.json", "run folder")
        return version, saved["config"]

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_settings(file: Path, kind: str) -> tuple[int, dict[str, Any]]:
    """The format version of a file with settings and all that it holds, "config" among it.

    Args:
        kind: the kind of folder that has such a file, for messages.
    Raises:
        ConfigError: if it is missing, cut, of another format version, or not an object.
    """
    try:
        saved = json.loads(file.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(_no_such(kind, file, error)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is cut or not JSON ({error})") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise ConfigError(f"{file} must hold an object with an object 'config'")
    version = saved.get("format_version")
    if type(version) is not int or version not in KNOWN_VERSIONS:
        found = reprlib.repr(version)
        raise ConfigError(f"{file} must have format_version {FORMAT_VERSION} or an earlier one, got {found}")
    return version, saved


def _no_such(kind: str, file: Path, error: OSError) -> str:
    """A sentence on a folder whose file with settings cannot be read, with the folders in it that have such a file."""
    folder = file.parent
    if not folder.exists():
        reason = "does not exist"
    elif not folder.is_dir():
        reason = "is a file"
    elif not file.exists():
        reason = f"has no {file.name}"
    else:
        reason = f"has a {file.name} that cannot be read ({error.strerror or error})"
    inside = sorted(str(each.parent) for each in folder.glob(f"*/{file.name}"))[:MOST_NAMED]  # an experiment's runs
    such = f", such as {', '.join(inside)}" if inside else ""
    return f"{folder} is no {kind}, because it {reason}: name one that training has made{such}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _encode(config: dict[str, Any]) -> bytes:
    try:
        text = json.dumps({"format_version": FORMAT_VERSION, "config": config}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a config must be plain JSON values ({error})") from error
    return f"{text}\n".encode()


def claimed(path: Path) -> Path:
    """Make `path`, or path-2, path-3, ..., as a folder that nobody else has made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([path.name], (f"{path.name}-{number}" for number in itertools.count(2)))
    for each in map(path.with_name, names):
        try:
            each.mkdir()
        except FileExistsError:
            continue
        return each
    raise AssertionError("numbers do not end")


def _require_empty(path: Path) -> None:
    """Refuse a folder with anything in it but what a process killed while making it may have left."""
    found = {entry.name for entry in path.iterdir()} - {"lock"}
    left = {UNFINISHED, *PARTS} if UNFINISHED in found else set()
    if found - left:
        resume = f"go on with it by --resume {path}, or " if "config.json" in found else ""
        raise RunFolderError(
            f"run folder {path} must not exist or be empty, so that no run is overwritten: "
            f"{resume}choose another --output-dir"
        )


def _clear(path: Path) -> None:
    """Delete what a process killed while making the locked folder `path` has left of it."""
    _require_empty(path)  # nobody else came in between
    for part in (path / name for name in PARTS):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
    remove_unfinished(path)  # last: without it the rest would not be known for what it is


class _Lock:
    """A lock file for this process alone: the lock ends with the process, even if forked workers live on."""

    def __init__(self, path: Path):
        self._path = path.resolve()
        if self._path in _locked_here:
            raise self._refusal()
        hold = self._held_on_windows if sys.platform == "win32" else self._held_on_posix
        self._let_go = hold(path)
        _locked_here.add(self._path)

    def _held_on_windows(self, path: Path) -> Callable[[], None]:
        """The lock; call what is returned to let go of it."""
        filelock = importlib.import_module("filelock")
        lock = filelock.FileLock(path, blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise self._refusal() from None
        return lock.release

    def _held_on_posix(self, path: Path) -> Callable[[], None]:
        """The same by lockf, not by filelock: its flock would outlive this process in workers that it has forked."""
        fcntl = importlib.import_module("fcntl")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):  # what POSIX says when another process has it
                    raise self._refusal() from None
                raise
            if self._is_current(descriptor):
                return functools.partial(os.close, descriptor)
            os.close(descriptor)  # its last holder deleted it between our two calls

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _refusal(self) -> RunFolderError:
        return RunFolderError(
            f"run folder {self._path.parent} must have one writer, but another process is running in it: "
            "wait for it, or stop it first"
        )

    def release(self) -> None:
        if self._path in _locked_here:
            if sys.platform == "win32":  # which deletes no file that is open
                self._let_go()
                with contextlib.suppress(PermissionError):  # another process has it by now
                    self._path.unlink(missing_ok=True)
            else:
                self._path.unlink(missing_ok=True)
                self._let_go()
            _locked_here.discard(self._path)
