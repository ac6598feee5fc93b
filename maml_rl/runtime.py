"""All that is set for the whole process: reproducible products, freed memory that stays in the process, MuJoCo's
rendering backend, PyTorch's threads for one product, and which package `envs` is."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc malloc.h
_LARGEST = 2**31 - 1

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # variables

RENDERING_LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
"""Values of MUJOCO_GL on Linux with which MuJoCo can be imported only if one of these libraries is there."""

IMPORTABLE = (
    "disable", "disabled", "off", "false", "0", "enable", "enabled", "on", "true", "1", "glfw", "glx",
)  # fmt: skip
"""Further values of MUJOCO_GL, for which no library is looked up."""


def prepare_process() -> None:
    """Fix MKL's code path, keep freed memory in the process and let MuJoCo draw. Harmless if called twice or on other
    systems.

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
    _choose_rendering()
    find_own_environments()


def _choose_rendering() -> None:
    """Let MuJoCo draw without a display. It reads MUJOCO_GL when it is first imported, so this comes first.

    EGL is asked for only where its library is: MuJoCo cannot even be imported with a backend that is missing. If
    the user asks for a missing one, drawing is turned off, and an attempt to draw says so; all else needs no backend.
    """
    if sys.platform != "linux":
        return
    if asked := os.environ.get("MUJOCO_GL", "").strip().lower():
        if asked not in IMPORTABLE and not any(map(_is_library, RENDERING_LIBRARIES.get(asked, ()))):
            render_with("disabled")
    elif not any(map(os.environ.get, DISPLAYS)) and any(map(_is_library, RENDERING_LIBRARIES["egl"])):
        render_with("egl")


def render_with(backend: str) -> None:
    """Have MuJoCo draw with this backend, if it has yet to be imported."""
    os.environ["MUJOCO_GL"] = backend


def _is_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def product_threads(count: int) -> Iterator[None]:
    """Have PyTorch use `count` threads for each product; when the last of those that overlap ends, as many as before.

    A run has one: split over more, the last bits of a product would depend on their number.
    """
    torch = importlib.import_module("torch")  # takes a second, which --help need not wait for
    _threads_before.append(torch.get_num_threads())
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(_threads_before.pop())


_threads_before: list[int] = []


@contextlib.contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for processes that are started in here, then restore them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def keep_ray_quiet() -> None:
    """Have a Ray that starts later send no statistics and give no advice, unless the user has chosen otherwise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


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
