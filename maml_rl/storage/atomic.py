"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path

SUFFIX = ".tmp"
"""Ends the name of a file that is being written. A run folder has one writer, so the name may be fixed."""


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` into `path`: after a crash at any moment the file has its old content or the new one.

    Raises:
        OSError: if it cannot be written; the old content stays, and nothing is left beside it.
    """
    temporary = path.with_name(path.name + SUFFIX)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_file(path.parent)


def require_writable(folder: Path, *names: str) -> None:
    """Make sure, before hours of computing, that files of these names can be written into `folder`, which may be new.

    Raises:
        ValueError: if they cannot.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        for name in names:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
        with tempfile.NamedTemporaryFile(dir=existing, prefix=max(names, key=len)) as file:
            file.write(b"\n")  # an empty file fits on a full disk, too
    except OSError as error:
        raise ValueError(
            f"output must lie in a folder that can be written, but {folder} cannot: {error.strerror or error}; "
            "choose another"
        ) from error


def sync_file(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure."""
    if sys.platform == "win32" and path.is_dir():
        return  # cannot be opened there, and need not: a name is on the disk with its file
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left half written in `folder` (not below it)."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
