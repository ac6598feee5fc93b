"""The live view of an environment: a loop in real time between a session and its page."""

from __future__ import annotations

import base64
import contextlib
import io
import queue
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maml_rl.pictures.live.page import News, page_of, served
from maml_rl.pictures.live.session import Session
from maml_rl.pictures.live.show import Show

FRAME = 1 / 30  # between two looks at the session [s]
MAX_LAG = 0.25  # of the show behind real time; more is dropped [s]
SPEEDS = (0.25, 0.5, 1, 2, 4, 10)  # times real time
NUM_CHARTED = 60  # episodes in the chart
MAX_PNG = 100_000  # pixels; larger pictures are sent as JPEG, which takes less time


class Scene(Protocol):
    """A scene that another server shows."""

    url: str

    def update(self, session: Session) -> None: ...
    def close(self) -> None: ...


class Stage:
    """A session with its controls. The page's requests come in other threads and are carried out by `run`."""

    def __init__(self, session: Session, scene: Scene | None):
        """
        Args:
            scene: shows the environments; None if they draw pictures.
        """
        self._session, self._scene, self.news = session, scene, News()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._is_paused, self._speed, self._num_drawn = False, 1.0, 0
        self._pace = Pace(session.show.steps_per_second)

    @property
    def page(self) -> bytes:
        show = self._session.show
        number, tasks = show.episodes_per_adaptation, show.tasks
        episodes = "an episode" if number == 1 else f"{number} episodes"
        goal = "take a gradient step" if show.takes_gradient_steps else "adapt to what was seen"
        about = {
            "title": show.title,
            "note": show.note,
            "scene": self._scene and self._scene.url,
            "dials": [dial._asdict() | {"label": dial.label} for dial in tasks.dials],
            "choices": [str(task) for task in tasks.choices],
            "adapt": f"Adapt one {'step' if show.takes_gradient_steps else 'episode'}",
            "hint": f"Play {episodes} of the task and {goal}",
            "speeds": SPEEDS,
        }
        return page_of("stage", about)

    def answer(self, request: Any) -> dict[str, Any]:
        """Take an order from the page: {"order": name, ...}."""
        try:
            self._orders.put(self._understood(**request))
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"no such order, {request!r}: {error}"}
        return {}

    def run(self) -> None:
        """Play in real time while somebody looks, until an exception ends it."""
        while True:
            began = time.monotonic()
            self.advance(began)
            time.sleep(max(0.0, FRAME - (time.monotonic() - began)))

    def advance(self, now: float) -> None:
        """Carry out the orders, take the steps that are due, and tell the page. now: on any clock [s]."""
        session, is_seen = self._session, self.news.num_readers > 0
        while not self._orders.empty():
            self._orders.get()()
        session.look()
        for _ in range(self._pace.steps_due(now, self._speed if is_seen and not self._is_paused else 0.0)):
            session.step()
        if is_seen:
            if self._scene is not None:
                self._scene.update(session)
            self.news.publish(self._state())

    def _understood(self, order: str, **details: Any) -> Callable[[], None]:
        """The order as a function to call between two steps.

        Raises:
            KeyError, TypeError, ValueError: if there is no such order.
        """
        session, tasks = self._session, self._session.show.tasks
        match order:
            case "adapt" | "forget" | "restart":
                function: Callable[[], None] = getattr(session, order)
                return function
            case "pause":
                return self._toggle
            case "new":
                return self._draw_task
            case "set":
                task = tasks.task_of({dial.name: dial.within(details["numbers"][dial.name]) for dial in tasks.dials})
                return lambda: session.set_task(task)
            case "choose":
                chosen = {str(each): each for each in tasks.choices}[details["name"]]
                return lambda: session.set_task(chosen)
            case "speed":
                speed = SPEEDS[SPEEDS.index(details["times"])]
                return lambda: setattr(self, "_speed", speed)
            case "actions":
                is_mean = ("sampled", "mean").index(details["name"]) == 1
                return lambda: setattr(session, "is_deterministic", is_mean)
        raise ValueError("its name is unknown")

    def _toggle(self) -> None:
        self._is_paused = not self._is_paused

    def _draw_task(self) -> None:
        self._session.set_task(self._session.show.tasks.sample())
        self._num_drawn += 1

    def _state(self) -> dict[str, Any]:
        """The news for the page."""
        session, show = self._session, self._session.show
        collected = session.episodes_collected
        state: dict[str, Any] = {
            "texts": {
                "task": str(session.task),
                "status": _status(session),
                "adapted": f"{session.adapted.total:.1f}",
                "adapted-name": "adapted" if session.num_adaptations else "not adapted yet",
                "before": f"{session.before.total:.1f}",
                "pause": "Play" if self._is_paused else "Pause",
                "step": f"Step {max(session.adapted.steps, session.before.steps)} of {show.horizon}",
            },
            "numbers": show.tasks.numbers_of(session.task),
            "drawn": self._num_drawn,
            "collected": None if collected is None else collected / show.episodes_per_adaptation,
            "finished": [
                {"adaptations": each.num_adaptations, "adapted": each.adapted, "before": each.before}
                for each in session.finished[-NUM_CHARTED:]
            ],
        }
        if self._scene is None:
            state["pictures"] = [_as_url(show.picture_of(each.env)) for each in (session.adapted, session.before)]
        return state


class Pace:
    """The steps to take from one moment to the next, so that the show keeps to real time."""

    def __init__(self, steps_per_second: float):
        self._rate = steps_per_second
        self._owed, self._then = 0.0, 0.0  # steps; the last moment [s]

    def steps_due(self, now: float, speed: float) -> int:
        """The whole steps due now. speed: times real time; 0 for a pause."""
        rate = self._rate * speed
        self._owed = min(self._owed + rate * (now - self._then), max(1.0, rate * MAX_LAG)) if speed else 0.0
        self._then = now
        due = int(self._owed)
        self._owed -= due
        return due


def show_stage(
    show: Show, port: int, seed: int, ready: Callable[[], None], make_scene: Callable[[Session], Scene] | None
) -> None:
    """Serve the page until an exception ends it, such as an interrupt.

    Args:
        ready: called when the page can be opened.
        make_scene: shows the session's environments; None if they draw pictures.
    """
    with contextlib.closing(Session(show, seed)) as session, contextlib.ExitStack() as last:
        scene = None if make_scene is None else make_scene(session)
        if scene is not None:
            last.callback(scene.close)
        stage = Stage(session, scene)
        with served(port, stage.page, stage.answer, stage.news):
            ready()
            stage.run()


def _status(session: Session) -> str:
    if session.episodes_collected is not None:
        return "Collecting episodes of this task."
    if session.num_adaptations == 0:
        return "Before adaptation: the policy knows nothing of the task."
    player = session.adapted.player
    return f"{_count(player.num_steps, 'gradient step')} on {_count(player.num_episodes, 'episode')} of this task."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_url(picture: NDArray[np.uint8]) -> str:
    """A picture [height, width, 3] as a data URL."""
    is_small = picture.shape[0] * picture.shape[1] <= MAX_PNG
    content = io.BytesIO()
    if is_small:
        Image.fromarray(picture).save(content, "PNG", compress_level=1)
    else:
        Image.fromarray(picture).save(content, "JPEG", quality=88)
    return f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(content.getvalue()).decode()}"
