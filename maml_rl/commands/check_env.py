"""The command line that checks an environment before training on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import lenient_streams
from maml_rl.experiments.environments import check_world, find_world, full_id

EXAMPLES = (
    "python scripts/check_env.py my_module:MyEnv",
    "python scripts/check_env.py AntVel --horizon 100 --json",
)


@dataclass(frozen=True)
class CheckEnvCommand:
    """Say what is missing or wrong in a task environment, and what to do about it."""

    env: Annotated[str, tyro.conf.Positional]
    """The environment: module:Class, a registered Gymnasium id, or a short name such as AntVel."""
    horizon: int | None = None
    """Most steps of an episode; by default the environment's own limit, or else 200."""
    json: bool = False
    """Print the result as one JSON line on stdout."""

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {self.horizon}")


@lenient_streams()
def check_env(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return the exit status.

    0 fit to be trained on, perhaps with warnings; 1 not fit; 2 there is no such environment, or it cannot be made.
    """
    try:
        command = parse(CheckEnvCommand, EXAMPLES, arguments)
        env_id = full_id(command.env, None)
        findings = check_world(find_world(env_id), command.horizon, thorough=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = {kind: sum(finding.severity == kind for finding in findings) for kind in ("error", "warning")}
    for finding in findings:
        print(f"{finding.severity}: {finding}", file=sys.stderr)
    verdict = "not fit to be trained on" if counts["error"] else "fit to be trained on"
    print(f"{env_id}: {counts['error']} errors, {counts['warning']} warnings: {verdict}", file=sys.stderr)
    if command.json:
        print(json.dumps({"env": env_id, **counts, "findings": [finding._asdict() for finding in findings]}))
    return 1 if counts["error"] else 0
