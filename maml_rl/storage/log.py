"""The numbers of a run: metrics.csv, a row per iteration. If it is lost, TensorBoard's events can replace it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maml_rl.storage.atomic import sync_file, write_atomically
from maml_rl.storage.events import read_numbers

Row = Mapping[str, float]
_logger = logging.getLogger(__name__)


class LogError(ValueError):
    """metrics.csv cannot be written, or is not what this program wrote."""


class MetricsLog:
    """metrics.csv in a run folder, open for appending.

    Columns stand in the order in which they first came, "iteration" first, those of the clock last. Floats
    are written so that reading gives back the same number; a value that a row does not have is empty.
    All rows are kept in memory, so that a file that is deleted or altered while the run goes on is written anew.
    """

    def __init__(self, folder: Path, after: int):
        """Open the log of a run of `after` completed iterations; what was logged after those is cut.

        A metrics.csv that is missing is made from the events, with their seven digits.

        Raises:
            LogError: if rows up to `after` are missing or damaged, or the file cannot be written.
        """
        self._path = folder / "metrics.csv"
        try:
            if after and not self._path.exists():
                _logger.warning(f"{self._path} is missing: its rows are taken from tensorboard/, with seven digits")
            self._columns, self._lines = _saved_rows(folder, after)
            self._rewrite()
        except OSError as error:
            raise self._not_written(error) from error

    @property
    def last(self) -> dict[str, float]:
        """The last row; empty before the first."""
        if not self._lines:
            return {}
        fields = zip(self._columns, self._lines[-1], strict=True)
        return {name: _number(text) for name, text in fields if text}

    def rows(self) -> list[dict[str, float]]:
        """The numbers of each iteration, without the iteration's own number."""
        names = self._columns[1:]
        return [{name: float(text) for name, text in zip(names, line[1:], strict=True) if text} for line in self._lines]

    def append(self, metrics: Row, clock: Row) -> None:
        """Log one iteration. After that a kill cannot lose the row; for a power failure see `sync`.

        Args:
            metrics: "iteration" first; numbers that are equal for equal seeds.
            clock: seconds and rates.
        Raises:
            LogError: if it cannot be written, or a name is not fit for a column.
        """
        row = {**metrics, **clock}
        try:
            self._write_row(row, list(clock))
        except OSError as error:
            raise self._not_written(error) from error

    def sync(self) -> None:
        """Have all rows on the disk, as a checkpoint that counts on them must.

        Raises:
            LogError: if they cannot be written.
        """
        try:
            if self._is_altered():
                self._rewrite()
            else:
                sync_file(self._path)
        except OSError as error:
            raise self._not_written(error) from error

    def _write_row(self, row: Row, clock: list[str]) -> None:
        new = [name for name in row if name not in self._columns]
        self._lines.append([_text(row[name]) if name in row else "" for name in self._columns])
        if new:
            self._add_columns(new, clock)
            self._lines[-1] = [_text(row[name]) if name in row else "" for name in self._columns]
        if new or self._is_altered():
            self._rewrite()
            return
        with open(self._path, "ab") as file:
            self._size += file.write(_line(self._lines[-1]))

    def _is_altered(self) -> bool:
        """Whether somebody has deleted metrics.csv or written to it."""
        return not self._path.exists() or self._path.stat().st_size != self._size

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
        data = b"".join(map(_line, lines))
        write_atomically(self._path, data)
        self._size = len(data)

    def _not_written(self, error: OSError) -> LogError:
        return LogError(
            f"{self._path} cannot be written: {error.strerror or error}; "
            f"the last checkpoint is intact: put that right and go on with --resume {self._path.parent}"
        )


def require_rows(folder: Path, after: int) -> None:
    """Check that `MetricsLog(folder, after)` will find what it needs; changes nothing.

    Raises:
        LogError: if it will not.
    """
    try:
        _saved_rows(folder, after)
    except OSError as error:
        raise LogError(f"{folder / 'metrics.csv'} cannot be read: {error.strerror or error}") from error


def has_rows(folder: Path) -> bool:
    """Whether an iteration was ever logged in a run's folder."""
    path = folder / "metrics.csv"
    return (path.exists() and path.stat().st_size > 0) or bool(read_numbers(folder / "tensorboard"))


def read_metrics(run: Path) -> dict[str, NDArray[np.float64]]:
    """`read_table` of a run folder's metrics.csv; empty if it has none, as some that are shipped."""
    path = run / "metrics.csv"
    return read_table(path) if path.exists() else {}


def read_columns(path: Path, names: Sequence[str]) -> dict[str, dict[int, float]]:
    """For each of `names` that a metrics.csv has, its numbers by iteration.

    Raises:
        LogError: as `read_table`.
    """
    table = read_table(path)
    known = {name: ~np.isnan(table[name]) for name in names if name in table}
    return {
        name: dict(zip(table["iteration"][rows].astype(int).tolist(), table[name][rows].tolist(), strict=True))
        for name, rows in known.items()
    }


def read_table(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of a metrics.csv by name, one row for each iteration; nan where a column has no number.

    Raises:
        LogError: if it cannot be read, or is not what this program wrote.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = ["iteration", *(name for name in rows[0] if name != "iteration")] if rows else []
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise LogError(f"{path} must hold a row of numbers for each iteration ({error})") from error


def _line(fields: list[str]) -> bytes:
    return (",".join(fields) + "\n").encode()


def _text(value: float) -> str:
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _saved_rows(folder: Path, after: int) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of iterations 1 .. after, from metrics.csv or, if there is none, from the events."""
    if after and not (folder / "metrics.csv").exists():
        return _rows_of_events(folder, after)
    return _cut_rows(folder / "metrics.csv", after)


def _rows_of_events(folder: Path, after: int) -> tuple[list[str], list[list[str]]]:
    numbers = read_numbers(folder / "tensorboard")
    if not _covers(numbers, after):
        raise _refusal(folder / "metrics.csv", after, "it is missing")
    columns = ["iteration"]
    for step in range(1, after + 1):
        before = "iteration"
        for name in numbers[step]:  # in the order of the row, so a new column's place is behind the one before it
            if name not in columns:
                columns.insert(columns.index(before) + 1, name)
            before = name
    return columns, [
        [str(step), *(_single(numbers[step].get(name)) for name in columns[1:])] for step in range(1, after + 1)
    ]


def _single(value: float | None) -> str:
    """The shortest text of a number in single precision."""
    return "" if value is None else str(np.float32(value))


def _covers(numbers: Mapping[int, Row], after: int) -> bool:
    return all(step in numbers for step in range(1, after + 1))


def _refusal(path: Path, after: int, fault: str) -> LogError:
    if path.exists() and _covers(read_numbers(path.parent / "tensorboard"), after):
        other = "delete it and have its rows made from tensorboard/, with seven digits"
    else:
        other = f"start a new run from its parameters by --init-from {path.parent}"
    return LogError(
        f"{path} must hold the rows of iterations 1 to {after}, which the checkpoint has, but {fault}: "
        f"put the file back, or {other}"
    )


def _cut_rows(path: Path, after: int) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of iterations 1 .. after; columns that only later rows had are gone too."""
    try:
        text = path.read_bytes().decode() if path.exists() else ""
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is not text ({error})") from error
    lines = text.replace("\r\n", "\n").split("\n")[:-1]  # what follows the last line end is empty or half written
    header, *rows = [line.split(",") for line in lines[: after + 1]] or [[]]
    good = len(rows) == after and all(_is_row(row, i, len(header)) for i, row in enumerate(rows, start=1))
    if not good or (rows and not _is_header(header)):
        raise _refusal(path, after, "rows are missing or damaged")
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _is_header(names: list[str]) -> bool:
    return names[0] == "iteration" and len(set(names)) == len(names) and all(name == name.strip() for name in names)


def _is_row(row: list[str], iteration: int, width: int) -> bool:
    try:
        [float(text) for text in row if text]
    except ValueError:
        return False
    return len(row) == width and row[0] == str(iteration)
