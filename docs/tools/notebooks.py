"""Run the tutorials and write their pages: `python docs/tools/notebooks.py [NAME ...]`.

A tutorial is docs/tutorials/NAME.py, a notebook in Jupytext's percent format. Its page, NAME.md with the pictures in
images/, is what the notebook printed and drew from top to bottom.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.py"))


def executed(name: str, folder: Path, parameters: Mapping[str, Any] | None = None) -> nbformat.NotebookNode:
    """The notebook of that name, run in a folder.

    Args:
        parameters: values that replace those of the cell with the tag "parameters".
    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = jupytext.read(TUTORIALS / f"{name}.py")
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    hidden = "\n".join(f"{key} = {value!r}" for key, value in (parameters or {}).items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(hidden, metadata={"tags": ["hidden"]}))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))  # of the kernel
    try:
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return notebook


def write_page(name: str, notebook: nbformat.NotebookNode) -> Path:
    """Write the page of a notebook that was run, and its pictures."""
    notebook.cells = [cell for cell in notebook.cells if "hidden" not in cell.metadata.get("tags", ())]
    text, made = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name, "output_files_dir": "images"})
    titles = [title for cell, title in _with_titles(notebook) if _has_picture(cell)]
    for number, (place, title) in enumerate(zip(sorted(made["outputs"], key=_numbers), titles, strict=True), start=1):
        picture = f"images/{name}_{number}.png"
        text = re.sub(rf"\s*!\[[^\]]*\]\({re.escape(place)}\)(?:[ \t]*\n)*", f"\n\n![{title}]({picture})\n\n", text)
        (TUTORIALS / "images").mkdir(exist_ok=True)
        (TUTORIALS / picture).write_bytes(made["outputs"][place])
    page = TUTORIALS / f"{name}.md"
    page.write_text(text.strip() + "\n")
    return page


def _with_titles(notebook: nbformat.NotebookNode) -> Iterator[tuple[nbformat.NotebookNode, str]]:
    """Every cell with the heading that it stands under."""
    title = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            title = ([title, *re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE)])[-1]
        yield cell, title


def _has_picture(cell: nbformat.NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))


def _numbers(name: str) -> list[int]:
    """The numbers in a name, by which cell 10 comes after cell 2."""
    return [int(each) for each in re.findall(r"\d+", name)]


def main(names: list[str]) -> None:
    """Run the named tutorials, or all, and write their pages; the notebooks stay in build/."""
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(name, Path(folder))
        (ROOT / "build").mkdir(exist_ok=True)
        nbformat.write(notebook, ROOT / "build" / f"{name}.ipynb")
        print(write_page(name, notebook))


if __name__ == "__main__":
    main(sys.argv[1:])
