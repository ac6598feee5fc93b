"""Process-wide settings before the first tensor: reproducible products, freed memory that stays in the process, and
which package `envs` is."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc malloc.h
_LARGEST = 2**31 - 1


def prepare_process() -> None:
    """Fix MKL's code path and keep freed memory in the process. Harmless if called twice or on other systems.

    Without the first, the last bits of a product depend on its shape and the thread count. Without the second, every
    large tensor is returned to the system when freed and faulted in again page by page when the next one is made. All
    threads share one arena: separate arenas consist of heaps of 64 MB, which return to the system when they are empty.
    """
    os.environ.setdefault("MKL_CBWR", "AVX2")
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
        libc.mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError, TypeError):
        pass  # not glibc: slower, not wrong
    find_own_environments()


OWN_ENVIRONMENTS = Path(__file__).resolve().parents[1] / "envs"


class _OwnEnvironments:
    """An import finder that puts this project's `envs` before any other; it takes the user's modules in itself."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "envs":
            return None
        return importlib.util.spec_from_file_location(
            name, OWN_ENVIRONMENTS / "__init__.py", submodule_search_locations=[str(OWN_ENVIRONMENTS)]
        )


def find_own_environments() -> None:
    """Let `import envs` mean this project's package, also where a user has a folder called envs/.

    Raises:
        ImportError: if a module of theirs that is imported already has the name of one of this project's.
    """
    if not (OWN_ENVIRONMENTS / "__init__.py").exists() or _OwnEnvironments in sys.meta_path:
        return
    sys.meta_path.insert(0, _OwnEnvironments)  # type: ignore[arg-type]
    present = sys.modules.get("envs")
    if present is None or (present.__file__ and Path(present.__file__).resolve().parent == OWN_ENVIRONMENTS):
        return
    theirs = [name for name in sys.modules if name.startswith("envs.")]
    own = {place.stem for place in OWN_ENVIRONMENTS.iterdir()}  # modules and rooms
    taken = [name for name in theirs if name.split(".")[1] in own]
    if taken:
        raise ImportError(
            f"{taken[0]} of your folder envs/ has the name of a module of this project: rename your folder, to my_envs "
            "for instance"
        )
    del sys.modules["envs"]  # the next import of it finds this project's, and theirs stay imported
