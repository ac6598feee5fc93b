"""A report in a real browser: nothing is fetched, nothing fails, every figure is drawn, tables and themes work."""

import pytest
from browser import open_browser

from maml_rl.commands.report import report
from maml_rl.commands.train import train
from maml_rl.pictures.report.blocks import Facts, Interval, Media, Section, Table, Text, Tile, number
from maml_rl.pictures.report.page import Page, page_html

TINY = ["--num-tasks", "2", "--num-iterations", "3", "--evaluate-every", "1", "--episodes-per-task", "2"]
TINY += ["--horizon", "5", "--evaluation.num-tasks", "3", "--num-threads", "1", "--outer.step", "gradient"]


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The report of two seeds and another run, with a film."""
    folder = tmp_path_factory.mktemp("browser")
    for name, flags in {"both": ["--seeds", "1", "2"], "large": ["--inner.step-size", "0.2"]}.items():
        assert train("maml/Navigation2D-v0", [*TINY, *flags, "--output-dir", str(folder / name)]) == 0
    runs = [str(folder / "both"), str(folder / "large")]
    assert report([*runs, "--num-tasks", "8", "--pictures", "drawn", "--output", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture
def opened(browser, written):
    """Open the report: (colour scheme, width) -> the page, and what has gone wrong on it."""
    pages = []

    def open_page(scheme="light", width=1280):
        page, wrong = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(written.as_uri())
        page.wait_for_function("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))")
        pages.append(page)
        return page, wrong

    yield open_page
    for page in pages:
        page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 390)])
def test_every_figure_is_drawn_and_nothing_goes_wrong(opened, scheme, width, written):
    page, wrong = opened(scheme, width)
    drawn = page.locator(".plot").evaluate_all(
        "plots => plots.map(plot => plot.querySelectorAll('path.js-line, .points path').length)"
    )
    assert len(drawn) == 5 and all(drawn)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("video").first.evaluate(
        "film => film.videoWidth === 0 && film.error === null || film.videoWidth > 0"
    )
    assert wrong == [] and written.stat().st_size < 8_000_000


def test_tables_sort_and_hide_what_is_not_worse(opened):
    page, wrong = opened()
    tabled = (
        page.locator(".tabled", has=page.locator("[data-filter]")) if page.locator("[data-filter]").count() else None
    )
    table = page.locator("table.sortable", has_text="large: gain").first
    values = "rows => rows.map(row => Number(row.cells[3].dataset.value))"
    head = table.locator("th", has_text="both (2 seeds): gain")
    head.locator("button").click()
    ascending = table.locator("tbody tr").evaluate_all(values)
    head.locator("button").click()
    assert table.locator("tbody tr").evaluate_all(values) == sorted(ascending)[::-1] != ascending == sorted(ascending)
    assert head.get_attribute("aria-sort") == "descending"
    if tabled is not None:
        tabled.locator("[data-filter]").check()
        assert tabled.locator("tbody tr:visible").count() == tabled.locator("tbody tr.marked").count()
    assert wrong == []


def test_the_switch_turns_light_to_dark_and_back(opened):
    page, wrong = opened("light")
    look = "() => [getComputedStyle(document.body).backgroundColor, document.querySelector('.xtick text').style.fill]"
    light = page.evaluate(look)
    page.locator("#theme").click()
    dark = page.evaluate(look)
    page.locator("#theme").click()
    assert page.evaluate(look) == light and all(a != b for a, b in zip(light, dark, strict=True))
    page.emulate_media(color_scheme="dark")  # the user's own choice stays
    assert page.evaluate(look) == light and wrong == []


def test_a_curve_says_its_numbers_where_the_mouse_is(opened):
    page, wrong = opened()
    plot = page.locator("figure", has_text="Adaptation curve").locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".points path").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert wrong == []


def test_what_is_given_is_escaped_wherever_it_stands():
    evil = "<script>alert('x')</script>&\""
    blocks = [
        Text(evil),
        Facts([(evil, evil)]),
        Table([evil], [[evil]], evil, [True], evil, evil),
        Media(b"", ".png", evil),
    ]
    text = page_html(Page(evil, evil, [Tile(evil, evil, evil)], [Section(evil, blocks)], evil))
    assert "<script>alert" not in text and 'alt="<' not in text and text.count("&lt;script&gt;alert") >= 14


def test_numbers_have_four_digits_and_sort_by_their_value():
    assert [number(x) for x in (1.23456, -12345.6, 0.0, float("nan"))] == ["1.235", "\u221212,346", "0", "not a number"]
    cells = Table(["x"], [[0.123456], [Interval(2.0, 1.0, 3.0)], [Interval(2.0, float("nan"), float("nan"))], [None]])
    text = cells.html([])
    assert 'data-value="0.123456">0.1235<' in text and "2<small>1 to 3</small>" in text and ">2</td>" in text
