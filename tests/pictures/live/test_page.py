"""The server of a page."""

import http.client
import json
import socket
import threading

import pytest

from maml_rl.pictures.live.needs import HOST, require_free, require_viewer
from maml_rl.pictures.live.page import News, page_of, served


@pytest.fixture
def port():
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response.status, response.read()


def test_a_page_is_served_and_answers(port):
    with served(port, b"<p>page</p>", lambda request: {"echo": request}, News()):
        assert ask(port, "GET", "/") == (200, b"<p>page</p>")
        assert json.loads(ask(port, "POST", "/ask", '{"a": 1}')[1]) == {"echo": {"a": 1}}
        assert json.loads(ask(port, "POST", "/ask", "no json")[1]) == {"echo": None}
        assert ask(port, "GET", "/etc/passwd")[0] == 404
        assert ask(port, "POST", "/ask", b"", {"Content-Length": "99999999"})[0] == 400
    require_free(port)  # it is free again


def test_a_page_elsewhere_with_a_name_for_this_address_gets_nothing(port):
    with served(port, b"page", lambda request: {"asked": True}, News()):
        assert ask(port, "GET", "/", headers={"Host": f"evil.example:{port}"})[0] == 404
        assert ask(port, "POST", "/ask", "{}", {"Host": "evil.example"})[0] == 400
        assert ask(port, "GET", "/", headers={"Host": f"localhost:{port}"})[0] == 200


def test_readers_are_told_the_latest_news_and_of_the_end(port):
    news, heard = News(), []

    def read():
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        connection.request("GET", "/news")
        heard.append(connection.getresponse().read())  # until the end

    reader = threading.Thread(target=read)
    with pytest.raises(RuntimeError, match="out of"), served(port, b"", dict, news):
        reader.start()
        while not news.num_readers:
            pass
        news.publish({"step": 1})
        raise RuntimeError("out of\nenergy")
    reader.join(5)
    assert heard[0].endswith(b"event: end\ndata: out of energy\n\n")
    assert not news.num_readers


def test_what_a_page_knows_of_the_run_cannot_end_its_script():
    page = page_of("drawing", {"title": "</script><script>alert(1)"}).decode()
    assert page.count("</script>") == 1 and r"\u003c/script>" in page
    assert "{style}" not in page and "{news}" not in page and "{about}" not in page


def test_a_port_in_use_or_out_of_range_is_refused(port):
    with served(port, b"", dict, News()), pytest.raises(ValueError, match=f"{port} cannot be listened on .*--port"):
        require_free(port)
    for wrong in (0, 65536):
        with pytest.raises(ValueError, match=f"1 to 65535, got {wrong}"):
            require_free(wrong)


def test_missing_packages_are_named_with_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need viser and mjviser: .*maml_rl\[viewer\]"):
        require_viewer()
