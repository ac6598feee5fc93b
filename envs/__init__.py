"""Environments with tasks. Importing this package registers their ids with Gymnasium."""

import pkgutil

import gymnasium

__path__[:] = pkgutil.extend_path(__path__, __name__)  # then the modules of a user's own folders called envs/


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
