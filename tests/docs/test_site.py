"""The site in a real browser: pages are whole, links and the search lead on, and nothing goes wrong."""

import re
from pathlib import Path

import build_site
import pytest
from browser import open_browser
from serving import served

ROOT = Path(__file__).parents[2]
SOURCES = {".py", ".md", ".png", ".gif", ".css", ".yml"}
BROKEN = "[...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src)"


def is_current(index):
    """Whether a built start page is younger than all that the site is made from."""
    folders = ("docs", "examples", "maml_rl", "envs", "scripts")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES]
    newest = max(path.stat().st_mtime for path in [*sources, ROOT / "mkdocs.yml"])
    return index.exists() and index.stat().st_mtime > newest


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site: the one that lies in build/, if nothing has changed since, or else a new one."""
    pytest.importorskip("zensical", reason="no Zensical: pip install -e .[docs]")
    folder = build_site.BUILD
    if not is_current(folder / "site" / "index.html"):
        folder = tmp_path_factory.mktemp("built")
        build_site.stage(folder / "docs")
        assert build_site.render(folder) == 0
    with served(folder / "site") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


@pytest.fixture
def opened(browser, site):
    """Open a page by its name; all it asks for is there and of this site, and no error may reach its console."""
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda asked: wrong.append(asked.url) if re.match(f"http(?!{site[4:]})", asked.url) else None)

    def open_page(name):
        page.goto(site + name, wait_until="networkidle")
        return page

    yield open_page
    page.close()
    assert not wrong


@pytest.mark.parametrize(
    ("name", "title", "shown"),
    [
        ("index.html", "Start here", "img >> nth=0"),
        ("tutorials/sinusoid.html", "Sinusoids", "img >> nth=0"),
        ("reference/api.html", "Python", "[id='maml_rl.api.train.train']"),
        ("reference/settings-environments-maml.html", "maml on environments", "code:has-text('--inner.step-size')"),
        ("scores.html", "All stored scores", "table >> nth=0"),
        ("gallery.html", "Gallery", "img >> nth=0"),
    ],
)
def test_a_page_is_whole(name, title, shown, opened):
    page = opened(name)
    assert title in page.title() and title in page.locator("h1").inner_text()
    assert page.locator(f"article {shown}").first.is_visible()
    assert page.evaluate(BROKEN) == []


def test_tabs_and_links_lead_from_page_to_page(opened, site):
    page = opened("index.html")
    page.locator(".md-tabs").get_by_role("link", name="Tutorials").click()
    page.wait_for_url(f"{site}tutorials/index.html")
    page.locator("article").get_by_role("link", name="Sinusoids").first.click()
    page.wait_for_url(f"{site}tutorials/sinusoid.html")
    page.get_by_role("link", name="Next").click()
    page.wait_for_url(f"{site}tutorials/navigation.html")
    page.locator(".md-tabs").get_by_role("link", name="Reference").click()
    page.wait_for_url(f"{site}reference/index.html")
    assert page.locator("h1").inner_text().startswith("Reference")


def test_the_search_finds_a_page(opened, site):
    page = opened("index.html")
    page.get_by_role("button", name="Search").click()
    page.keyboard.type("glossary")
    page.locator("a[href*='glossary.html?h=glossary']").first.click()  # a result, with the word to be marked
    page.wait_for_url(f"{site}explanation/glossary.html**")
    assert page.locator("h1").inner_text().startswith("Glossary")
