"""Films and pictures of a report: those that lie in a run's folder, or new ones."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maml_rl.experiments.environments import make_film_environment, needs_backend
from maml_rl.experiments.gallery import FILMS, PICTURE_HEIGHT, PICTURE_WIDTH, PLOTS, Options, draw_all, show
from maml_rl.experiments.report.entries import Entry, as_tested
from maml_rl.experiments.runs import WhichCheckpoint, load_trained, to_be_read
from maml_rl.pictures.backend import drawing_backend, require_drawing
from maml_rl.pictures.report.blocks import Media

TITLES = {
    "adaptation.mp4": "One task before and after adaptation",
    "adaptation.gif": "One task before and after adaptation",
    "tasks.mp4": "Tasks from the least gain to the largest",
    "paths.png": "Paths in the plane",
    "curves.png": "Predicted functions",
    "episodes.png": "Episodes from the worst to the best",
    "reliability.png": "How often what was predicted came true",
}
"""Titles of pictures; others are called by their file."""

MOST_BYTES = 2_200_000
"""All films and pictures of a report together: in base64, beside plotly.js, they keep it under 8 MB."""

NUM_TASKS = 20
"""Fresh tasks that new pictures choose among."""


def found_media(entry: Entry) -> list[Media]:
    """The films and pictures that visualize has left in the folder of an entry's first run, or in `pictures` in it."""
    folder = entry.runs[0]
    return _media([folder / "pictures", folder])


def require_drawable(entry: Entry) -> None:
    """Refuse to film what this machine, or the environment, cannot draw.

    Raises:
        ValueError: with what to install or set.
    """
    if entry.config.kind != "reinforcement":
        return
    with contextlib.closing(make_film_environment(entry.config, 1, PICTURE_HEIGHT, PICTURE_WIDTH)) as env:
        if needs_backend(env):
            require_drawing()


def drawn_media(
    entry: Entry, seed: int, checkpoint: WhichCheckpoint, trusted: tuple[str, ...], data_root: str | None
) -> list[Media]:
    """New films and pictures of an entry's first run.

    Raises:
        ValueError: if the run has no checkpoint, or cannot be drawn.
        SamplingError: if an episode fails.
    """
    config = to_be_read(as_tested(entry.config, data_root), "cpu", 0, num_tasks=NUM_TASKS, seed=seed)
    trained = load_trained(entry.runs[0], config, checkpoint, trusted=trusted)
    with contextlib.closing(trained.built), tempfile.TemporaryDirectory() as folder:
        is_filmed = config.kind == "reinforcement"
        options = Options(3, is_filmed, drawing_backend() if is_filmed else None, None, curves=False)
        with contextlib.redirect_stdout(io.StringIO()):  # the paths of files that are gone at once
            draw_all(show(trained), entry.runs[0], Path(folder), options)
        return _media([Path(folder)])


def _media(folders: Sequence[Path]) -> list[Media]:
    """The films and pictures in folders, as many as fit; those of the report's own curves are not needed."""
    names = [name for name in (*FILMS, *PLOTS) if name not in ("learning_curve.png", "adaptation_curve.png")]
    found: dict[str, Media] = {}
    used = 0
    for name in ["adaptation.mp4", *(name for name in names if name != "adaptation.mp4")]:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None or (name == "adaptation.gif" and "adaptation.mp4" in found):
            continue
        size = path.stat().st_size
        if used + size <= MOST_BYTES:
            used += size
            title = TITLES.get(name, path.stem.replace("_", " "))
            found[name] = Media(path.read_bytes(), path.suffix, title)
    return list(found.values())
