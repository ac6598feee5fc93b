"""A user's modules: how they are found, imported and, if a name is almost right, guessed."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .tracebacks import located, missing_package


def module_file(module_name: str, outside: Path) -> str | None:
    """The file that holds a module, found without importing anything; None if it cannot be found.

    Args:
        outside: a folder from which no module is imported, neither this one nor, from now on, any other.
    Raises:
        ValueError: if the module lies in that folder, or belongs to Python.
    """
    require_own(module_name)
    closed = outside.resolve()
    sys.path[:] = [entry for entry in sys.path if not Path(entry).resolve().is_relative_to(closed)]
    if not Path.cwd().is_relative_to(closed):
        search_here(module_name)
    specs = _specs(module_name)
    if any(Path(place).resolve().is_relative_to(closed) for spec in specs for place in _places(spec)):
        raise ValueError(
            f"env must name a module outside of the run's folder, but {module_name!r} lies in {outside}: put it "
            "elsewhere, after reading it"
        )
    if len(specs) > module_name.count("."):
        return next(iter(_places(specs[-1])), specs[-1].origin)
    return getattr(sys.modules.get(module_name), "__file__", None)


def require_own(module_name: str) -> None:
    """Refuse Python's own modules, whose functions may do anything and return no environment."""
    if package_of(module_name) in sys.stdlib_module_names:
        raise ValueError(
            f"env must name a module of yours, but {module_name!r} belongs to Python: rename yours if it is called that"
        )


def no_such_module(module_name: str) -> ValueError:
    return ValueError(
        f"env must name a module that can be found, but {module_name!r} is neither on sys.path nor in {os.getcwd()}: "
        "go to the folder that holds it, or put that folder on PYTHONPATH"
    )


def search_here(module_name: str) -> None:
    """Let imports search the current directory, too, if a module is not found without it."""
    importlib.invalidate_caches()
    here = os.getcwd()
    if here not in sys.path and len(_specs(module_name)) <= module_name.count("."):
        sys.path.append(here)  # a script's own folder is there, the user's is not
    own = sys.modules[__package__]
    theirs = os.path.join(here, "envs")
    if module_name.startswith("envs.") and os.path.isdir(theirs) and theirs not in own.__path__:
        own.__path__.append(theirs)  # a user's own folder called envs/, beside this project's package


def hidden_file(module_name: str) -> Path | None:
    """The user's module in a folder called envs/ that cannot be imported, because this project has one of its name."""
    package, _, rest = module_name.partition(".")
    if package != __package__ or not rest:
        return None
    place = Path(*rest.split("."))
    files = (Path(folder, file) for folder in _theirs() for file in (f"{place}.py", place / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def _theirs() -> list[str]:
    """Folders called envs/ beside this project's package."""
    return list(sys.modules[__package__].__path__)[1:]


def _specs(module_name: str) -> list[ModuleSpec]:
    """The import specs of a module's packages and then the module, as far as they are found without running any."""
    specs: list[ModuleSpec] = []
    for part in module_name.split("."):
        try:
            if specs:  # by the last part alone: to be asked for the whole name, a finder imports the packages
                spec = PathFinder.find_spec(part, specs[-1].submodule_search_locations or [])
            else:
                spec = importlib.util.find_spec(part)
        except (ImportError, ValueError):  # an empty name, or a module that was imported from nowhere
            spec = None
        if spec is None:
            break
        specs.append(spec)
    return specs


def _places(spec: ModuleSpec) -> list[str]:
    """A module's file, if it has one, and the folders of a package."""
    return [*([spec.origin] if spec.origin and spec.has_location else []), *(spec.submodule_search_locations or [])]


def package_of(module_name: str) -> str:
    return module_name.partition(".")[0]


def home_of(maker: Callable[..., Any]) -> str:
    """The module in which a function was defined."""
    while isinstance(maker, functools.partial):
        maker = maker.func
    return str(getattr(maker, "__module__", None))


def imported(module_name: str) -> ModuleType:
    search_here(module_name)
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise no_such_module(module_name) from None
        package = missing_package(error)
        if package is not None:
            raise ValueError(f"env module {module_name!r} {': '.join(package)}") from error
        raise ValueError(
            f"env must name a module that can be imported, but {module_name!r} fails with {located(error)}: correct it "
            f"until python -c 'import {module_name}' passes"
        ) from error


def did_you_mean(name: str) -> str:
    """The end of a message that suggests module:Class for a name that is nearly one; imports nothing."""
    guesses = _guesses(name)
    return f": did you mean {' or '.join(guesses)}?" if guesses else ""


def _guesses(name: str) -> list[str]:
    """`module:Class` for a module or its file, with a class behind a colon or a dot, or else all classes in it."""
    path, _, attribute = name.partition(":")
    place = os.path.relpath(path) if path.startswith("/") else os.path.normpath(path)
    if place.startswith("..") and os.path.isfile(path):
        folder, file = os.path.split(os.path.abspath(path))
        classes = [attribute] if attribute else _classes_in(Path(path))
        return [f"{file.removesuffix('.py')}:{each}, given in the folder {folder}" for each in classes]
    module = place.removesuffix(".py").replace("/", ".")
    if not attribute and not _source_of(module):
        module, _, attribute = module.rpartition(".")
    source = _source_of(module)
    if source is None:
        return []
    is_own = source.is_relative_to(os.getcwd())  # else a word like random would get the library's classes
    return [f"{module}:{each}" for each in ([attribute] if attribute else _classes_in(source) if is_own else [])]


def _source_of(module_name: str) -> Path | None:
    """The file that an import would run, found without running any."""
    if not all(part.isidentifier() for part in module_name.split(".")):
        return None
    place = Path(*module_name.split("."))
    files = (
        Path(folder, file) for folder in (os.getcwd(), *sys.path) for file in (f"{place}.py", place / "__init__.py")
    )
    return next((file for file in files if file.is_file()), None)


def _classes_in(source: Path) -> list[str]:
    """Names of a file's classes that are derived from others, as environments are."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases and node.name[0] != "_"]
