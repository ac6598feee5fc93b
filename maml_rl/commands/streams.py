"""Standard streams whose reader may go away: a closed pipe or terminal, a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast


class _Lenient:
    """A text stream that drops the text that cannot be written."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: OSError | None = None  # the last one

    def write(self, text: str) -> int:
        with self._noted():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._noted():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error


@contextlib.contextmanager
def lenient_streams() -> Iterator[None]:
    """Run a block, or a decorated function, to its end even if printing on stdout or stderr fails.

    If a full disk loses a result on stdout, a message on stderr says so; a reader that went away already knows.
    """
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        out, err = (_Lenient(stream or nowhere) for stream in before)
        sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
        try:
            yield
        finally:
            _finish(out, err)
            sys.stdout, sys.stderr = before


def _finish(out: _Lenient, err: _Lenient) -> None:
    out.flush()
    if out.error is not None and out.error.errno not in (errno.EPIPE, errno.EIO):
        print(f"warning: stdout could not be written: {out.error.strerror}", file=err)
    err.flush()
    for stream in (out, err):
        if stream.error is not None:
            _drain(stream)


def fail(error: Exception, status: int) -> int:
    """Say on stderr why a command ends; return its exit status."""
    for note in getattr(error.__cause__, "__notes__", []):  # the error in a worker
        print(note, file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)
    return status


def program(*arguments: object) -> str:
    """A shell command that runs this program, as it was called, with other arguments."""
    called = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    name = Path(called[-1]).name
    found = shutil.which(name)
    if len(called) == 2 and found is not None and os.path.exists(called[-1]) and os.path.samefile(found, called[-1]):
        called = [name]  # as the shell was asked for it
    return shlex.join([*called, *map(str, arguments)])


def _open_standard_descriptors() -> None:
    """Keep files that are opened later from taking the place of a standard stream that was closed at the start."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _drain(stream: _Lenient) -> None:
    """Discard the buffered text, so that the interpreter does not fail on it when it exits."""
    with contextlib.suppress(OSError):
        descriptor, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        stream.flush()
