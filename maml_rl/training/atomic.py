"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
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


def sync_file(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left half written in `folder` (not below it)."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
