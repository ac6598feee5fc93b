"""An exception of a user's environment in words: where it was raised, and which package it lacks."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import traceback
from pathlib import Path

_DISTRIBUTIONS = {  # packages that pip knows under another name
    "Box2D": '"gymnasium[box2d]"',
    "PIL": "pillow",
    "ale_py": "ale-py",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_ENVS = Path(__file__).parent
_MACHINERY = {"adapters.py", "checking", "modules.py", "plug_in.py", "task_env.py"}  # is not to blame


def missing_package(error: BaseException | None) -> tuple[str, str] | None:
    """The package that is not installed, and how to get it; None if that is not what raised the error."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            if importlib.util.find_spec(package) is None:
                remedy = f"pip install {_DISTRIBUTIONS.get(package, package)}"
                if _is_users(_last_file(error)):
                    remedy += f", or put the folder of {package} on PYTHONPATH if it is a module of your own"
                return f"needs the package {package}, which is not installed", remedy
        error = error.__cause__ or error.__context__
    return None


def located(error: BaseException) -> str:
    """An exception in one line: its type, its words, and the last line of the user's own files that it passed."""
    own = _users_frames(error)
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{words} ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else words


def raising_function(error: BaseException) -> str | None:
    """The first of the user's own functions that an exception passed."""
    return next((frame.name for frame in _users_frames(error) if frame.name.isidentifier()), None)


def _users_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]


def _last_file(error: BaseException) -> str:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return next((file for file in reversed(files) if not file.startswith("<")), "<")


def _is_users(file: str) -> bool:
    """Whether a file belongs neither to a package, nor to Python, nor to the code here that runs environments."""
    if "site-packages" in file or file.startswith((sysconfig.get_path("stdlib"), "<")):
        return False
    path = Path(file)
    return not path.is_relative_to(_ENVS) or path.relative_to(_ENVS).parts[0] not in _MACHINERY
