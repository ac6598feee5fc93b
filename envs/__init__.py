"""Environments with tasks. Importing this package registers their ids with Gymnasium."""

import ctypes
import os
import pkgutil
import sys

import gymnasium

__path__[:] = pkgutil.extend_path(__path__, __name__)  # then the modules of a user's own folders called envs/

LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
"""Values of MUJOCO_GL on Linux with which MuJoCo can be imported only if one of these libraries is there."""

IMPORTABLE = (
    "disable", "disabled", "off", "false", "0", "enable", "enabled", "on", "true", "1", "glfw", "glx",
)  # fmt: skip
"""Further values of MUJOCO_GL, for which no library is looked up."""


def _choose_drawing() -> None:
    """Let MuJoCo draw without a display. It reads MUJOCO_GL when it is first imported, so this comes first.

    EGL is asked for only where its library is: MuJoCo cannot even be imported with a backend that is missing. If
    the user asks for a missing one, drawing is turned off, and an attempt to draw says so; all else needs no backend.
    """
    if sys.platform != "linux":
        return
    if asked := os.environ.get("MUJOCO_GL", "").strip().lower():
        if asked not in IMPORTABLE and not any(map(_is_library, LIBRARIES.get(asked, ()))):
            os.environ["MUJOCO_GL"] = "disabled"
    elif not any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY")) and any(map(_is_library, LIBRARIES["egl"])):
        os.environ["MUJOCO_GL"] = "egl"


def _is_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _register(name: str, module: str, body: str, **settings: str | int) -> None:
    """Register one id for `gymnasium.make` and `gymnasium.make_vec`.

    Without `max_episode_steps`: each environment keeps its own clock, set by `horizon`. Gymnasium's TimeLimit would
    cut a longer `horizon` short, in `make` but not in `make_vec`.
    """
    gymnasium.register(
        id=f"maml/{name}-v0",
        entry_point=f"envs.{module}:{body}Env",
        vector_entry_point=f"envs.{module}:{body}VectorEnv",
        kwargs=settings,
    )


METAWORLD_CLASSES = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press-topdown", "button-press-topdown-wall",
    "button-press", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn", "disassemble",
    "door-close", "door-lock", "door-open", "door-unlock", "hand-insert", "drawer-close", "drawer-open", "faucet-open",
    "faucet-close", "hammer", "handle-press-side", "handle-press", "handle-pull-side", "handle-pull", "lever-pull",
    "pick-place-wall", "pick-out-of-hole", "pick-place", "plate-slide", "plate-slide-side", "plate-slide-back",
    "plate-slide-back-side", "peg-insert-side", "peg-unplug-side", "soccer", "stick-push", "stick-pull", "push",
    "push-wall", "push-back", "reach", "reach-wall", "shelf-place", "sweep-into", "sweep", "window-open",
    "window-close",
)  # fmt: skip
"""Meta-World's classes, whose names there end in -v3: listed here so that the ids are known without importing it."""

_choose_drawing()
for _physics in ("rllab", "gym"):
    for _task in ("Vel", "Dir"):
        _register(f"HalfCheetah{_task}-{_physics}", "robots.half_cheetah", f"HalfCheetah{_task}", physics=_physics)
    for _task in ("Vel", "Dir", "Goal"):
        _register(f"Ant{_task}-{_physics}", "robots.ant", f"Ant{_task}", physics=_physics)
_register("Navigation2D", "toys.navigation", "Navigation2D")
_register("ML10", "metaworld", "MetaWorld", benchmark="ML10")
for _class in METAWORLD_CLASSES:
    _register(f"ML1-{_class}", "metaworld", "MetaWorld", benchmark=f"{_class}-v3")
for _num_arms in (5, 10, 50):
    _register(f"Bandit-K{_num_arms}", "toys.bandit", "BernoulliBandit", num_arms=_num_arms)
_register("TabularMDP", "toys.tabular_mdp", "TabularMDP")
