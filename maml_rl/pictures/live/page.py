"""A page on the loopback interface that asks the program and is told its news, until it is told of the end."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from maml_rl.pictures.live.needs import HOST

MAX_REQUEST = 16_000_000  # bytes
PULSE = 10.0  # between two signs of life where there is no news [s]
FAREWELL = 0.3  # for pages to be told of the end [s]

Answer = Callable[[Any], dict[str, Any]]
"""From a request to its answer, both JSON; called by the server's threads."""


class News:
    """The latest news for every page that is open: a page that is slow misses some, and waits for none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number, self._latest, self._farewell = 0, b"", ""
        self.num_readers = 0

    def publish(self, news: dict[str, Any]) -> None:
        with self._changed:
            self._number, self._latest = self._number + 1, json.dumps(news).encode()
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        with self._changed:
            self._farewell = " ".join(reason.split())
            self._changed.notify_all()

    def stream(self) -> Generator[bytes]:
        """Server-sent events (WHATWG HTML, section 9.2), until the end."""
        seen = 0
        with self._counted():
            while not self._farewell:
                number, latest = self._later_than(seen)
                yield b": nothing new\n\n" if number == seen else b"data: " + latest + b"\n\n"
                seen = number
            yield f"event: end\ndata: {self._farewell}\n\n".encode()

    def _later_than(self, seen: int) -> tuple[int, bytes]:
        """The number and text of the latest news, after a wait for other ones than those seen."""
        with self._changed:
            self._changed.wait_for(lambda: self._farewell or self._number > seen, PULSE)
            return self._number, self._latest

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self.num_readers += change


def page_of(name: str, about: dict[str, Any]) -> bytes:
    """A page of this folder with its style and script, and what it is to know of the run."""
    folder = resources.files(__package__)
    text = (folder / f"{name}.html").read_text(encoding="utf-8")
    for part, file in (("{style}", "page.css"), ("{news}", "news.js")):
        text = text.replace(part, (folder / file).read_text(encoding="utf-8").rstrip())
    return text.replace("{about}", json.dumps(about).replace("<", "\\u003c")).encode()  # no tag ends the script


@contextlib.contextmanager
def served(port: int, html: bytes, answer: Answer, news: News) -> Iterator[None]:
    """Serve a page while a block runs; if an exception ends it, such as an interrupt, the page is told."""

    class Handler(_Handler):
        page, hosts = html, (f"{HOST}:{port}", f"localhost:{port}")

        def answer_to(self, request: Any) -> dict[str, Any]:
            return answer(request)

        def news_stream(self) -> Generator[bytes]:
            return news.stream()

    server = _Server((HOST, port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        yield
    except BaseException as error:
        news.end(str(error) if isinstance(error, Exception) else "maml-rl play was stopped.")
        time.sleep(FAREWELL)
        raise
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # news may wait for long


class _Handler(BaseHTTPRequestHandler):
    page: bytes
    hosts: tuple[str, ...]  # of this page; another is a page elsewhere that has a name for this address

    def answer_to(self, request: Any) -> dict[str, Any]:
        raise NotImplementedError

    def news_stream(self) -> Generator[bytes]:
        raise NotImplementedError

    def do_GET(self) -> None:
        match self.path if self._is_ours() else None:
            case "/":
                self._send(200, "text/html; charset=utf-8", self.page)
            case "/news":
                with contextlib.suppress(ConnectionError):  # the page was closed
                    self._begin(200, "text/event-stream")
                    with contextlib.closing(self.news_stream()) as stream:
                        for each in stream:
                            self.wfile.write(each)
            case _:
                self._send(404, "text/plain", b"open the address that maml-rl play has printed")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._is_ours() or self.path != "/ask" or not length.isdigit() or int(length) > MAX_REQUEST:
            self._send(400, "text/plain", b"requests are JSON, sent to /ask by the page")
            return
        try:
            request = json.loads(self.rfile.read(int(length)))
        except ValueError:
            request = None
        self._send(200, "application/json", json.dumps(self.answer_to(request)).encode())

    def _is_ours(self) -> bool:
        return self.headers.get("Host") in self.hosts

    def _begin(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def _send(self, status: int, kind: str, content: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._begin(status, kind)
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing about requests."""
