"""Requirements of a live view on the machine: a free port on the loopback interface, and two packages for robots."""

from __future__ import annotations

import importlib.util
import socket

HOST = "127.0.0.1"
PACKAGES = ("viser", "mjviser")


def require_free(port: int) -> None:
    """Refuse a port that cannot be listened on.

    Raises:
        ValueError: with the reason.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"port must lie in 1 to 65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a page that has just ended is no hindrance
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"port must be free, but {port} cannot be listened on ({error.strerror}): choose another by --port"
            ) from None


def require_viewer() -> None:
    """Refuse if the packages of the extra `viewer` are missing.

    Raises:
        ValueError: naming them.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"live views of robots need {' and '.join(missing)}: install them by pip install 'maml_rl[viewer]'"
        )
