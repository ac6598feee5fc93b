"""Requests of the page for drawings."""

import base64

import pytest

from maml_rl.pictures.live.drawing import Examiner, Pupil


def encoded(text):
    return base64.b64encode(text).decode()


@pytest.fixture
def lessons():
    return []


@pytest.fixture
def examiner(lessons):
    """Its pupil is sure of the name whose example equals the drawing."""

    def learn(examples):
        lessons.append(examples)
        if len(examples) < 2:
            raise ValueError("examples must be of two classes or more")
        return lambda drawing: {name: float(drawing in given) for name, given in examples.items()}

    return Examiner(Pupil("a pupil", None, learn))


def test_a_drawing_is_told_by_what_was_taught_which_is_learned_once(examiner, lessons):
    examples = {"a": [encoded(b"one")], "b": [encoded(b"two")]}
    for drawing, best in ((b"one", "a"), (b"two", "b")):
        answers = examiner.answer({"examples": examples, "drawing": encoded(drawing)})["answers"]
        assert max(answers, key=answers.get) == best
    assert lessons == [{"a": [b"one"], "b": [b"two"]}]
    examiner.answer({"examples": examples | {"c": [encoded(b"three")]}, "drawing": encoded(b"one")})
    assert len(lessons) == 2


def test_what_the_classifier_refuses_is_said(examiner):
    told = examiner.answer({"examples": {"a": [encoded(b"one")]}, "drawing": encoded(b"one")})
    assert told == {"error": "examples must be of two classes or more"}


@pytest.mark.parametrize(
    "request_", [None, {}, {"examples": [], "drawing": ""}, {"examples": {"a": ["%"]}, "drawing": ""}]
)
def test_other_requests_are_refused(examiner, lessons, request_):
    assert "must hold examples" in examiner.answer(request_)["error"]
    assert not lessons
