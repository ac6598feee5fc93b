"""The tutorials run, and their pages show what their sources say."""

import re

import nbformat
import notebooks
import pytest

SMALL = {
    "sinusoid": {"NUM_ITERATIONS": 30},
    "navigation": {"NUM_ITERATIONS": 1, "NUM_TASKS": 2},
    "own_environment": {"NUM_ITERATIONS": 1, "NUM_TASKS": 2},
    "own_pictures": {"NUM_ITERATIONS": 2},
    "cheetah": {"NUM_EPISODES": 1, "SPEEDS": (0.4, 1.0)},
}


def page(name):
    return (notebooks.TUTORIALS / f"{name}.md").read_text()


def test_every_tutorial_has_a_small_size():
    assert SMALL.keys() == set(notebooks.NAMES)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_the_page_shows_the_source(name):
    cells = notebooks.jupytext.read(notebooks.TUTORIALS / f"{name}.py").cells
    shown = re.findall(r"```python\n(.*?)\n```", page(name), re.DOTALL)
    assert [cell.source.strip() for cell in cells if cell.cell_type == "code"] == [code.strip() for code in shown]
    texts = [cell.source.strip() for cell in cells if cell.cell_type == "markdown"]
    assert not [text for text in texts if text not in page(name)]


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_from_top_to_bottom(name, tmp_path):
    notebook = notebooks.executed(name, tmp_path, SMALL[name])
    drawn = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(drawn) == len(re.findall(r"!\[", page(name)))
    nbformat.validate(notebook)
