"""One checkpoint: tensors in a safetensors file, all else in a JSON file beside it, with the former's hash.

    NAME.safetensors   the learner's state
    NAME.json          format version, iteration, counters, hash, tensors, versions, commit, machine, time, own hash

Nothing is ever unpickled: loading runs no code from the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from maml_rl.storage.atomic import write_atomically
from maml_rl.storage.provenance import git_commit, machine, versions

FORMAT_VERSION = 2  # version 1 had no hash of the JSON itself; it is still read

NamedState = dict[str, Tensor]
"""A learner's state, its tensors by their places in it: "params/...", "adam/first", ..."""


class CheckpointError(ValueError):
    """A checkpoint cannot be written, or is refused; the message is one sentence with the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs in order to go on."""

    iteration: int  # number of completed iterations
    state: NamedState
    counters: dict[str, int | float]  # env_steps, best_score, best_iteration, wall_seconds, ...

    @property
    def name(self) -> str:
        return stem(self.iteration)


def stem(iteration: int) -> str:
    return f"iteration-{iteration:06d}"


def plain_state(state: NamedState) -> NamedState:
    """The same values, each in its own contiguous memory, as a loaded state has them.

    A trainer hands on this form: the last bits of a product may depend on how its operands lie in memory.
    """
    layout = torch.contiguous_format
    return {name: value.detach().clone(memory_format=layout) for name, value in state.items()}


def without(state: NamedState, prefixes: tuple[str, ...]) -> NamedState:
    """The same without the tensors whose names begin so."""
    return {name: value for name, value in state.items() if not name.startswith(prefixes)}


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` into `folder`; no pointer is moved.

    Raises:
        CheckpointError: if it cannot be written (disk full, folder read-only, ...); older ones stay.
    """
    state = {name: value.cpu() for name, value in plain_state(checkpoint.state).items()}
    data = safetensors.torch.save(state)
    about = {
        "format_version": FORMAT_VERSION,
        "iteration": checkpoint.iteration,
        "counters": checkpoint.counters,
        "sha256": hashlib.sha256(data).hexdigest(),
        "tensors": _describe(state),  # in the order of the state, which safetensors does not keep
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": machine(),
        "saved_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    about["sha256_of_json"] = hash_of_json(about)
    text = json.dumps(about, indent=1, allow_nan=False) + "\n"
    path = folder / checkpoint.name
    with writing(path):
        write_atomically(path.with_suffix(".safetensors"), data)
        write_atomically(path.with_suffix(".json"), text.encode())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write `path`, in a run's checkpoints folder, into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be written: {error.strerror or error}; the one before it is intact: "
            f"put that right and go on with --resume {path.parent.parent}"
        ) from error


def load(path: Path) -> Checkpoint:
    """Read one checkpoint, named by either of its files or without an ending; tensors come on the CPU.

    Raises:
        CheckpointError: if it is missing, cut, altered, of another format version, or no checkpoint at all.
    """
    if path.suffix in (".json", ".safetensors"):
        path = path.with_suffix("")
    about = read_about(path.with_name(f"{path.name}.json"))
    file = path.with_name(f"{path.name}.safetensors")
    state = _read_tensors(file, about["sha256"])
    found = {entry["name"]: entry for entry in _describe(state)}
    wanted = {entry["name"]: entry for entry in about["tensors"]}
    if found != wanted:
        raise CheckpointError(f"checkpoint {file} must hold the tensors that its JSON lists, but they differ")
    return Checkpoint(about["iteration"], {name: state[name] for name in wanted}, about["counters"])


def hash_of_json(about: dict[str, Any]) -> str:
    """The hash of all that a JSON file says beside it, whatever the order and the spacing."""
    rest = {name: value for name, value in about.items() if name != "sha256_of_json"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error.strerror or error}") from error


def read_about(path: Path) -> dict[str, Any]:
    """Read what a checkpoint's JSON file says: its hash, counters, commit, ...

    Raises:
        CheckpointError: if it is missing, cut, altered, or of another format version.
    """
    try:
        about = json.loads(read_bytes(path), parse_constant=_refuse_constant)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint file {path} is cut or not JSON ({error})") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"checkpoint file {path} must hold an object, got {type(about).__name__}")
    if about.get("format_version") not in (1, FORMAT_VERSION):
        raise CheckpointError(
            f"checkpoint file {path} must have format_version 1 or {FORMAT_VERSION}, "
            f"got {reprlib.repr(about.get('format_version'))}: another version or another program made it"
        )
    for entry, rule in _RULES.items():
        if entry not in about or not rule(about[entry]):
            raise CheckpointError(f"checkpoint file {path} lacks a valid entry {entry!r}")
    if about["format_version"] != 1 and about.get("sha256_of_json") != hash_of_json(about):
        raise CheckpointError(f"checkpoint file {path} does not match the hash that it states: it was altered")
    return about


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


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
    "counters": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "sha256": lambda value: isinstance(value, str),
    "tensors": _is_tensor_list,
}


def _read_tensors(path: Path, sha256: str) -> NamedState:
    data = read_bytes(path)
    if data.startswith((b"\x80", b"PK\x03\x04")) and data[8:9] != b"{":  # bare, or in torch.save's zip
        raise CheckpointError(f"checkpoint file {path} is a pickle, which could run code, not safetensors")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"checkpoint file {path} does not match the hash in its JSON: it was cut or altered")
    try:
        return plain_state(safetensors.torch.load(data))
    except Exception as error:  # whatever a file made by others makes the parser raise
        raise CheckpointError(f"checkpoint file {path} is not safetensors ({error})") from error


def _describe(state: NamedState) -> list[dict[str, Any]]:
    return [{"name": name, "shape": list(v.shape), "dtype": _dtype(v)} for name, v in state.items()]


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
