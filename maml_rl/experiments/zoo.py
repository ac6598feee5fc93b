"""The model zoo: trained runs by name, each with its card. Small ones come with the package, big ones are fetched.

A run of the zoo is a run folder without what only resuming needs: its last checkpoint, settings, and a few dozen rows
of its metrics.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maml_rl.storage.cache import cache_folder, fetched

PREFIX = "zoo:"
FOLDER = Path(__file__).parents[1] / "zoo"
RELEASE: str | None = None
"""Address of the folder with the big runs' archives; None until a release holds them. $MAML_RL_ZOO names another."""


class ZooError(ValueError):
    """There is no run of that name in the zoo, or it cannot be fetched."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """The zip file of a run that does not come with the package."""

    sha256: str
    size: int  # [bytes]


@dataclasses.dataclass(frozen=True)
class Card:
    """All that a user should know about a trained run."""

    name: str
    task: str
    score: str  # the published one in brackets
    details: str  # of the task
    learner: str
    seeds: str
    scores: str  # all, beside the published ones
    command: str  # that trained it
    commit: str
    licence: str
    source: str  # where its raw numbers are
    archive: Archive | None = None  # None: it comes with the package


def cards() -> dict[str, Card]:
    """The cards of all runs by name."""
    saved = json.loads((FOLDER / "cards.json").read_text(encoding="utf-8"))
    return {name: _card(name, entries) for name, entries in saved.items()}


def card(name: str) -> Card:
    """
    Raises:
        ZooError: if there is no run of that name.
    """
    known = cards()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "maml-rl zoo lists all"
        raise ZooError(f"the zoo has no run {name!r}: {hint}")
    return known[name]


def resolved(run: str | Path) -> Path:
    """The folder of a run: `run` itself or, for zoo:NAME, that of the zoo, which is fetched if need be.

    Raises:
        ZooError: if there is none of that name, or it cannot be fetched.
    """
    name = str(run)
    return _folder(card(name.removeprefix(PREFIX))) if name.startswith(PREFIX) else Path(run)


def name_of(folder: Path) -> str | None:
    """The name of the zoo's run that lies in a folder, None if it is none of the zoo's."""
    return next((name for name, each in cards().items() if _place(each).resolve() == folder.resolve()), None)


def _card(name: str, entries: Mapping[str, Any]) -> Card:
    archive = entries.get("archive")
    return Card(name=name, **{**entries, "archive": archive and Archive(**archive)})


def _place(of: Card) -> Path:
    """Where a run lies, or will once it is fetched."""
    if of.archive is None:
        return FOLDER / of.name
    return cache_folder() / "zoo" / f"{of.name}-{of.archive.sha256[:12]}"


def _folder(of: Card) -> Path:
    folder = _place(of)
    if of.archive is not None and not folder.exists():
        _unpack(_fetched(of, of.archive), folder)
    return folder


def _fetched(of: Card, archive: Archive) -> Path:
    base = os.environ.get("MAML_RL_ZOO") or RELEASE
    if not base:
        raise ZooError(
            f"zoo:{of.name} is an asset of a release that does not exist yet: name the address of a folder that holds "
            f"{of.name}.zip by MAML_RL_ZOO, or train it by its command, which maml-rl zoo {of.name} shows"
        )
    address = f"{base.rstrip('/')}/{of.name}.zip"
    try:
        return fetched(address, cache_folder() / "zoo" / f"{of.name}.zip", f"sha256:{archive.sha256}")
    except OSError as error:
        raise ZooError(
            f"zoo:{of.name} cannot be fetched from {address} ({error}): try again, name another address by "
            f"MAML_RL_ZOO, or train it by its command, which maml-rl zoo {of.name} shows"
        ) from error


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive to a folder that is there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        whole = Path(place) / "run"
        shutil.unpack_archive(archive, whole)
        try:
            os.replace(whole, folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    archive.unlink(missing_ok=True)
