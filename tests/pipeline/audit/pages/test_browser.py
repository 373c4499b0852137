"""The pages in a real headless Chromium: they load without an error or a request, sort, filter and show pictures."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support import audit_runs, browser
from support.audit_runs import pair
from support.browser import Page
from support.required import missing

from pipeline.audit.__main__ import main

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium on the PATH: apt-get install chromium"),
]

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
RULES = "rules: [{rule: pair_limit, column: mae, max: 0.2, allowed: 0.01, least_pairs: 1}]"
CANDIDATES = ("model_a", HOSTILE, "a candidate with a long name " * 4)
PAGES = ("report", "compare", "trend", "candidates")

SHOWN = "[...document.querySelectorAll('table.pairs tbody tr')].filter(row => row.checkVisibility())"
TITLES = f"{SHOWN}.map(row => row.dataset.title)"
SSIM = f"{SHOWN}.map(row => row.querySelector('[data-label=ssim]').dataset.value)"
CLIPBOARD = "new Promise(done => setTimeout(done, 50)).then(() => navigator.clipboard.readText())"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of each kind. In the report pair/7 is the worst, an id is hostile, and a pair is corrupt."""
    directory = tmp_path_factory.mktemp("browser")
    pairs = [pair(n, strength=0.9 if n == 7 else 0.05 + n / 100) for n in range(14)]
    pairs += [pair(30, 0.5, HOSTILE), {"id": "bad", "generated": b"", "target": b"", "camera": "camera 0"}]
    run = audit_runs.score(directory, pairs)
    other = audit_runs.score(directory, [pair(n, strength=0.1) for n in range(14)], "other")
    rules = directory / "rules.yaml"
    rules.write_text(RULES)
    assert main(["gate", str(run), f"--rules={rules}"]) == 3
    assert main(["report", str(run), f"--baseline={other}", f"--output={directory / 'report.html'}"]) == 0
    assert main(["compare", str(other), str(run), f"--output={directory / 'compare.html'}"]) == 0
    assert main(["trend", str(other), str(run), f"--output={directory}"]) == 0
    named = [pair(n, 0.1 + 0.1 * k) | {"candidate": name} for n in range(8) for k, name in enumerate(CANDIDATES)]
    candidates = audit_runs.score(directory, named, "candidates", "--keep_fields=candidate,camera")
    assert main(["compare", str(candidates), f"--output={directory / 'candidates.html'}"]) == 0
    return {name: directory / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Page]:
    if browser.EXECUTABLE is None:
        missing("browser", "there is no Chromium on the PATH")
    with browser.browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium, pages) -> Page:
    """The report, freshly opened."""
    chromium.look()
    chromium.open(pages["report"])
    return chromium


def heading(name: str) -> str:
    """The button in the heading of a column of pairs."""
    return f"[...document.querySelectorAll('table.pairs th button')].find(b => b.textContent === '{name}')"


def set_field(page: Page, selector: str, name: str, value: object, event: str) -> None:
    """Change a field and tell the page so, as a person does."""
    field = f"document.querySelector('{selector}')"
    page.run(f"{field}.{name} = {value!r}; {field}.dispatchEvent(new Event('{event}'))")


class TestLoading:
    @pytest.mark.parametrize("name", PAGES)
    def test_no_error_and_no_request(self, chromium, pages, name):
        chromium.look()
        chromium.open(pages[name])
        assert chromium.errors == []
        assert [url for url in chromium.requests if not url.startswith("data:")] == [pages[name].as_uri()]

    @pytest.mark.parametrize("name", ["report", "compare"])
    def test_pictures_are_there(self, chromium, pages, name):
        chromium.open(pages[name])
        images = "[...document.querySelectorAll('main img')]"
        sizes = chromium.run(
            f"Promise.all({images}.map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
        )
        assert len(sizes) >= 20
        assert {tuple(size) for size in sizes} == {(audit_runs.WIDTH, audit_runs.HEIGHT)}
        assert chromium.run(f"{images}.every(i => i.alt && i.clientWidth > 50)")

    def test_policy_stops_what_is_not_ours(self, page):
        page.run(
            "const script = document.createElement('script'); script.textContent = 'window.foreign = 1';"
            "const image = new Image(); image.src = 'https://example.com/x.png'; document.body.append(script, image);"
        )
        assert page.run("window.foreign === undefined")
        assert any("Content Security Policy" in error for error in page.errors)

    def test_hostile_id_is_text(self, page):
        assert HOSTILE in page.run(TITLES)
        assert page.run("document.title").startswith("Audit report: ")


class TestTable:
    def test_sorts_both_ways_and_tells_so(self, page):
        button = heading("ssim")
        for direction, reverse in (("ascending", False), ("descending", True), ("ascending", False)):
            page.run(f"{button}.click()")
            numbers = [float(value) for value in page.run(SSIM)]
            assert numbers == sorted(numbers, reverse=reverse)
            assert page.run(f"{button}.closest('th').ariaSort") == direction
            assert page.run("document.getElementById('announcer').textContent") == f"sorted by ssim, {direction}"
        assert page.run("document.querySelectorAll('#pair-table [aria-sort]:not([aria-sort=none])').length") == 1

    def test_first_click_shows_the_worst(self, page):
        page.run(f"{heading('mae')}.click()")
        assert page.run(TITLES)[0] == "pair/7"

    @pytest.mark.parametrize(
        ("words", "titles"),
        [
            ("pair/7", {"pair/7"}),
            ("CAMERA Pair/13", {"pair/13"}),
            ("onerror", {HOSTILE}),
            ("nothing", set()),
        ],
    )
    def test_filters(self, page, words, titles):
        set_field(page, ".toolbar input", "value", words, "input")
        assert set(page.run(TITLES)) == titles
        assert page.run("document.querySelector('.toolbar output').textContent").startswith(f"{len(titles)} of ")

    def test_chooses_the_worst_of_a_loss(self, page):
        set_field(page, ".toolbar select", "selectedIndex", 2, "change")
        values = [float(v) for v in page.run(SSIM)]
        assert len(values) == 10
        assert values == sorted(values)

    def test_link_reaches_a_pair_that_the_filter_hides(self, page):
        anchor = page.run("document.querySelector('[data-title=\"pair/7\"]').id")
        set_field(page, ".toolbar input", "value", "onerror", "input")
        assert page.run(f"document.querySelector('.verdict a[href=\"#{anchor}\"]').click()") is None
        page.run("new Promise(done => setTimeout(done, 100))")
        assert "pair/7" in page.run(TITLES)
        assert page.run(f"document.querySelector(':target').id === '{anchor}'")

    def test_opens_at_a_pair(self, chromium, pages, page):
        anchor = page.run("document.querySelector('#pair-table tbody tr:last-child').id")
        chromium.open(pages["report"], f"#{anchor}")
        top = chromium.run(f"document.getElementById('{anchor}').getBoundingClientRect().top")
        assert 0 <= top < 900

    def test_copies(self, page):
        page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        page.run("document.querySelector('[data-title=\"pair/7\"] .who button').click()")
        assert page.run(CLIPBOARD) == "pair/7"
        page.run("document.querySelector('[data-copy-table=pair-table]').click()")
        header, *rows = page.run(CLIPBOARD).split("\n")
        assert header.split("\t") == ["pair", "mae", "ssim", "psnr"]
        assert len(rows) == len(page.run(TITLES))
        assert all(len(row.split("\t")) == 4 for row in rows)

    def test_candidates_are_sorted_and_chosen(self, chromium, pages):
        chromium.look()
        chromium.open(pages["candidates"])
        wins = "[...document.querySelectorAll('#candidate-table tbody tr')].map(row => +row.cells[7].dataset.value)"
        chromium.run("document.querySelectorAll('#candidate-table th button')[6].click()")
        assert chromium.run(wins) == sorted(chromium.run(wins), reverse=True)
        choices = chromium.run("document.querySelectorAll('.toolbar option').length - 1")
        assert choices == 3 * 2 * len(audit_runs.LOSSES.split(","))
        set_field(chromium, ".toolbar select", "selectedIndex", 1, "change")
        assert 1 <= len(chromium.run(TITLES)) <= 2

    def test_changes_in_a_comparison_sort_with_infinity(self, chromium, pages):
        chromium.open(pages["compare"])
        chromium.run(f"{heading('mae')}.click()")
        assert chromium.run(TITLES)[0] == "pair/7"


class TestViewer:
    def test_opens_by_keyboard_steps_and_closes(self, page):
        page.run("document.querySelector('.thumb').focus()")
        page.key("Enter")
        assert page.run("document.getElementById('viewer').open")
        titles = page.run(TITLES)
        title = "document.getElementById('viewer-title').textContent"
        assert page.run(title) == titles[0]
        assert page.run("document.querySelectorAll('#viewer img').length") == 5
        page.key("ArrowRight")
        assert page.run(title) == titles[1]
        page.key("ArrowLeft")
        page.key("ArrowLeft")
        assert page.run(title) == titles[-1]
        page.key("Escape")
        assert not page.run("document.getElementById('viewer').open")
        assert page.errors == []


class TestLooks:
    @pytest.mark.parametrize("width", [360, 768, 1920])
    @pytest.mark.parametrize("name", PAGES)
    def test_never_wider_than_the_window(self, chromium, pages, name, width):
        chromium.look(width=width)
        chromium.open(pages[name])
        assert chromium.run("document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("table", ["failure-table", "pair-table"])
    def test_on_a_phone_no_cell_lies_beyond_the_edge(self, chromium, pages, table):
        chromium.look(width=360)
        chromium.open(pages["report"])
        assert (
            chromium.run(
                f"(box => box.scrollWidth - box.clientWidth)(document.getElementById('{table}').parentElement)"
            )
            == 0
        )

    def test_themes_differ(self, chromium, pages, tmp_path):
        colours = []
        for scheme in ("light", "dark"):
            chromium.look(scheme)
            chromium.open(pages["report"])
            colours.append(chromium.run("getComputedStyle(document.body).backgroundColor"))
            chromium.screenshot(tmp_path / f"{scheme}.png")
            assert (tmp_path / f"{scheme}.png").stat().st_size > 50_000
        light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert light > 3 * 230 > 3 * 40 > dark

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("name", PAGES)
    def test_text_has_contrast(self, chromium, pages, name, scheme):
        """4.5 to 1 or more, as WCAG 2 demands at level AA of text of this size."""
        chromium.look(scheme)
        chromium.open(pages[name])
        assert chromium.run(_LOW_CONTRAST) == []

    def test_paper_shows_the_rows_and_no_controls(self, chromium, pages):
        chromium.look("dark", media="print")
        chromium.open(pages["report"])
        assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert chromium.run("[...document.querySelectorAll('nav, .toolbar, .copy')].every(e => !e.checkVisibility())")
        assert len(chromium.run(TITLES)) >= 10

    @pytest.mark.parametrize("name", PAGES)
    def test_landmarks_names_and_order_of_headings(self, chromium, pages, name):
        chromium.look()
        chromium.open(pages[name])
        assert (
            chromium.run("['header', 'nav', 'main', 'footer'].map(tag => document.querySelectorAll(tag).length)")
            == [1] * 4
        )
        levels = chromium.run("[...document.querySelectorAll('main h1, header h1, h2, h3')].map(h => +h.tagName[1])")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        unnamed = chromium.run(
            "[...document.querySelectorAll('button, input, select, a')]"
            ".filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"
        )
        assert unnamed == []
        assert chromium.run("[...document.querySelectorAll('main svg[role=img]')].every(e => e.ariaLabel)")
        ids = chromium.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


# Every element with text of its own whose colour stands out too little from the first opaque background behind it.
_LOW_CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = new Set();
  for (const element of document.querySelectorAll("header *, main *, footer *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colour = rgb(element.closest("svg") ? style.fill : style.color).slice(0, 3);
    const [light, dark] = [luminance(colour), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.add(`${element.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
  }
  return [...found];
})()
"""
