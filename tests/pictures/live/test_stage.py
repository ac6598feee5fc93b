"""The loop between a session and its page."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from live_session import Place, make_session
from PIL import Image

from maml_rl.pictures.live.stage import MAX_LAG, Pace, Stage, _as_url


def make_stage():
    session, _ = make_session()
    stage = Stage(session, None)
    stage.news.num_readers = 1  # somebody looks
    return stage, session


def state(stage):
    return json.loads(stage.news._latest)


@pytest.mark.parametrize("speed", [0.25, 1.0, 10.0])
def test_steps_keep_to_real_time(speed):
    pace = Pace(100.0)
    pace.steps_due(5.0, speed)
    frames = 5.0 + np.arange(1, 301) / 30.0
    steps = sum(pace.steps_due(now, speed) for now in frames)
    assert steps == pytest.approx(10.0 * 100.0 * speed, abs=1 + 100.0 * speed * MAX_LAG)


def test_what_is_late_is_dropped_and_a_pause_owes_nothing():
    pace = Pace(100.0)
    pace.steps_due(0.0, 1.0)
    assert pace.steps_due(60.0, 1.0) == 100 * MAX_LAG
    assert pace.steps_due(61.0, 0.0) == 0
    assert pace.steps_due(61.1, 1.0) == pytest.approx(10, abs=1)


def test_slow_environments_take_their_steps_too():
    pace = Pace(1.0)
    assert sum(pace.steps_due(now, 0.25) for now in np.arange(0.0, 40.0, 0.03)) == pytest.approx(10, abs=1)


def test_nothing_is_played_while_nobody_looks():
    stage, session = make_stage()
    stage.news.num_readers = 0
    stage.advance(0.0)
    stage.advance(1.0)
    assert session.adapted.steps == 0
    stage.news.num_readers = 1
    stage.advance(1.1)
    assert session.adapted.steps > 0


@pytest.mark.parametrize(
    ("order", "holds"),
    [
        ({"order": "set", "numbers": {"x": -0.5}}, lambda stage, session: session.task == Place(-0.5)),
        ({"order": "new"}, lambda stage, session: session.task == Place(1.0) and state(stage)["drawn"] == 1),
        ({"order": "pause"}, lambda stage, session: state(stage)["texts"]["pause"] == "Play"),
        ({"order": "actions", "name": "mean"}, lambda stage, session: session.is_deterministic),
        ({"order": "speed", "times": 4}, lambda stage, session: stage._speed == 4),
        ({"order": "adapt"}, lambda stage, session: session.episodes_collected is not None or session.num_adaptations),
    ],
)
def test_orders_are_carried_out_between_two_steps(order, holds):
    stage, session = make_stage()
    assert stage.answer(order) == {}
    stage.advance(0.0)
    assert holds(stage, session)
    session.close()


@pytest.mark.parametrize(
    "order",
    [
        {"order": "close"},
        {"order": "set", "numbers": {"x": 1.5}},
        {"order": "set", "numbers": {"x": "far"}},
        {"order": "set", "numbers": {}},
        {"order": "speed", "times": 1e9},
        {"order": "actions", "name": "best"},
        {"order": "choose", "name": "x"},
        {"name": "adapt"},
        "adapt",
        None,
    ],
)
def test_other_orders_are_refused(order):
    stage, session = make_stage()
    assert "no such order" in stage.answer(order)["error"]
    stage.advance(0.0)
    assert session.task == Place(1.0)


def test_the_page_is_told_the_task_the_returns_and_pictures():
    stage, session = make_stage()
    for now in range(20):
        stage.advance(now / 10)
    told = state(stage)
    assert told["numbers"] == {"x": 1.0} and told["texts"]["task"] == str(Place(1.0))
    assert told["finished"][0] == {
        "adaptations": 0,
        "adapted": session.finished[0].adapted,
        "before": session.finished[0].before,
    }
    assert [each.split(";")[0] for each in told["pictures"]] == ["data:image/png"] * 2


def test_large_pictures_are_sent_in_a_form_that_takes_less_time():
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    url = _as_url(picture)
    assert url.startswith("data:image/jpeg;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert sent.size == (640, 480)


def test_a_scene_takes_the_place_of_pictures():
    session, _ = make_session()
    seen = []
    stage = Stage(session, SimpleNamespace(url="http://elsewhere", update=seen.append, close=lambda: None))
    stage.news.num_readers = 1
    stage.advance(0.0)
    assert seen == [session] and "pictures" not in state(stage)
    assert b'"scene": "http://elsewhere"' in stage.page


def test_the_button_says_how_the_learner_adapts():
    for changes, button in (
        ({}, b"Adapt one step"),
        ({"takes_gradient_steps": False, "episodes_per_adaptation": 1}, b"Adapt one episode"),
    ):
        session, _ = make_session(**changes)
        assert button in Stage(session, None).page
