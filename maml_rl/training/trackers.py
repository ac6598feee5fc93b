"""Trackers: callbacks that show a run's numbers in TensorBoard, Weights & Biases or trackio."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from maml_rl.storage.events import EventFile, tag
from maml_rl.training.callbacks import Callback, IterationReport, Start, TrainingResult

Tracker = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "maml_rl"
"""Project of the runs in Weights & Biases, unless WANDB_PROJECT names another, and in trackio."""


def make_trackers(names: Iterable[Tracker]) -> tuple[Callback, ...]:
    """The trackers of these names, each once.

    Raises:
        ValueError: if there is none of a name, or its package is not installed.
    """
    kinds: dict[str, type[Callback]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
    wanted = dict.fromkeys(names)
    for name in wanted:
        if name not in kinds:
            raise ValueError(f"track must be one of {', '.join(get_args(Tracker))}, got {name!r}")
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise ValueError(f"track {name} needs the package {name}, which is not installed: pip install {name}")
    return tuple(kinds[name]() for name in wanted)


def flat(settings: Mapping[str, Any], path: str = "") -> dict[str, bool | float | str]:
    """Nested settings by their dotted paths. A list becomes its text, and what is unset is left out."""
    found: dict[str, bool | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}{name}.")
        elif value is not None:
            found[f"{path}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


class TensorBoard(Callback):
    """Event files in the run's folder. Numbers that were lost there are written again from metrics.csv."""

    def on_start(self, start: Start) -> None:
        self._start = start
        self._open(start.iteration)

    def on_iteration(self, report: IterationReport) -> None:
        if self._file.is_deleted:
            self._file.close()
            self._open(report.iteration - 1)
        self._file.append(report.iteration, report.row)
        if report.film is not None:
            self._file.append_film(report.iteration, report.film)

    def on_end(self, result: TrainingResult | None) -> None:
        self._file.close()

    def _open(self, after: int) -> None:
        self._file = EventFile(self._start.folder / "tensorboard", self._start.rows()[:after])
        self._file.append_settings(flat(self._start.settings))


class WeightsAndBiases(Callback):
    """A run of Weights & Biases, which a resumed run goes on with. WANDB_MODE=offline keeps it on this machine."""

    def on_start(self, start: Start) -> None:
        self._wandb = importlib.import_module("wandb")
        # its own folders, wandb/run-<time>-<id>, remember which run is to go on
        earlier = sorted((start.folder / "wandb").glob("*run-*-*"), key=lambda path: path.stat().st_mtime)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=start.folder.resolve().name,
            config=dict(start.settings),
            dir=start.folder,
            id=earlier[-1].name.rpartition("-")[2] if earlier and start.iteration else None,
            resume="allow",
            settings=self._wandb.Settings(console="off"),
        )
        for iteration, row in enumerate(start.rows(), start=1):
            if iteration >= self._run.step:  # not known there yet; an offline run knows none
                self._run.log(_tagged(row), step=iteration)

    def on_iteration(self, report: IterationReport) -> None:
        film = {}
        if report.film is not None:
            film["film"] = self._wandb.Video(io.BytesIO(report.film.gif), format="gif")
        self._run.log(_tagged(report.row) | film, step=report.iteration)

    def on_end(self, result: TrainingResult | None) -> None:
        self._run.finish(exit_code=1 if result is None else 0)


class Trackio(Callback):
    """A run of trackio, on this machine unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names another place."""

    def on_start(self, start: Start) -> None:
        self._trackio = importlib.import_module("trackio")
        place = start.folder.resolve()
        name = f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:6]}"  # folders of one name differ
        if start.iteration and self._is_resumed(name, start):
            return
        self._run = self._init(name, start, "never")
        for iteration, row in enumerate(start.rows(), start=1):
            self._run.log(_tagged(row), step=iteration)

    def on_iteration(self, report: IterationReport) -> None:
        if report.film is None:
            self._run.log(_tagged(report.row), step=report.iteration)
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "film.gif"
            file.write_bytes(report.film.gif)
            film = {"film": self._trackio.Video(file, format="gif")}
            self._run.log(_tagged(report.row) | film, step=report.iteration)  # copies the file

    def on_end(self, result: TrainingResult | None) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._trackio.finish()  # its own `finish` forgets the run, which would be finished once more at exit

    def _is_resumed(self, name: str, start: Start) -> bool:
        try:
            self._run = self._init(name, start, "must")
        except ValueError:  # it was not tracked so far
            return False
        return True

    def _init(self, name: str, start: Start, resume: str) -> Any:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the run's result
            return self._trackio.init(
                project=PROJECT,
                name=name,
                config=dict(start.settings),
                resume=resume,
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )


def _tagged(row: Mapping[str, float]) -> dict[str, Any]:
    return {tag(name): value for name, value in row.items()}
