"""The software and the machine that made a run's numbers: versions of packages, the commit of the code, processor."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("maml_rl", "torch", "numpy", "mujoco", "gymnasium", "safetensors")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def machine() -> dict[str, str | int | None]:
    """The kind of machine this is: its system, processor and number of cores; not its name."""
    processor = platform.processor() or None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:  # not Linux
        pass
    return {"system": f"{platform.system()} {platform.machine()}", "processor": processor, "cores": os.cpu_count()}


@functools.cache
def git_commit() -> str | None:
    """The commit of the source tree that this file is in, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
