"""The command `maml-rl`: one subcommand for each script."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from maml_rl.training.interrupts import exit_on_signals
from maml_rl.version import __version__

COMMANDS = {
    "train": ("maml_rl.commands.train", "train", "Meta-train on a distribution of tasks."),
    "evaluate": ("maml_rl.commands.evaluate", "evaluate", "Score a trained learner on fresh tasks."),
    "visualize": ("maml_rl.commands.visualize", "visualize", "Make films and plots of a trained learner."),
    "report": ("maml_rl.commands.report", "report", "Write a report to send: one HTML file."),
    "play": ("maml_rl.commands.play", "play_run", "Watch a run act and adapt in the browser."),
    "compare": (
        "maml_rl.commands.compare",
        "compare",
        "Train MAML and its baselines, and score them on the same tasks.",
    ),
    "leaderboard": ("maml_rl.commands.leaderboard", "leaderboard", "Put few-shot learners side by side."),
    "zoo": ("maml_rl.commands.zoo", "zoo", "List the trained runs that come with maml_rl, or show one's card."),
    "check-env": ("maml_rl.commands.check_env", "check_env", "Check an environment of your own."),
    "benchmark": ("maml_rl.commands.benchmark", "benchmark", "Measure speed on this machine."),
}


def program() -> int:
    """Run the subcommand of this process's command line, which a signal ends with one sentence."""
    exit_on_signals()  # for the whole process, so not in `main`, which others may call
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status, or 2 if there is none of that name."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] in ([], ["-h"], ["--help"]):
        print(_help())
        return 0 if given else 2
    if given[0] == "--version":
        print(f"maml-rl {__version__}")
        return 0
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        print(f"error: subcommand must be one of {', '.join(COMMANDS)}, got {name!r}", file=sys.stderr)
        return 2
    sys.argv = [f"maml-rl {name}", *rest]  # what --help and messages call the program
    if name == "visualize":
        choose_backend = importlib.import_module("maml_rl.pictures.backend").choose_backend
        return _function(name)(choose_backend())  # MuJoCo reads MUJOCO_GL when it is first imported
    return _function(name)()


def _function(name: str) -> Callable[..., int]:
    module, function, _ = COMMANDS[name]
    return getattr(importlib.import_module(module), function)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: maml-rl COMMAND [FLAGS]",
            "",
            "Meta-learning that you can run, trust and build on.",
            "",
            "commands:",
            *lines,
            "",
            "maml-rl COMMAND --help explains every flag; maml-rl --version prints the version.",
        ]
    )
