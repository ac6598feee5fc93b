"""Find a MuJoCo rendering backend (EGL, OSMesa) by trying each in a subprocess.

MuJoCo reads MUJOCO_GL when it is first imported, and a wrong value breaks that import or the first picture.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from maml_rl.runtime import render_with

BACKENDS = ("egl", "osmesa")  # the faster one first
NO_BACKEND = (
    "films of robots need a rendering backend, but neither EGL nor OSMesa draws here: "
    "install one (Debian: apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6)"
)
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    renderer.render()
"""


class DrawingError(ValueError):
    """Error on a machine that cannot draw robots; the message says what to install or set."""


def draws(backend: str | None) -> bool:
    """Check whether another process can draw with `backend`, None for MuJoCo's own choice."""
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    if backend is not None:
        environment["MUJOCO_GL"] = backend
    command = [sys.executable, "-P", "-c", _PROBE]  # -P: import nothing from the current directory
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


CanDraw = Callable[[str | None], bool]


def choose_backend(can_draw: CanDraw = draws) -> str | None:
    """Choose the backend that draws here and set MUJOCO_GL to it; None if none does. Call it before importing mujoco.

    The user's own MUJOCO_GL is tried first.

    Args:
        can_draw: tells whether another process can draw with a backend.
    """
    asked = os.environ.get("MUJOCO_GL")
    for backend in dict.fromkeys([*([asked] if asked else []), *BACKENDS]):
        if can_draw(backend):
            render_with(backend)
            return backend
    render_with("disabled")  # so that at least the import works
    return None


def drawing_backend() -> str | None:
    """The backend that a process which has imported mujoco already draws with, None if it cannot."""
    present = os.environ.get("MUJOCO_GL")
    return (present or "default") if draws(present) else None


def require_drawing(can_draw: CanDraw = draws) -> None:
    """Refuse where a process like this one, which has imported mujoco already, cannot draw.

    Args:
        can_draw: tells whether another process can draw with a backend.
    Raises:
        DrawingError: with what to install or set.
    """
    if can_draw(os.environ.get("MUJOCO_GL")):
        return
    other = next((backend for backend in BACKENDS if can_draw(backend)), None)
    raise DrawingError(
        NO_BACKEND
        if other is None
        else f"films of robots need a rendering backend that draws here: export MUJOCO_GL={other} does"
    )
