"""Pages of the reference that are made from the code: commands, settings, columns, learners and environments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import parsers
from parsers import PAIRS, Flag
from tables import code, table

import envs
from maml_rl.commands.main import COMMANDS
from maml_rl.experiments.config import outer_steps
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.table import IN_WORDS, LEARNERS
from maml_rl.learners.entry import Kind
from maml_rl.storage.columns import COLUMNS, SCORES, column

ROOT = Path(__file__).parents[2]
TITLES: dict[Kind, str] = {
    "reinforcement": "environments",
    "regression": "sinusoids",
    "pictures": "pictures",
    "density": "distributions",
}


def commands() -> str:
    """A section for each command."""
    return "\n".join(_command(name) for name in COMMANDS)


def _command(name: str) -> str:
    text, _, examples = parsers.description(name).partition("Examples:")
    shown = "\n".join(line.strip() for line in examples.strip().splitlines())
    flags = parsers.flags_of(name)
    rest = ""
    if name == "train":  # whose other flags are settings of the run
        flags = list(itertools.takewhile(lambda flag: flag.name != "--env", flags))
        rest = "All other flags are settings of the run: [settings](settings.md).\n"
    return f"## {name}\n\n{text.strip()}\n\n```bash\n{shown}\n```\n\n{_flags(flags)}\n{rest}"


def settings_index() -> str:
    """A line of links to the pages of settings for each kind of tasks."""
    lines = []
    for kind, title in TITLES.items():
        links = [f"[{name}]({settings_page(kind, name)})" for each, name in PAIRS if each == kind]
        lines.append(f"- **{title.capitalize()}** ({IN_WORDS[kind]}): {', '.join(links)}")
    return "\n".join(lines) + "\n"


def settings_page(kind: Kind, learner: str) -> str:
    """The file name of a page of settings."""
    return f"settings-{TITLES[kind]}-{learner}.md"


def settings(kind: Kind, learner: str) -> str:
    """The page with every setting of a learner on one kind of tasks, with the defaults of its paper's preset."""
    flags = parsers.training_flags(kind, learner)
    start = next(i for i, flag in enumerate(flags) if flag.name == "--env")
    parts = [
        f"---\ntitle: {learner} on {TITLES[kind]}\n---\n\n# Settings: {learner} on {TITLES[kind]}\n",
        f"{LEARNERS[learner].summary}. Flags of `maml-rl train --env {parsers.ENVS[kind]} --learner {learner}` with "
        "the defaults of the preset `paper`; in Python a dot becomes two underscores: "
        "`maml_rl.train(..., inner__step_size=0.1)`. Flags that say where a run is put are those of "
        "[`train`](commands.md#train).\n",
    ]
    own = flags[start:]
    parts += _groups(own)
    default = default_config(parsers.ENVS[kind], learner)
    for step in outer_steps(default):
        if step == default.method.outer.step:
            continue
        others = parsers.flags_of("train", "--env", parsers.ENVS[kind], "--learner", learner, "--outer.step", step)
        new = [flag for flag in others if flag.name not in {each.name for each in own}]
        new = [flag for flag in new if flag.name not in {each.name for each in flags[:start]}]
        if new:
            parts += [f"## With `--outer.step {step}`\n", _flags(new)]
    return "\n".join(parts)


def _groups(flags: Sequence[Flag]) -> list[str]:
    """Sections of flags by the prefix of their names."""
    found: dict[str, list[Flag]] = {}
    for flag in flags:
        prefix = flag.name.removeprefix("--").rpartition(".")[0]
        found.setdefault(prefix.split(".")[0], []).append(flag)
    return [text for prefix, own in found.items() for text in (f"## {prefix or 'Run'}\n", _flags(own))]


def _flags(flags: Sequence[Flag]) -> str:
    rows = ([code(flag.name), code(flag.values), code(_default(flag)), flag.text] for flag in flags)
    return table(["flag", "values", "default", "meaning"], rows)


def _default(flag: Flag) -> str:
    """The default as it would be given: nothing for None, and paths as they are in a clone."""
    return "" if flag.default == "None" else flag.default.replace(f"{ROOT}/", "")


def columns() -> str:
    """Every column of metrics.csv."""
    rows: dict[str, list[list[str]]] = {}
    names = [f"{score}_{when}{spread}" for score in SCORES for when in ("before", "after") for spread in ("", "_std")]
    names += [f"eval_{score}_1" for score in SCORES if score not in ("nll", "calibration_error")]
    for name in [*COLUMNS, *names]:
        found = column(name)
        assert found is not None
        rows.setdefault(found.group, []).append([code(name), found.unit, found.meaning])
    sections = [
        f"## {group.capitalize()}\n\n{table(['column', 'unit', 'meaning'], each)}" for group, each in rows.items()
    ]
    return "\n".join(sections)


def learners() -> str:
    """Every line of the table of learners."""
    rows = []
    for name, entry in LEARNERS.items():
        default = default_config(parsers.ENVS[entry.kinds[0]], name)
        tasks = ", ".join(f"[{TITLES[kind]}]({settings_page(kind, name)})" for kind in entry.kinds)
        steps = ", ".join(code(step) for step in outer_steps(default))
        rows.append(
            [code(name), entry.summary, tasks, steps, ", ".join(["paper", *entry.presets]), ", ".join(entry.devices)]
        )
    return table(["learner", "", "tasks (settings)", "outer steps", "presets on pictures", "devices"], rows)


def environments() -> str:
    """Every registered environment but Meta-World's, which are many and need a package of their own."""
    rows = []
    for name in sorted(each for each in gymnasium.registry if each.startswith("maml/")):
        if "/ML1" in name:
            continue
        env = gymnasium.make(name)
        task = env.unwrapped.sample_tasks(1, np.random.default_rng(0))[0]
        fields = ", ".join(each.name for each in dataclasses.fields(task))
        space = env.observation_space
        shape = " x ".join(map(str, space.shape)) if space.shape else str(space)
        rows.append([code(name), type(task).__name__, fields, shape, env.action_space, env.unwrapped.horizon])
        env.close()
    header = ["id", "task", "numbers of a task", "observation", "action", "horizon [steps]"]
    classes = f"Beside these, `maml/ML1-<class>-v0` for {len(envs.METAWORLD_CLASSES)} classes, and `maml/ML10-v0`: "
    return f"{table(header, rows)}\n{classes}[Meta-World](../metaworld.md).\n"


PAGES = {
    "commands": commands,
    "settings": settings_index,
    "columns": columns,
    "learners": learners,
    "environments": environments,
}
"""What stands for `<!-- generated: NAME -->` in a page."""
