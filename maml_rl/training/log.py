"""The numbers of a run: metrics.csv, a row per iteration, is the truth; TensorBoard events are a view."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import TracebackType

from maml_rl.training.atomic import sync_file, write_atomically
from maml_rl.training.events import EventFile, Film

Row = Mapping[str, float]


class LogError(ValueError):
    """metrics.csv or the events cannot be written, or are not what this program wrote."""


class MetricsLog:
    """metrics.csv and tensorboard/ in a run folder, open for appending.

    Columns stand in the order in which they first came, "iteration" first, those of the clock last. Floats
    are written so that reading gives back the same number; a value that a row does not have is empty.
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
            self._events = EventFile(self._events_folder, after)
        except OSError as error:
            raise self._not_written(error) from error

    @property
    def last(self) -> dict[str, float]:
        """The last row; empty before the first."""
        if not self._lines:
            return {}
        fields = zip(self._columns, self._lines[-1], strict=True)
        return {name: _number(text) for name, text in fields if text}

    def append(self, metrics: Row, clock: Row) -> None:
        """Log one iteration. A kill cannot take the row any more; for a power failure see `sync`.

        Args:
            metrics: "iteration" first; numbers that are equal for equal seeds.
            clock: seconds and rates.
        Raises:
            LogError: if it cannot be written, or a name is not fit for a column.
        """
        row = {**metrics, **clock}
        try:
            self._write_row(row, list(clock))
            self._events.append(int(row.pop("iteration")), row)
        except OSError as error:
            raise self._not_written(error) from error

    def append_film(self, iteration: int, film: Film) -> None:
        """Show a film at an iteration, in TensorBoard only.

        Raises:
            LogError: if it cannot be written.
        """
        try:
            self._events.append_film(iteration, "film", film)
        except OSError as error:
            raise self._not_written(error) from error

    def sync(self) -> None:
        """Have all rows on the disk, as a checkpoint that counts on them must.

        Raises:
            LogError: if they cannot be written.
        """
        try:
            sync_file(self._path)
        except OSError as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        try:
            self._events.close()
        except OSError as error:
            raise self._not_written(error) from error

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


def read_columns(path: Path, names: Sequence[str]) -> dict[str, dict[int, float]]:
    """For each of `names` that a metrics.csv has, its numbers by iteration.

    Raises:
        LogError: if it cannot be read, or is not what this program wrote.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            name: {int(row["iteration"]): float(row[name]) for row in rows if row[name]}
            for name in names
            if rows and name in rows[0]
        }
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


def _cut_rows(path: Path, after: int) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of iterations 1 .. after; columns that only later rows had are gone too."""
    try:
        text = path.read_bytes().decode() if path.exists() else ""
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is not text ({error})") from error
    lines = text.split("\n")[:-1]  # what follows the last line end is empty or half written
    header, *rows = [line.split(",") for line in lines[: after + 1]] or [[]]
    good = len(rows) == after and all(_is_row(row, i, len(header)) for i, row in enumerate(rows, start=1))
    if not good or (rows and (header[0] != "iteration" or len(set(header)) != len(header))):
        raise LogError(
            f"{path} must hold the rows of iterations 1 to {after}, which the checkpoint has, but rows are "
            "missing or damaged: put the file back, or name an older checkpoint in checkpoints/latest"
        )
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _is_row(row: list[str], iteration: int, width: int) -> bool:
    try:
        [float(text) for text in row if text]
    except ValueError:
        return False
    return len(row) == width and row[0] == str(iteration)
