"""Which way imports run: a file imports only from rooms below its own."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from maml_rl.experiments.table import LEARNERS

ROOT = Path(__file__).parents[1]

# Rooms of one line know nothing of each other.
LEVELS = [
    {"version", "runtime", "core"},
    {"networks", "storage"},
    {"policies", "supervised"},
    {"sampling", "evaluation"},
    {"rl", "training", "pictures"},
    {"learners"},
    {"experiments"},
    {"api"},
    {"commands"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


class Import(NamedTuple):
    importer: str  # dotted names
    imported: str
    line: int
    is_inside_function: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in ("maml_rl", "envs") for path in sorted((ROOT / package).rglob("*.py"))}


def imports_of(module: str) -> list[Import]:
    """What a module imports; `from package import module` is told from `from module import name`."""
    path = FILES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in FILES else base for a in node.names]
        found += [Import(module, name, node.lineno, id(node) in inside) for name in dict.fromkeys(names)]
    return found


IMPORTS = [each for module in FILES for each in imports_of(module)]


def package_of(module: str) -> str:
    return module.split(".")[0]


def room_of(module: str) -> str:
    """The part of maml_rl a module belongs to; "" for the package itself, which only prepares the process."""
    return module.split(".")[1] if "." in module else ""


def is_ours(module: str) -> bool:
    return package_of(module) in ("maml_rl", "envs")


def listed(wrong: list[Import]) -> str:
    return "\n".join(map(str, wrong))


def test_files_and_their_imports_are_found():
    assert {"maml_rl.core.inner", "maml_rl.policies.gaussian", "envs.task_env", "envs"} <= FILES.keys()
    pairs = {(each.importer, each.imported) for each in IMPORTS}
    assert ("maml_rl.core.inner", "maml_rl.core.lift") in pairs
    assert ("envs.toys.navigation", "envs.task_env") in pairs  # from .task_env import ...


def test_every_room_has_its_place():
    rooms = {room_of(module) for module in FILES if package_of(module) == "maml_rl"} - {""}
    assert rooms <= LEVEL.keys(), "a new room needs a line in LEVELS"


def test_the_core_imports_nothing_of_the_project():
    wrong = [
        each
        for each in IMPORTS
        if each.importer.startswith("maml_rl.core")
        and is_ours(each.imported)
        and not each.imported.startswith("maml_rl.core.")
    ]
    assert not wrong, listed(wrong)


def test_environments_know_neither_torch_nor_maml_rl():
    wrong = [
        each
        for each in IMPORTS
        if package_of(each.importer) == "envs" and package_of(each.imported) in ("torch", "maml_rl")
    ]
    assert not wrong, listed(wrong)


def test_only_experiments_imports_environments():
    importers = {
        each.importer
        for each in IMPORTS
        if package_of(each.importer) == "maml_rl" and package_of(each.imported) == "envs"
    }
    assert importers and all(room_of(importer) == "experiments" for importer in importers), importers


def test_no_module_lies_outside_of_a_room():
    loose = {module for module, path in FILES.items() if module.count(".") == 1 and path.name != "__init__.py"}
    assert {module for module in loose if package_of(module) == "maml_rl"} == {"maml_rl.runtime", "maml_rl.version"}


def test_learners_are_named_in_the_table_alone():
    """No room asks which algorithm it has: a learner is known to the table, to presets of environments, which are
    settings of MAML, and to what measures one."""
    importers = {
        each.importer
        for each in IMPORTS
        if each.imported.startswith("maml_rl.learners.")
        and each.imported != "maml_rl.learners.entry"
        and room_of(each.importer) != "learners"
    }
    assert importers == {"maml_rl.experiments.table", "maml_rl.experiments.presets", "maml_rl.commands.benchmark"}


def test_no_room_compares_a_name_with_a_learners():
    """Only the migration of old runs does, and what puts a paper's numbers of one method beside a run of it."""
    found = {
        module
        for module, path in FILES.items()
        if package_of(module) == "maml_rl" and room_of(module) not in ("learners", "commands")
        for comparison in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(comparison, ast.Compare) and "learner" in ast.unparse(comparison)
        for part in ast.walk(comparison)
        if isinstance(part, ast.Constant) and part.value in LEARNERS
    }
    assert found <= {"maml_rl.experiments.migration", "maml_rl.experiments.task_lists"}


def test_imports_run_downwards():
    wrong = []
    for each in IMPORTS:
        if package_of(each.importer) != "maml_rl" or package_of(each.imported) != "maml_rl":
            continue
        importer, imported = room_of(each.importer), room_of(each.imported)
        if not importer or importer == imported:
            continue
        # `import maml_rl` runs the package's own file, which lies on the ground; it offers the version
        if imported and LEVEL[imported] >= LEVEL[importer]:
            wrong.append(each)
    assert not wrong, listed(wrong)


def test_there_is_no_cycle():
    graph = {module: {each.imported for each in IMPORTS if each.importer == module} for module in FILES}
    cycle: list[str] = []
    try:
        TopologicalSorter({module: imported & FILES.keys() for module, imported in graph.items()}).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert not cycle, " imports ".join(reversed(cycle))


def test_no_import_hides_in_a_function():
    wrong = [each for each in IMPORTS if each.is_inside_function and is_ours(each.imported)]
    assert not wrong, listed(wrong)
