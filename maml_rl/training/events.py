"""TensorBoard event files, written and cut without a thread: an error is raised where the number was logged.

torch.utils.tensorboard.SummaryWriter writes the same files from a thread of its own, which on a full disk
prints a traceback of its own, too.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from maml_rl.training.atomic import remove_unfinished, write_atomically


class Film(NamedTuple):
    """A moving picture, ready to be written."""

    gif: bytes
    height: int  # [pixels]
    width: int  # [pixels]


class EventFile:
    """A new event file in a folder of such files; flushed with every step."""

    def __init__(self, folder: Path, after: int):
        """Cut the events past step `after` from the folder's files, and begin another.

        Raises:
            OSError: if they cannot be written.
        """
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder)
        files = sorted(folder.glob("events.out.tfevents.*"))
        for path in files:
            _cut(path, after)
        # TensorBoard reads files in the order of their names: the time comes first.
        origin = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{len(files)}"
        self._file = open(folder / f"events.out.tfevents.{origin}", "wb")  # noqa: SIM115 - closed by `close`
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if after:  # a TensorBoard that has been running all the time drops what it knows of later steps
            restart = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=after + 1, session_log=restart))

    def append(self, step: int, row: Mapping[str, float]) -> None:
        """Write the numbers of one step; a number's name is its tag.

        Raises:
            OSError: if they cannot be written.
        """
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in row.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def append_film(self, step: int, tag: str, film: Film) -> None:
        """Write a film that TensorBoard shows among its images.

        Raises:
            OSError: if it cannot be written.
        """
        image = Summary.Image(height=film.height, width=film.width, colorspace=3, encoded_image_string=film.gif)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def _cut(path: Path, after: int) -> None:
    """Remove the events past step `after` from a file, and a half-written one at its end."""
    data = path.read_bytes()
    kept = b"".join(record for record, step in _records(data) if step <= after)
    if kept != data:
        write_atomically(path, kept)


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Whole records of an event file with their steps: length (8 bytes), its CRC (4), event, its CRC (4)."""
    start = 0
    while start + 16 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 16 + length
        if end > len(data):
            return
        try:
            event = Event.FromString(data[start + 12 : end - 4])
        except DecodeError:
            return
        yield data[start:end], event.step
        start = end
