"""The numbers of a run: metrics.csv, a row per iteration, is the truth; TensorBoard events are the same for looking at."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from types import TracebackType

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from maml_rl.training.atomic import remove_unfinished, write_atomically

Row = Mapping[str, float]


class LogError(ValueError):
    """metrics.csv or the events cannot be written, or are not what this program wrote."""


class MetricsLog:
    """metrics.csv and tensorboard/ in a run folder, open for appending.

    Columns stand in the order in which they first came, those of the clock last, "iteration" first. Floats are
    written so that reading gives back the same number; a value that a row does not have is empty.
    """

    def __init__(self, folder: Path, after: int):
        """Open the log of a run of `after` completed iterations; what was logged after those is cut.

        Raises:
            LogError: if rows up to `after` are missing or damaged, or the files cannot be written.
        """
        self._path, self._events_folder = folder / "metrics.csv", folder / "tensorboard"
        try:
            self._columns, self._lines = _cut_rows(self._path, after)
            self._rewrite()
            _cut_events(self._events_folder, after)
            self._events = SummaryWriter(str(self._events_folder), purge_step=after + 1 if after else None)
        except OSError as error:
            raise self._not_written(error) from error

    @property
    def last(self) -> dict[str, float]:
        """The last row; empty before the first."""
        if not self._lines:
            return {}
        return {name: float(text) for name, text in zip(self._columns, self._lines[-1], strict=True) if text}

    def append(self, metrics: Row, clock: Row) -> None:
        """Log one iteration; the row is on disk when this returns.

        Args:
            metrics: "iteration" first; numbers that are equal for equal seeds.
            clock: seconds and rates.
        Raises:
            LogError: if it cannot be written, or a name is not fit for a column.
        """
        row = {**metrics, **clock}
        try:
            self._write_row(row, list(clock))
            iteration = int(row["iteration"])
            for name, value in row.items():
                if name != "iteration":
                    self._events.add_scalar(name, float(value), iteration)
            self._events.flush()
        except OSError as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        try:
            self._events.close()
        except OSError as error:
            raise self._not_written(error) from error

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except LogError:
            if error is None:  # else the first error tells more
                raise

    def _write_row(self, row: Row, clock: list[str]) -> None:
        new = [name for name in row if name not in self._columns]
        self._lines.append([_text(row[name]) if name in row else "" for name in self._columns])
        if new:
            self._add_columns(new, clock)
            self._lines[-1] = [_text(row[name]) if name in row else "" for name in self._columns]
            self._rewrite()
            return
        with open(self._path, "ab") as file:
            file.write(_line(self._lines[-1]))
            file.flush()
            os.fsync(file.fileno())

    def _add_columns(self, new: list[str], clock: list[str]) -> None:
        for name in new:
            if not name or set(name) & set(',"\r\n'):
                raise LogError(f"a metric's name must be without commas, quotes and line ends, got {name!r}")
        first_clock = next((i for i, name in enumerate(self._columns) if name in clock), len(self._columns))
        timeless = [name for name in new if name not in clock]
        order = [
            *self._columns[:first_clock],
            *timeless,
            *self._columns[first_clock:],
            *(name for name in new if name in clock),
        ]
        old = {name: i for i, name in enumerate(self._columns)}
        self._lines = [[line[old[name]] if name in old else "" for name in order] for line in self._lines]
        self._columns = order

    def _rewrite(self) -> None:
        lines = [self._columns, *self._lines] if self._columns else []
        write_atomically(self._path, b"".join(map(_line, lines)))

    def _not_written(self, error: OSError) -> LogError:
        return LogError(
            f"{self._path} or {self._events_folder.name}/ cannot be written: {error.strerror or error}; "
            f"the last checkpoint is intact: put that right and go on with --resume {self._path.parent}"
        )


def _line(fields: list[str]) -> bytes:
    return (",".join(fields) + "\n").encode()


def _text(value: float) -> str:
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))


def _cut_rows(path: Path, after: int) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of iterations 1 .. after; columns that only later rows had are gone too."""
    try:
        data = path.read_bytes() if path.exists() else b""
        header, *rows = [line.split(",") for line in data.decode().split("\n")[:-1]] or [[]]  # [-1]: unfinished
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is not text ({error})") from error
    rows = rows[:after]
    good = all(_is_row(row, i, len(header)) for i, row in enumerate(rows, start=1))
    if not good or len(rows) != after or (rows and (header[0] != "iteration" or len(set(header)) != len(header))):
        raise LogError(
            f"{path} must hold the rows of iterations 1 to {after} that the checkpoint has, but rows are missing or "
            "damaged: put the file back, or name an older checkpoint in checkpoints/latest"
        )
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _is_row(row: list[str], iteration: int, width: int) -> bool:
    try:
        [float(text) for text in row if text]
    except ValueError:
        return False
    return len(row) == width and row[0] == str(iteration)


def _cut_events(folder: Path, after: int) -> None:
    """Remove the events past iteration `after`, and a half-written one at a file's end."""
    folder.mkdir(exist_ok=True)
    remove_unfinished(folder)
    for path in sorted(folder.glob("events.out.tfevents.*")):
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
