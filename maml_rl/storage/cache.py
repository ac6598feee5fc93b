"""The folder for what can be made or fetched again: decoded pictures, data sets, runs of the zoo."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """$MAML_RL_CACHE, else maml_rl in the user's cache folder: ~/.cache on Linux, or what XDG_CACHE_HOME names."""
    own = os.environ.get("MAML_RL_CACHE")
    return Path(own) if own else platformdirs.user_cache_path("maml_rl", appauthor=False)


def fetched(address: str, path: Path, known_hash: str | None) -> Path:
    """`path`, which holds what is at an address, all of it or nothing.

    Args:
        known_hash: sha256:... or md5:... of the content; None trusts the address.
    Raises:
        OSError: if it cannot be fetched or does not match, with the reason in one line.
    """
    pooch = importlib.import_module("pooch")  # takes long to import
    pooch.get_logger().setLevel(logging.ERROR)
    try:
        return Path(pooch.retrieve(address, known_hash, path.name, path.parent))
    except ValueError as error:
        if "hash of downloaded file" not in str(error):  # an address of no known kind
            raise OSError(str(error).partition("\n")[0]) from error
        raise OSError("it does not match its hash, so it was cut or altered") from error
    except OSError as error:  # those of requests, too
        raise OSError(str(error).partition("\n")[0]) from error
