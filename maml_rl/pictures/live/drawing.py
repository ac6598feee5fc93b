"""A page on which one draws characters, names them, and is told what the next drawing is."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from maml_rl.pictures.live.page import News, page_of, served

Classify = Callable[[bytes], Mapping[str, float]]
"""From a picture, the bytes of a PNG file, to the probability of each name."""


class Pupil(NamedTuple):
    """A classifier that learns from a few drawings of each class."""

    title: str
    ways: int | None  # classes that it must be given; None if any number from two on will do
    learn: Callable[[Mapping[str, Sequence[bytes]]], Classify]  # raises ValueError if the drawings will not do


class Examiner:
    """Answers to the page's requests; what was learned last is kept for the next drawing."""

    def __init__(self, pupil: Pupil):
        self._pupil, self._one_at_a_time = pupil, threading.Lock()
        self._learned: tuple[Any, Classify] | None = None  # the last examples, and what was learned from them

    def answer(self, request: Any) -> dict[str, Any]:
        """The probabilities for a drawing after others were shown, or the reason why there are none.

        Args:
            request: {"examples": {name: [PNG in base64, ...]}, "drawing": PNG in base64}.
        """
        try:
            examples = {str(name): [_decoded(each) for each in given] for name, given in request["examples"].items()}
            drawing = _decoded(request["drawing"])
        except (KeyError, TypeError, AttributeError, binascii.Error):
            return {"error": "a request must hold examples and a drawing as the page sends them"}
        try:
            with self._one_at_a_time:
                if self._learned is None or self._learned[0] != examples:
                    self._learned = (examples, self._pupil.learn(examples))
                return {"answers": dict(self._learned[1](drawing))}
        except ValueError as error:
            return {"error": str(error)}


def show_drawing_page(pupil: Pupil, port: int, ready: Callable[[], None]) -> None:
    """Serve the page until an exception ends it, such as an interrupt.

    Args:
        ready: called when the page can be opened.
    """
    page = page_of("drawing", {"title": pupil.title, "ways": pupil.ways})
    with served(port, page, Examiner(pupil).answer, News()):
        ready()
        threading.Event().wait()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
