"""The command line of live views: a page in the browser where a run acts and adapts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maml_rl.api.play import HOST, PORT, play
from maml_rl.api.run import Run
from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import lenient_streams
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.runs import WhichCheckpoint, read_config, to_be_read
from maml_rl.experiments.trust import by_trust, require_trust, trusted_names
from maml_rl.training.interrupts import Interrupted, Interrupts

EXAMPLES = (
    "python scripts/play.py zoo:halfcheetah-vel",
    "python scripts/play.py runs/mine --port 9000",
)


@dataclass(frozen=True)
class PlayCommand:
    """Watch a run act and adapt, in the browser; ask a few-shot run about drawings."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run, or zoo:NAME."""
    port: int = PORT
    """Port of the page, which this machine alone can open."""
    env: str | None = None
    """The run's environment, if it is one of your own, module:Class: naming it here allows the import of its module."""
    trust_env: bool = False
    """Allow the import of whatever module the run names for its environment, without --env."""
    checkpoint: WhichCheckpoint = "last"
    """Checkpoint of the run: the best by training score, or the last."""
    seed: int = 1
    """Seed of tasks and episodes."""


@lenient_streams()
def play_run(arguments: Sequence[str] | None = None) -> int:
    """Run the live view; return the exit status: 128 + n after signal n, 1 if an episode fails, or 2 if refused."""
    command = parse(PlayCommand, EXAMPLES, arguments)

    def ready() -> None:
        print(f"open http://{HOST}:{command.port} in a browser; Ctrl-C ends it", flush=True)

    with Interrupts() as interrupts:
        try:
            config = to_be_read(read_config(command.run), "cpu", 1)
            named = trusted_names(config, command.env and full_id(command.env, None), command.trust_env)
            require_trust(command.run, config, named, by_trust)
            with interrupts.allowed():
                play(Run(command.run, config, named), command.port, command.checkpoint, command.seed, ready)
        except Interrupted as signal:
            print(f"stopped by {signal}", file=sys.stderr)
            return 128 + signal.signum
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except RuntimeError as error:  # of an environment
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0
