"""The one folder that a run leaves: made once, never overwritten, written by one process at a time.

config.json     the settings      metrics.csv    a row per iteration
checkpoints/    see checkpoint    tensorboard/   the rows as events       lock    while a process writes
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import reprlib
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from maml_rl.training.atomic import SUFFIX, remove_unfinished, write_atomically

FORMAT_VERSION = 1
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
    def create(cls, path: Path, config: dict[str, Any]) -> RunFolder:
        """Make the folder with `config`, plain JSON values, in it.

        Raises:
            RunFolderError: if it exists and is not empty, cannot be made, or another process is making it.
            ConfigError: if `config` is not plain JSON.
        """
        data = _encode(config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _require_empty(path)
            return cls._fill(path, data)
        except OSError as error:
            raise RunFolderError(f"run folder {path} cannot be made: {error.strerror or error}") from error

    @classmethod
    def _fill(cls, path: Path, data: bytes) -> RunFolder:
        folder = cls(path)
        try:
            _require_empty(path)  # nobody else came in between
            remove_unfinished(path)
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
                folder.checkpoints.mkdir(exist_ok=True)
                remove_unfinished(path)
            except BaseException:
                folder.close()
                raise
        except OSError as error:
            raise RunFolderError(f"run folder {path} must be writable: {error.strerror or error}") from error
        return folder

    @classmethod
    def copy(cls, source: Path, path: Path) -> RunFolder:
        """A copy of the run in `source` as the new folder `path`, to go on there and leave the first as it is.

        Raises:
            ConfigError, RunFolderError: as `open` and `create`.
        """
        with cls.open(source):
            try:
                path.mkdir(parents=True, exist_ok=True)
                _require_empty(path)
                shutil.copytree(source, path, ignore=shutil.ignore_patterns("lock"), dirs_exist_ok=True)
            except OSError as error:
                raise RunFolderError(f"run folder {path} cannot be made: {error.strerror or error}") from error
        return cls.open(path)

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
    def read_config(path: Path) -> dict[str, Any]:
        """The config that the run in folder `path` was made with.

        Raises:
            ConfigError: if it is missing, cut, of another format version, or not an object.
        """
        file = path / "config.json"
        try:
            saved = json.loads(file.read_bytes(), parse_constant=_refuse_constant)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"{file} cannot be read, so {path} is no run folder: {reason}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{file} is cut or not JSON ({error})") from error
        if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
            raise ConfigError(f"{file} must hold an object with an object 'config'")
        if saved.get("format_version") != FORMAT_VERSION:
            found = reprlib.repr(saved.get("format_version"))
            raise ConfigError(f"{file} must have format_version {FORMAT_VERSION}, got {found}")
        return saved["config"]

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _encode(config: dict[str, Any]) -> bytes:
    try:
        text = json.dumps({"format_version": FORMAT_VERSION, "config": config}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a config must be plain JSON values ({error})") from error
    return f"{text}\n".encode()


def _require_empty(path: Path) -> None:
    """Refuse a folder with anything in it but what a process killed while making it may have left."""
    if {entry.name for entry in path.iterdir()} - {"lock", f"config.json{SUFFIX}"}:
        raise RunFolderError(
            f"run folder {path} must not exist or be empty, so that no run is overwritten: "
            f"go on with it by --resume {path}, or choose another --output-dir"
        )


class _Lock:
    """A lock file for this process alone: the lock ends with the process, even if forked workers live on."""

    def __init__(self, path: Path):
        self._path = path.resolve()
        if self._path in _locked_here:
            raise self._refusal()
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
                break
            os.close(descriptor)  # its last holder deleted it between our two calls
        self._descriptor = descriptor
        _locked_here.add(self._path)

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
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            _locked_here.discard(self._path)
