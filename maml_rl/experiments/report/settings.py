"""The settings of a report's entries, those that differ from the preset first, and what they were run with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from maml_rl.experiments.config import RunConfig, with_outer_step
from maml_rl.experiments.flags import changes, flags_of, setting_at
from maml_rl.experiments.presets import Preset, default_config
from maml_rl.experiments.report.entries import Entry, tasks_of
from maml_rl.pictures.report.blocks import Block, Command, Facts, Table, Text
from maml_rl.storage.checkpoint import CheckpointError, iterations_on_disk
from maml_rl.storage.checkpoint_file import read_about, stem

NOT_CHOSEN = {("env",), ("learner",), ("seed",), ("device",), ("num_threads",)}
"""Settings that are named elsewhere, or that no result depends on."""


class Deviation(NamedTuple):
    """The preset that a run's settings are nearest to, and those that differ."""

    preset: Preset
    changed: dict[str, tuple[Any, Any]]  # by flag: the preset's value and the run's


def deviation_of(config: RunConfig) -> Deviation:
    """The settings that differ from those of the nearest preset."""
    found = []
    for preset in get_args(Preset):
        try:
            default = _default(config, preset)
        except ValueError:  # there is none for these tasks and this learner
            continue
        flags = {path: flag for flag, path in flags_of(config).items()}
        changed = {flags[path]: pair for path, pair in changes(default, config).items() if path not in NOT_CHOSEN}
        found.append(Deviation(preset, changed))
    return min(found, key=lambda each: len(each.changed))


def _default(config: RunConfig, preset: Preset) -> RunConfig:
    size = {}
    if config.kind == "pictures":
        size = {"ways": config.task.ways, "shots": config.task.shots}
    default = default_config(config.env, config.learner, preset, **size)
    outer = getattr(config.method, "outer", None)
    return default if outer is None else with_outer_step(default, outer.step)


def command_of(entry: Entry) -> str:
    """The command that trains an entry anew."""
    config, deviation = entry.config, deviation_of(entry.config)
    parts = ["maml-rl", "train", "--env", config.env, "--learner", config.learner]
    parts += ["--preset", deviation.preset] if deviation.preset != "paper" else []
    if config.kind == "pictures":  # on which the preset depends
        parts += ["--ways", str(config.task.ways), "--shots", str(config.task.shots)]
    outer = getattr(config.method, "outer", None)
    usual = default_config(config.env, config.learner, deviation.preset).method
    if outer is not None and outer.step != usual.outer.step:
        parts += ["--outer.step", outer.step]
    for flag, (_, value) in deviation.changed.items():
        parts += _as_given(flag, value)
    parts += ["--seeds" if len(entry.seeds) > 1 else "--seed", *map(str, entry.seeds)]
    return shlex.join(parts)


def _as_given(flag: str, value: Any) -> list[str]:
    """A setting as it stands on a command line."""
    if isinstance(value, bool):
        head, dot, name = flag.removeprefix("--").rpartition(".")
        return [f"--{head}{dot}{'' if value else 'no-'}{name}"]
    return [flag, *map(str, value if isinstance(value, list | tuple) else [value])]


def in_words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(in_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts_of(entry: Entry, course: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The facts about an entry, in the same order for each.

    Args:
        course: how far it has come, by name.
    """
    config, deviation = entry.config, deviation_of(entry.config)
    number = len(deviation.changed)
    preset = f"{deviation.preset}, {number} setting{'' if number == 1 else 's'} changed" if number else deviation.preset
    return [
        ("tasks", tasks_of(config)),
        ("learner", config.learner),
        ("seeds" if len(entry.seeds) > 1 else "seed", ", ".join(map(str, entry.seeds))),
        ("preset", preset),
        *course,
        ("device", config.device),
        *_provenance(entry.runs[0]),
        ("folder", str(entry.home)),
    ]


def _provenance(run: Path) -> list[tuple[str, str]]:
    """Software, commit and machine of a run's last checkpoint."""
    iterations = iterations_on_disk(run / "checkpoints")
    try:
        about = read_about(run / "checkpoints" / f"{stem(iterations[-1])}.json") if iterations else {}
    except CheckpointError:
        about = {}
    versions, machine = about.get("versions"), about.get("machine")
    software = (
        ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else ""
    )
    hardware = "not recorded"
    if isinstance(machine, dict):
        hardware = (
            f"{machine.get('processor') or 'unknown processor'}, {machine.get('cores')} cores, {machine.get('system')}"
        )
    return [
        ("versions", software or "not recorded"),
        ("commit", str(about.get("git_commit") or "not recorded")[:12]),
        ("machine", hardware),
        ("last saved", str(about.get("saved_at") or "no checkpoint")[:16].replace("T", " ")),
    ]


def settings_blocks(entries: Sequence[Entry], courses: Sequence[Sequence[tuple[str, str]]]) -> list[Block]:
    """What was run: facts, settings that differ from the preset, all settings, and the commands."""
    facts = [facts_of(entry, course) for entry, course in zip(entries, courses, strict=True)]
    deviations = [deviation_of(entry.config) for entry in entries]
    blocks: list[Block] = []
    if len(entries) == 1:
        blocks.append(Facts(facts[0]))
    else:
        rows = [dict(each) | dict(_seeds_row(each)) for each in facts]
        names = list(dict.fromkeys(name for each in rows for name in each if name != "seed"))
        blocks.append(Table(["", *_labels(entries)], [[name, *(row.get(name, "") for row in rows)] for name in names]))
    flags = list(dict.fromkeys(flag for each in deviations for flag in each.changed))
    flags = [*flags, *(flag for flag in _differing(entries) if flag not in flags)]
    if flags:
        values = [_settings(entry.config) for entry in entries]
        presets = [
            _settings(_default(entry.config, each.preset)) for entry, each in zip(entries, deviations, strict=True)
        ]
        rows_changed = [
            [flag, *(row.get(flag, "-") for row in values), next((row[flag] for row in presets if flag in row), "-")]
            for flag in flags
        ]
        one = ["value"] if len(entries) == 1 else _labels(entries)
        caption = "Settings that differ from the preset" + (", or between the runs." if len(entries) > 1 else ".")
        blocks.append(Table(["setting", *one, "preset"], rows_changed, caption))
    else:
        blocks.append(Text("All settings are those of the preset."))
    blocks += [Command("trained by" if len(entries) == 1 else each.label, command_of(each)) for each in entries]
    for entry in entries:
        rows_all = [[flag, value] for flag, value in _settings(entry.config).items()]
        folded = "all settings" + (f" of {entry.label}" if len(entries) > 1 else "")
        blocks.append(Table(["setting", "value"], rows_all, folded=folded))
    return blocks


def _seeds_row(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One name for seeds, be they one or several."""
    return [("seeds", value) for name, value in facts if name in ("seed", "seeds")]


def _labels(entries: Sequence[Entry]) -> list[str]:
    return [entry.label for entry in entries]


def _settings(config: RunConfig) -> dict[str, str]:
    """All settings in words, by flag."""
    return {flag: in_words(setting_at(config, path)) for flag, path in flags_of(config).items()}


def _differing(entries: Sequence[Entry]) -> list[str]:
    """The flags of settings in which entries differ."""
    settings = [_settings(entry.config) for entry in entries]
    own = {f"--{name.replace('_', '-')}" for (name,) in NOT_CHOSEN}
    flags = [flag for flag in dict.fromkeys(flag for each in settings for flag in each) if flag not in own]
    return [flag for flag in flags if len({each.get(flag) for each in settings}) > 1]
