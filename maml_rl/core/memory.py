"""A check that what a run holds in memory fits into this machine."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Part(NamedTuple):
    """One use of memory."""

    name: str
    size: int  # [bytes]
    remedy: str


def require_memory(parts: Sequence[Part], has: int | None = None) -> None:
    """Refuse what this machine has no memory for.

    Args:
        has: memory [bytes] in place of this machine's.
    Raises:
        ValueError: if these parts together do not fit into this machine.
    """
    total, largest = sum(part.size for part in parts), max(parts, key=lambda part: part.size)
    has = memory_here() if has is None else has
    if total > has:
        whole = f"{_in_bytes(total)} of memory" + (f", {_in_bytes(largest.size)} of them" if len(parts) > 1 else "")
        raise ValueError(
            f"this run needs at least {whole} for {largest.name}, but this machine has {_in_bytes(has)}: "
            f"{largest.remedy}"
        )


def memory_here() -> int:
    """The most memory that this process may use [bytes]: the machine's, or less where a limit is set; on Windows, where
    Python does not tell, no limit is known."""
    if sys.platform == "win32":
        return sys.maxsize
    resource = importlib.import_module("resource")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        limits.append(allowed)
    group = Path("/sys/fs/cgroup/memory.max")  # of a container
    if group.is_file() and (text := group.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def _in_bytes(size: int) -> str:
    return f"{size:,} bytes"
