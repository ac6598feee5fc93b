"""Findings of the check, and the form of a property."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from .candidate import Candidate


class Finding(NamedTuple):
    """One thing that is wrong with an environment."""

    name: str  # of the property
    severity: Literal["error", "warning"]
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


Property = Callable[[Candidate], Iterator[Finding]]


def error_of(check: Property, what: str, remedy: str) -> Finding:
    return Finding(check.__name__, "error", what, remedy)


def warning_of(check: Property, what: str, remedy: str) -> Finding:
    return Finding(check.__name__, "warning", what, remedy)
