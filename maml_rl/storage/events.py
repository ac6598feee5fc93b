"""TensorBoard event files, written and cut without a thread: an error is raised where the number was logged.

torch.utils.tensorboard.SummaryWriter writes the same files from its own thread, which on a full disk
prints its own traceback, too.

An event file is a row of records: length (8 bytes), its CRC (4), event, its CRC (4).
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import CRC_TABLE, masked_crc32c
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from maml_rl.storage.atomic import remove_unfinished, write_atomically

_logger = logging.getLogger(__name__)


class Film(NamedTuple):
    """A moving picture, ready to be written."""

    gif: bytes
    height: int  # [pixels]
    width: int  # [pixels]


class _Record(NamedTuple):
    """One record of an event file."""

    data: bytes
    step: int
    numbers: dict[str, float]  # by name; none in a film
    is_current: bool  # its tags are those of this version


def tag(name: str) -> str:
    """A number's tag, group/name: TensorBoard shows a group's curves together."""
    groups = {
        "clock": name.endswith(("_seconds", "_per_s")),
        "held_out": name.startswith("eval_"),
        "experience": name.startswith("env_steps"),
        "score": name.endswith(("_before", "_after")) and not name.startswith(INNER_WORKINGS),
        "spread": name.endswith(("_std", "_ci95")),
    }
    return f"{next((group for group, holds in groups.items() if holds), 'learning')}/{name}"


INNER_WORKINGS = ("surrogate_loss", "explained_variance", "entropy")
"""Beginnings of names of numbers before and after adaptation that are no scores."""


class EventFile:
    """A new event file in a folder of such files; flushed with every step."""

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, float]]):
        """Make the folder's files hold the numbers of `rows`, those of steps 1, 2, ..., and begin another file.

        Later events are cut. Numbers that are lost, with a damaged or deleted file, are written again, as are those
        that version 0.1 wrote without groups.

        Raises:
            OSError: if they cannot be written.
        """
        is_new = not folder.exists()  # the run had other trackers, or somebody deleted all
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder)
        files, after = _files(folder), len(rows)
        found = {path: [record for record in _records(path) if record.step <= after] for path in files}
        kept = {path: [record for record in records if record.is_current] for path, records in found.items()}
        lost, unwritten = (_lost((each for part in parts.values() for each in part), rows) for parts in (found, kept))
        # TensorBoard reads files in the order of their names: the time comes first.
        origin = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{len(files)}"
        self._file = open(folder / f"events.out.tfevents.{origin}", "wb")  # noqa: SIM115 - closed by `close`
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if lost and not is_new:
            _logger.warning(_loss(folder, lost))
        if unwritten:
            self._replace(kept, unwritten)
        else:
            for path, records in kept.items():
                _cut(path, records)
        if after:  # a TensorBoard that has been running all the time drops what it knows of later steps
            restart = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=after + 1, session_log=restart))

    def append(self, step: int, row: Mapping[str, float]) -> None:
        """Write the numbers of one step.

        Raises:
            OSError: if they cannot be written.
        """
        self._write(_event(step, row))

    def append_settings(self, settings: Mapping[str, bool | float | str]) -> None:
        """Write the settings that TensorBoard compares runs by, among its hyperparameters.

        Raises:
            OSError: if they cannot be written.
        """
        self._write(Event(wall_time=time.time(), summary=Summary.FromString(hparams_pb(settings).SerializeToString())))

    def append_film(self, step: int, film: Film) -> None:
        """Write a film that TensorBoard shows among its images.

        Raises:
            OSError: if it cannot be written.
        """
        image = Summary.Image(height=film.height, width=film.width, colorspace=3, encoded_image_string=film.gif)
        summary = Summary(value=[Summary.Value(tag="film", image=image)])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    @property
    def is_deleted(self) -> bool:
        """Whether somebody has deleted the file, so that what is written is lost."""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def close(self) -> None:
        self._file.close()

    def _replace(self, kept: Mapping[Path, list[_Record]], lost: Mapping[int, Mapping[str, float]]) -> None:
        """Write the old files' records and the lost numbers here in the order of their steps, and delete those files:
        appended, the lost ones would be drawn as a line back to them."""
        parts: list[tuple[int, bytes | Event]] = [(r.step, r.data) for records in kept.values() for r in records]
        parts += [(step, _event(step, numbers)) for step, numbers in lost.items()]
        for step, part in sorted(parts, key=lambda each: each[0]):
            if isinstance(part, Event):
                self._records.write(part.SerializeToString())
            elif step:  # before the first step stands only the file's version, which is written already
                self._file.write(part)
        self._file.flush()
        for path in kept:
            path.unlink()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def read_numbers(folder: Path) -> dict[int, dict[str, float]]:
    """The numbers in a folder of event files, by step and name; in single precision, as events have them."""
    found: dict[int, dict[str, float]] = {}
    for path in _files(folder):
        for record in _records(path):
            if record.numbers:
                found.setdefault(record.step, {}).update(record.numbers)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def _event(step: int, numbers: Mapping[str, float]) -> Event:
    values = [Summary.Value(tag=tag(name), simple_value=float(value)) for name, value in numbers.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def _lost(records: Iterable[_Record], rows: Sequence[Mapping[str, float]]) -> dict[int, dict[str, float]]:
    """The numbers of `rows` that the records lack, by step."""
    lacking = {step: dict(row) for step, row in enumerate(rows, start=1)}
    for record in records:
        for name in record.numbers:
            lacking.get(record.step, {}).pop(name, None)
    return {step: numbers for step, numbers in lacking.items() if numbers}


def _loss(folder: Path, lost: Mapping[int, Mapping[str, float]]) -> str:
    return (
        f"{folder} has lost numbers of {len(lost)} iterations, {min(lost)} to {max(lost)}: they are written again from "
        "metrics.csv; films that were lost with them are not"
    )


def _cut(path: Path, kept: Sequence[_Record]) -> None:
    """Leave only the records `kept` in a file."""
    data = b"".join(record.data for record in kept)
    if len(data) != path.stat().st_size:
        write_atomically(path, data)


def _records(path: Path) -> Iterator[_Record]:
    """The undamaged records of an event file."""
    frames = list(_frames(path))
    for frame, crc in zip(frames, _crcs([frame[12:-4] for frame in frames]), strict=True):
        event = _parse(frame[12:-4]) if frame[-4:] == crc else None
        if event is None:
            _logger.warning(f"{path} has a damaged event, which is left out")
        else:
            tags = {v.tag: v.simple_value for v in event.summary.value if v.HasField("simple_value")}
            numbers = {each.rpartition("/")[2]: value for each, value in tags.items()}
            yield _Record(frame, event.step, numbers, list(tags) == [*map(tag, numbers)])


def _frames(path: Path) -> Iterator[bytes]:
    """The whole records of an event file; behind a damaged length nothing can be found."""
    data, start = path.read_bytes(), 0
    while start + 16 <= len(data):
        head = data[start : start + 12]
        if _crcs([head[:8]]) != [head[8:]]:
            _logger.warning(f"{path} is damaged, and its last {len(data) - start} bytes are left out")
            return
        end = start + 16 + struct.unpack("<Q", head[:8])[0]
        if end > len(data):  # half written
            return
        yield data[start:end]
        start = end


def _parse(event: bytes) -> Event | None:
    try:
        return Event.FromString(event)
    except DecodeError:
        return None


def _crcs(pieces: Sequence[bytes]) -> list[bytes]:
    """The CRC of each piece. Many of one length, as rows have, are taken together: byte by byte, ten times as fast."""
    crcs = [b""] * len(pieces)
    of_length: dict[int, list[int]] = {}
    for index, piece in enumerate(pieces):
        of_length.setdefault(len(piece), []).append(index)
    for indices in of_length.values():
        alike = [pieces[index] for index in indices]
        found = _crcs_of_one_length(alike) if len(alike) >= 50 else map(masked_crc32c, alike)
        for index, crc in zip(indices, found, strict=True):
            crcs[index] = struct.pack("<I", crc)
    return crcs


def _crcs_of_one_length(pieces: Sequence[bytes]) -> list[int]:
    """`masked_crc32c` of each piece."""
    table = np.array(CRC_TABLE, np.uint32)
    crc = np.full(len(pieces), 0xFFFFFFFF, np.uint32)
    for column in np.frombuffer(b"".join(pieces), np.uint8).reshape(len(pieces), -1).T:
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)).tolist()
