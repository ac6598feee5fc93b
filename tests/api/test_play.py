"""Live views in a real browser: what a user turns, draws and sees."""

import contextlib
import json
import math
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from browser import open_browser
from pictures import write_folders
from two_arms import TwoArms

import maml_rl
from maml_rl.api.play import pupil_of, show_of
from maml_rl.api.run import load
from maml_rl.commands.train import train, train_omniglot
from maml_rl.experiments.table import LEARNERS
from maml_rl.experiments.zoo import resolved
from maml_rl.pictures.live.drawing import Examiner
from maml_rl.pictures.live.needs import PACKAGES
from maml_rl.pictures.live.page import News, page_of, served
from maml_rl.pictures.live.session import Session
from maml_rl.pictures.live.stage import Stage

sys.path.insert(0, str(Path(__file__).parents[1] / "learners"))
import proof

CHEETAH = resolved("zoo:halfcheetah-vel")


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


@pytest.fixture
def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def opened(browser, port):
    """A function that opens the page that is served; no error may reach its console."""
    pages, errors = [], []

    def open_page():
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        pages.append(page)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not errors


@contextlib.contextmanager
def staged(run, port, make_scene=None):
    """The run's page, played in a thread."""
    with contextlib.closing(Session(show_of(load(run)), seed=1)) as session:
        scene = make_scene and make_scene(session)
        stage, ended = Stage(session, scene), threading.Event()

        def play():
            while not ended.wait(1 / 30):
                stage.advance(time.monotonic())

        player = threading.Thread(target=play)
        with served(port, stage.page, stage.answer, stage.news):
            player.start()
            try:
                yield
            finally:
                ended.set()
                player.join()
                if scene:
                    scene.close()


def charted(page, adaptations):
    """The returns of the first episode shown after so many adaptations."""
    found = page.wait_for_function(
        """count => JSON.parse(document.getElementById('chart').dataset.charted ?? '[]')
            .find(each => each.adaptations === count)""",
        arg=adaptations,
    )
    return found.json_value()


def adapt(page, adaptations):
    page.get_by_role("button", name="Adapt one step").click()
    steps = "1 gradient step" if adaptations == 1 else f"{adaptations} gradient steps"
    page.get_by_text(f"{steps} on").wait_for()


def test_the_task_is_set_by_a_slider_and_the_return_rises_with_adaptation(opened, port, tmp_path):
    run = tmp_path / "run"
    flags = ["--num-iterations", "3", "--num-tasks", "10", "--episodes-per-task", "10", "--horizon", "50"]
    assert train("maml/Navigation2D-v0", [*flags, "--evaluate-every", "0", "--output-dir", str(run)]) == 0
    with staged(run, port):
        page = opened()
        page.get_by_role("combobox", name="speed").select_option("10")
        page.get_by_role("combobox", name="actions").select_option(
            "mean"
        )  # without noise and with one start, episodes are equal
        for dial in ("x [m]", "y [m]"):
            page.get_by_role("slider", name=dial).fill("0.4")
        page.get_by_text("go to (0.40, 0.40) m").wait_for()
        before = charted(page, 0)
        assert before["adapted"] == before["before"]
        for count in (1, 2, 3):
            adapt(page, count)
        after = charted(page, 3)
        assert after["before"] == pytest.approx(before["before"])  # the ghost has not changed
        assert after["adapted"] > after["before"] + 5.0
        pictures = page.locator("#pictures img")
        assert pictures.count() == 2 and all(
            pictures.nth(i).evaluate("image => image.naturalWidth") == 240 for i in range(2)
        )
        page.get_by_role("button", name="Forget").click()
        page.get_by_text("Before adaptation: the policy knows nothing").wait_for()
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Play").wait_for()
        step = page.locator("#step").inner_text()
        page.wait_for_timeout(300)
        assert page.locator("#step").inner_text() == step


def test_a_learner_without_gradient_steps_adapts_to_one_episode_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, "recurrent", proof.RECURRENT)
    small = {"num_iterations": 1, "num_tasks": 2, "episodes_per_task": 4, "evaluate_every": 0, "quiet": True}
    run = maml_rl.train(TwoArms, learner="recurrent", output_dir=tmp_path / "run", **small)
    with contextlib.closing(Session(show_of(run), seed=1)) as session:
        for count in (1, 2):
            session.adapt()
            while session.episodes_collected is not None:
                session.look()
            assert (session.adapted.player.num_episodes, session.adapted.player.num_steps) == (count, 0)
            while session.finished[-1:] == [] or session.finished[-1].num_adaptations < count:
                session.step()
        assert session.before.player.num_episodes == 0


def stroke(page, *points):
    """A line on the paper, through points in shares of its size."""
    box = page.locator("canvas").bounding_box()
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if not number:
            page.mouse.down()
    page.mouse.up()


def circle(page, shift=0.0):
    angles = [2.0 * math.pi * k / 16 for k in range(17)]
    stroke(page, *((0.5 + shift + 0.3 * math.cos(angle), 0.5 + 0.3 * math.sin(angle)) for angle in angles))


def test_what_is_drawn_with_the_mouse_is_told_by_what_was_taught(opened, port, tmp_path, own_cache):
    run = tmp_path / "run"
    flags = ["--env", "images", "--data-root", str(write_folders(tmp_path / "data")), "--image-size", "16", "--invert"]
    flags += ["--learner", "prototypical", "--num-filters", "8", "--num-iterations", "5", "--evaluate-every", "0"]
    flags += ["--ways", "3", "--train-ways", "6", "--rotations", "classes", "--queries", "2", "--test-queries", "2"]
    assert train_omniglot([*flags, "--num-threads", "1", "--output-dir", str(run)]) == 0
    pupil = pupil_of(load(run))
    assert pupil.ways is None  # distances serve any number of classes
    html = page_of("drawing", {"title": pupil.title, "ways": pupil.ways})
    with pytest.raises(RuntimeError, match="enough"), served(port, html, Examiner(pupil).answer, News()):
        page = opened()
        page.get_by_text("from two on, you can ask").wait_for()
        circle(page)
        page.get_by_label("name of the drawing").fill("ring")
        page.get_by_role("button", name="Teach").click()
        stroke(page, (0.1, 0.5), (0.9, 0.5))
        page.get_by_label("name of the drawing").fill("<b>bar</b>")  # a name is text, whatever it holds
        page.keyboard.press("Enter")
        page.get_by_text("Draw one of them again").wait_for()
        for draw, name in (
            (lambda: circle(page, shift=0.05), "ring"),
            (lambda: stroke(page, (0.15, 0.53), (0.85, 0.5)), "<b>bar</b>"),
        ):
            draw()
            page.wait_for_function(
                "name => document.querySelector('.best span')?.textContent === name", arg=name, timeout=20_000
            )
            page.get_by_role("button", name="Clear the paper").click()
        raise RuntimeError("enough")
    page.get_by_text("Ended. enough").wait_for()


@pytest.mark.slow
def test_a_half_cheetah_adapts_beside_its_ghost(opened, port):
    for package in PACKAGES:
        pytest.importorskip(package)
    from maml_rl.pictures.live.robots import make_scene

    with staged(CHEETAH, port, make_scene):
        page = opened()
        page.frame_locator("iframe").locator("canvas").first.wait_for(timeout=300_000)
        page.set_default_timeout(300_000)
        page.get_by_role("combobox", name="actions").select_option("mean")
        page.get_by_role("slider", name="speed [m/s]").fill("1.9")
        page.get_by_text("run at 1.90 m/s").wait_for()
        for count in (1, 2):
            adapt(page, count)
        after = charted(page, 2)
        assert after["adapted"] > after["before"] + 20.0, json.dumps(after)
