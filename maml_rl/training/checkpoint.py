"""Checkpoints: tensors in a safetensors file, all else in a JSON file beside it that carries the first one's hash.

    checkpoints/iteration-000123.safetensors   the learner's state after 123 completed iterations
    checkpoints/iteration-000123.json          format version, counters, hash, tensor names, versions
    checkpoints/latest                         text: the name to resume from, replaced after both files are on disk
    checkpoints/best                           text: the name whose parameters earned the best score

Nothing is ever unpickled: loading runs no code from the file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor

from maml_rl.core.protocols import State
from maml_rl.training.atomic import remove_unfinished, write_atomically

FORMAT_VERSION = 1
Pointer = Literal["latest", "best"]
_PACKAGES = ("maml_rl", "torch", "numpy", "mujoco", "gymnasium", "safetensors")


class CheckpointError(ValueError):
    """A checkpoint cannot be written, or one is refused; the message is one sentence with the reason and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs in order to go on."""

    iteration: int  # number of completed iterations
    state: State
    counters: dict[str, int | float]  # env_steps, best_score, best_iteration, wall_seconds, ...

    @property
    def name(self) -> str:
        return stem(self.iteration)


def stem(iteration: int) -> str:
    return f"iteration-{iteration:06d}"


def plain_state(state: State) -> State:
    """The same values, each in contiguous memory of its own: what a loaded state looks like.

    A trainer hands on this form, because the last bits of a product may depend on how its operands lie in memory.
    """
    return {name: value.detach().contiguous().clone() for name, value in state.items()}


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` into `folder`; no pointer is moved.

    Raises:
        CheckpointError: if it cannot be written (disk full, folder read-only, ...); older checkpoints stay as they are.
    """
    state = {name: value.cpu() for name, value in plain_state(checkpoint.state).items()}
    data = safetensors.torch.save(state)
    about = {
        "format_version": FORMAT_VERSION,
        "iteration": checkpoint.iteration,
        "counters": checkpoint.counters,
        "sha256": hashlib.sha256(data).hexdigest(),
        "tensors": _describe(state),  # in the order of the state, which safetensors does not keep
        "versions": _versions(),
        "git_commit": _git_commit(),
        "saved_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    text = json.dumps(about, indent=1, allow_nan=False) + "\n"
    path = folder / checkpoint.name
    try:
        write_atomically(path.with_suffix(".safetensors"), data)
        write_atomically(path.with_suffix(".json"), text.encode())
    except OSError as error:
        raise _not_written(path, error) from error


def point(folder: Path, pointer: Pointer, iteration: int) -> None:
    """Make `latest` or `best` name the checkpoint of `iteration`, which must be on disk.

    Raises:
        CheckpointError: if it cannot be written; the pointer stays as it was.
    """
    try:
        write_atomically(folder / pointer, f"{stem(iteration)}\n".encode())
    except OSError as error:
        raise _not_written(folder / pointer, error) from error


def load(path: Path) -> Checkpoint:
    """Read one checkpoint, named by either of its files or without an ending; tensors come on the CPU.

    Raises:
        CheckpointError: if it is missing, cut, altered, of another format version, or no checkpoint at all.
    """
    path = path.with_suffix("")
    about = _read_about(path.with_suffix(".json"))
    file = path.with_suffix(".safetensors")
    state = _read_tensors(file, about["sha256"])
    found = {entry["name"]: entry for entry in _describe(state)}
    wanted = {entry["name"]: entry for entry in about["tensors"]}
    if found != wanted:
        raise CheckpointError(f"checkpoint {file} must hold the tensors that its JSON lists, but they differ")
    return Checkpoint(about["iteration"], {name: state[name] for name in wanted}, about["counters"])


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
    return _load_pointed(folder, "best")


def iterations_on_disk(folder: Path) -> list[int]:
    """Ascending iterations of which `folder` has a JSON file, good or not."""
    found = (re.fullmatch(r"iteration-(\d{6,})", path.stem) for path in folder.glob("iteration-*.json"))
    return sorted(int(match[1]) for match in found if match)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints and those that `latest` and `best` name."""
    named = {_read_pointer(folder / name) for name in ("latest", "best") if (folder / name).exists()}
    for iteration in iterations_on_disk(folder)[:-keep]:
        if stem(iteration) not in named:
            _remove(folder, iteration)


def rewind(folder: Path, checkpoint: Checkpoint) -> None:
    """Make `folder` what it was when `checkpoint` was the latest: later ones go, `best` names what was best then.

    A best one of that time which is gone (only when going back by more than one checkpoint) leaves no `best` until the
    run, repeated, finds its successor.
    """
    remove_unfinished(folder)
    best = checkpoint.counters.get("best_iteration")
    if best is not None and (folder / f"{stem(int(best))}.json").exists():
        point(folder, "best", int(best))
    else:
        (folder / "best").unlink(missing_ok=True)
    for iteration in iterations_on_disk(folder):
        if iteration > checkpoint.iteration:
            _remove(folder, iteration)


def _remove(folder: Path, iteration: int) -> None:
    for ending in (".json", ".safetensors"):  # the JSON first: without it the other is not a checkpoint
        (folder / f"{stem(iteration)}{ending}").unlink(missing_ok=True)


def _load_pointed(folder: Path, pointer: Pointer) -> Checkpoint:
    try:
        return load(folder / _read_pointer(folder / pointer))
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_offer(folder)}") from error


def _read_pointer(path: Path) -> str:
    text = _read_bytes(path).decode("ascii", errors="replace").strip()
    if not re.fullmatch(r"iteration-\d{6,}", text):
        raise CheckpointError(f"{path} must hold a name like {stem(123)}, got {text[:40]!r}")
    return text


def _offer(folder: Path) -> str:
    """The end of a refusal: which checkpoint could be used instead."""
    for iteration in reversed(iterations_on_disk(folder)):
        try:
            load(folder / stem(iteration))
        except CheckpointError:
            continue
        return f"; {stem(iteration)} is good: write that name into {folder / 'latest'} to go on from there"
    return "; no good checkpoint is left there"


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error.strerror or error}") from error


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(_read_bytes(path), parse_constant=_refuse_constant)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint file {path} is cut or not JSON ({error})") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"checkpoint file {path} must hold an object, got {type(about).__name__}")
    if about.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint file {path} must have format_version {FORMAT_VERSION}, got {about.get('format_version')!r}: "
            "it was made by another version or another program"
        )
    for entry, rule in _RULES.items():
        if entry not in about or not rule(about[entry]):
            raise CheckpointError(f"checkpoint file {path} lacks a valid entry {entry!r}")
    if stem(about["iteration"]) != path.stem:
        raise CheckpointError(f"checkpoint file {path} is of iteration {about['iteration']}: it was renamed")
    return about


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_tensor_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and entry.keys() == {"name", "shape", "dtype"}
        and isinstance(entry["name"], str)
        and isinstance(entry["dtype"], str)
        and isinstance(entry["shape"], list)
        and all(_is_count(size) for size in entry["shape"])
        for entry in value
    )


_RULES: dict[str, Callable[[Any], bool]] = {
    "iteration": _is_count,
    "counters": lambda value: isinstance(value, dict) and all(type(v) in (int, float) for v in value.values()),
    "sha256": lambda value: isinstance(value, str),
    "tensors": _is_tensor_list,
}


def _read_tensors(path: Path, sha256: str) -> State:
    data = _read_bytes(path)
    if data.startswith((b"\x80", b"PK\x03\x04")) and data[8:9] != b"{":  # a pickle, bare or as torch.save wraps it
        raise CheckpointError(f"checkpoint file {path} is a pickle, which could run code when loaded, not safetensors")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"checkpoint file {path} does not have the hash in its JSON: it was cut or altered")
    try:
        return plain_state(safetensors.torch.load(data))
    except Exception as error:  # whatever a file made by others makes the parser raise
        raise CheckpointError(f"checkpoint file {path} is not safetensors ({error})") from error


def _describe(state: State) -> list[dict[str, Any]]:
    return [{"name": name, "shape": list(v.shape), "dtype": _dtype(v)} for name, v in state.items()]


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _not_written(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} cannot be written: {error.strerror or error}; the one before it is intact: "
        f"put that right and go on with --resume {path.parent.parent}"
    )


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _git_commit() -> str | None:
    """The commit of the source tree that this file is in, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
