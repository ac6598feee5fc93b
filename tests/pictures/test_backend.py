"""Which backend draws is found out in another process, and nothing breaks where none does."""

import os

import pytest

from maml_rl.pictures import backend


@pytest.fixture
def machine(monkeypatch):
    """A function that tells whether a machine, on which the named backends draw, can draw; it keeps what was tried."""

    def make(*working, asked=None):
        def can_draw(name):
            can_draw.tried.append(name)
            return name in working

        can_draw.tried = []
        if asked is None:
            monkeypatch.delenv("MUJOCO_GL", raising=False)
        else:
            monkeypatch.setenv("MUJOCO_GL", asked)
        return can_draw

    return make


@pytest.mark.parametrize(
    ("working", "asked", "chosen"),
    [
        (["egl", "osmesa"], None, "egl"),
        (["osmesa"], None, "osmesa"),
        (["egl", "osmesa"], "osmesa", "osmesa"),
        (["egl"], "glfw", "egl"),
        ([], None, None),
    ],
)
def test_the_first_backend_that_draws_is_chosen(machine, working, asked, chosen):
    can_draw = machine(*working, asked=asked)
    assert backend.choose_backend(can_draw) == chosen
    assert os.environ["MUJOCO_GL"] == (chosen or "disabled")  # with "disabled" mujoco can at least be imported
    assert len(can_draw.tried) == len(set(can_draw.tried))


def test_a_process_that_cannot_draw_is_told_what_to_set_or_install(machine):
    backend.require_drawing(machine("egl", asked="egl"))
    with pytest.raises(backend.DrawingError, match="export MUJOCO_GL=osmesa"):
        backend.require_drawing(machine("osmesa", asked="egl"))
    with pytest.raises(backend.DrawingError, match="apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6"):
        backend.require_drawing(machine())


def test_a_backend_that_does_not_exist_does_not_draw():
    assert not backend.draws("crayons")


def test_the_process_that_tries_to_draw_imports_nothing_from_the_current_directory(tmp_path, monkeypatch):
    for name in ("mujoco", "ctypes", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('snapped', 'w')\n")
    monkeypatch.chdir(tmp_path)
    backend.draws("egl")
    assert not (tmp_path / "snapped").exists()
