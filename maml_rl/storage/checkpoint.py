"""The checkpoints folder of a run: which checkpoint is the latest, which the best, which are kept.

    iteration-000123.safetensors, .json   after 123 completed iterations; see checkpoint_file
    latest                                text: the name to resume from, replaced after both files are on disk
    best                                  text: the name whose parameters earned the best score

A kill at any time leaves a folder to resume from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from maml_rl.storage.atomic import remove_unfinished, write_atomically
from maml_rl.storage.checkpoint_file import (
    FORMAT_VERSION,
    Checkpoint,
    CheckpointError,
    load,
    plain_state,
    read_bytes,
    save,
    stem,
    without,
    writing,
)

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "iterations_on_disk",
    "load",
    "load_best",
    "load_latest",
    "plain_state",
    "point",
    "prune",
    "rewind",
    "save",
    "stem",
    "without",
]

Pointer = Literal["latest", "best"]


def point(folder: Path, pointer: Pointer, iteration: int) -> None:
    """Make `latest` or `best` name the checkpoint of `iteration`, which must be on disk.

    Raises:
        CheckpointError: if it cannot be written; the pointer stays as it was.
    """
    with writing(folder / pointer):
        write_atomically(folder / pointer, f"{stem(iteration)}\n".encode())


def load_latest(folder: Path) -> Checkpoint:
    """Read the checkpoint that `folder`'s `latest` names.

    Raises:
        CheckpointError: if there is none or it is refused; an older good one is offered by name.
    """
    return _load_pointed(folder, "latest")


def load_best(folder: Path) -> Checkpoint:
    """Read the checkpoint that `folder`'s `best` names: the parameters that earned the best score.

    Raises:
        CheckpointError: if there is none or it is refused.
    """
    if (folder / "latest").exists() and not (folder / "best").exists():
        raise CheckpointError(f"{folder} has no best checkpoint, only the last one, as shipped runs have: take that")
    return _load_pointed(folder, "best")


def iterations_on_disk(folder: Path) -> list[int]:
    """Ascending iterations of which `folder` has a JSON file, good or not."""
    return _iterations(folder, ".json")


def _iterations(folder: Path, ending: str) -> list[int]:
    found = (re.fullmatch(r"iteration-(\d{6,})", path.stem) for path in folder.glob(f"iteration-*{ending}"))
    return sorted(int(match[1]) for match in found if match)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints and those that `latest` and `best` name.

    Raises:
        CheckpointError: if the folder cannot be written.
    """
    named = {_read_pointer(folder / name) for name in ("latest", "best") if (folder / name).exists()}
    for iteration in iterations_on_disk(folder)[:-keep]:
        if stem(iteration) not in named:
            _remove(folder, iteration)


def rewind(folder: Path, checkpoint: Checkpoint) -> None:
    """Make `folder` what it was when `checkpoint` was the latest: without later ones, `best` as it was then.

    If the best one of that time is gone, which happens only on going back by more than one checkpoint, there
    is no `best` until the run, repeated, finds its successor.

    Raises:
        CheckpointError: if the folder cannot be written.
    """
    best = checkpoint.counters.get("best_iteration")
    on_disk = iterations_on_disk(folder)
    with writing(folder / "best"):
        remove_unfinished(folder)
        if best in on_disk:
            point(folder, "best", int(best))
        else:
            (folder / "best").unlink(missing_ok=True)
    for iteration in {*on_disk, *_iterations(folder, ".safetensors")}:
        if iteration > checkpoint.iteration or iteration not in on_disk:
            _remove(folder, iteration)


def _remove(folder: Path, iteration: int) -> None:
    with writing(folder / stem(iteration)):
        for ending in (".json", ".safetensors"):  # the JSON first: without it the other is not a checkpoint
            (folder / f"{stem(iteration)}{ending}").unlink(missing_ok=True)


def _load_pointed(folder: Path, pointer: Pointer) -> Checkpoint:
    try:
        name = _read_pointer(folder / pointer)
        checkpoint = load(folder / name)
        if checkpoint.name != name:
            raise CheckpointError(f"checkpoint {folder / name} holds {checkpoint.name}: it was renamed")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_remedy(folder, pointer)}") from error
    return checkpoint


def _read_pointer(path: Path) -> str:
    text = read_bytes(path).decode("ascii", errors="replace").strip()
    if not re.fullmatch(r"iteration-\d{6,}", text):
        raise CheckpointError(f"{path} must hold a name like {stem(123)}, got {text[:40]!r}")
    return text


def _remedy(folder: Path, pointer: Pointer) -> str:
    """The end of a refusal: which checkpoint could be used instead."""
    good, use = next(_good(folder), None), "go on from there"
    if good is None:
        return "no good checkpoint is left there: put them back, or train a new run"
    if pointer == "best":
        best = good.counters.get("best_iteration")
        good, use = next((each for each in _good(folder) if each.iteration == best), good), "use it"
    return f"{good.name} is good: write that name into {folder / pointer} to {use}"


def _good(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints that can be read, newest first."""
    for iteration in reversed(iterations_on_disk(folder)):
        try:
            checkpoint = load(folder / stem(iteration))
        except CheckpointError:
            continue
        if checkpoint.iteration == iteration:
            yield checkpoint
