"""Worlds with tasks. Importing this package registers their ids with Gymnasium."""

import ctypes
import os
import sys

import gymnasium


def _choose_drawing() -> None:
    """Let MuJoCo draw without a display. It reads MUJOCO_GL when it is first imported, so this comes first.

    EGL is asked for only where its library is: MuJoCo cannot even be imported with an EGL that is missing.
    """
    if sys.platform != "linux" or any(os.environ.get(v) for v in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")):
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return
    os.environ["MUJOCO_GL"] = "egl"


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


_choose_drawing()
for _physics in ("rllab", "gym"):
    for _task in ("Vel", "Dir"):
        _register(f"HalfCheetah{_task}-{_physics}", "half_cheetah", f"HalfCheetah{_task}", physics=_physics)
    for _task in ("Vel", "Dir", "Goal"):
        _register(f"Ant{_task}-{_physics}", "ant", f"Ant{_task}", physics=_physics)
_register("Navigation2D", "navigation", "Navigation2D")
for _num_arms in (5, 10, 50):
    _register(f"Bandit-K{_num_arms}", "bandit", "BernoulliBandit", num_arms=_num_arms)
_register("TabularMDP", "tabular_mdp", "TabularMDP")
