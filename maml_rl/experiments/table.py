"""The table of learners: each learner is a file in learners/ and a line here."""

from __future__ import annotations

from maml_rl.learners import (
    guided,
    joint,
    maml,
    matching,
    memory,
    neural_statistician,
    pixels,
    platipus,
    prototypical,
    reptile,
)
from maml_rl.learners.entry import Entry, Kind

LEARNERS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        maml.MAML_ENTRY,
        maml.FOMAML_ENTRY,
        maml.ANIL_ENTRY,
        maml.META_SGD_ENTRY,
        maml.PROMP_ENTRY,
        maml.E_MAML_ENTRY,
        guided.ENTRY,
        reptile.ENTRY,
        joint.ENTRY,
        prototypical.ENTRY,
        matching.ENTRY,
        memory.ENTRY,
        neural_statistician.ENTRY,
        pixels.ENTRY,
        platipus.ENTRY,
    )
}


def register(entry: Entry) -> None:
    """Add a learner to the table, for this process.

    Raises:
        ValueError: if another one has its name.
    """
    if LEARNERS.setdefault(entry.name, entry) is not entry:
        raise ValueError(f"learner {entry.name} is in the table already: choose another name")


def learner_entry(name: str, kind: Kind) -> Entry:
    """The learner of that name, for tasks of that kind.

    Raises:
        ValueError: if there is none, or it does not take such tasks.
    """
    fitting = names_for(kind)
    if name not in LEARNERS:
        raise ValueError(f"learner must be one of {list(LEARNERS)}, got {name!r}")
    if name not in fitting:
        takes = " and ".join(IN_WORDS[each] for each in LEARNERS[name].kinds)
        raise ValueError(f"learner {name} takes {takes}, not {IN_WORDS[kind]}: take a learner among {fitting}")
    return LEARNERS[name]


def names_for(kind: Kind) -> list[str]:
    """The learners that take tasks of that kind."""
    return [name for name, entry in LEARNERS.items() if kind in entry.kinds]


IN_WORDS: dict[Kind, str] = {
    "reinforcement": "episodes of an environment",
    "regression": "regression tasks (--env sinusoid)",
    "pictures": "few-shot episodes of pictures (--env omniglot or images)",
    "density": "densities of numbers (--env distributions)",
}
