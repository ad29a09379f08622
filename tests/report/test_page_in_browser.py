"""The report page as people see it: in Chromium, light and dark, on a phone and printed.

Screenshots of every state are left in ``build/screenshots`` for whoever wants to look.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rdu_batch.report.page import render_page
from tests.report.test_page import EMPTY, EPOCH, FACTS, FAILED, HOSTILE, hurt

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
#: A failed run before the one that ended: every section of the page has something.
FULL = replace(
    FACTS,
    epochs=(FAILED, {"epoch": 2, "state": "killed"}, {**EPOCH, "epoch": 3, "exit": 0}),
    num_sampled_parts=2,
    num_parts=2,
    looked_s=1795905200.0,
)
STATES = {
    "complete": FULL,
    "hostile": hurt(FULL),
    "unfinished": replace(
        FACTS, state="unfinished", totals=None, epochs=(FAILED,), dead_samples={}
    ),
    "empty": EMPTY,
}
#: Width and height in pixels, colour scheme, medium.
VIEWS = {
    "light": ((1200, 900), "light", "screen"),
    "dark": ((1200, 900), "dark", "screen"),
    "phone": ((360, 740), "dark", "screen"),
    "print": ((794, 1123), "dark", "print"),
}
#: Least contrast of text to its ground (WCAG 2.2, level AA).
LEAST_CONTRAST = 4.5
CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => {
      one /= 255;
      return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("h1,h2,h3,p,td,th,dt,dd,li,code,figcaption,svg text")]
    .filter((one) => one.textContent.trim())
    .map((one) => {
      const style = getComputedStyle(one);
      const ink = light(one.ownerSVGElement ? style.fill : style.color);
      const below = light(ground(one));
      const ratio = (Math.max(ink, below) + 0.05) / (Math.min(ink, below) + 0.05);
      return [one.tagName + ": " + one.textContent.slice(0, 30), ratio];
    });
}"""


@pytest.fixture(scope="module")
def chromium():
    """Debian's, without its calls home."""
    program = shutil.which("chromium")
    if program is None:
        missing = "Chromium is not installed: run `make test-servers`"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("state", STATES)
def test_the_page_can_be_read(chromium, tmp_path, state, view):
    """Nothing overflows, every text stands out from its ground, nothing is fetched or run."""
    (width, height), scheme, medium = VIEWS[view]
    path = tmp_path / "report.html"
    path.write_text(render_page(STATES[state], price_per_worker_hour=2.5))
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.emulate_media(media=medium, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"report-{state}-{view}.png", full_page=True)
    assert asked == [path.as_uri()]
    assert said == []
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 5
    assert [told for told in contrasts if told[1] < LEAST_CONTRAST] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = scheme == "dark" and medium == "screen"
    assert (ground != "rgb(255, 255, 255)") is is_dark
    if state == "hostile":
        assert HOSTILE[:30] in page.inner_text("body")
    if state == "complete":
        heads = page.locator("h2").all_inner_texts()
        assert {"Throughput", "Lengths", "Where the workers' time went", "Cost"} <= set(heads)
        boxes = [one.bounding_box() for one in page.locator("svg").all()]
        assert len(boxes) == 5
        assert all(box["width"] > 200 and box["x"] + box["width"] <= width for box in boxes)
    page.close()


@pytest.mark.parametrize("width", [390, 800, 1100, 1200])
@pytest.mark.parametrize("rows", [3_643_748, 987_654_321_098])
def test_no_number_is_broken(chromium, tmp_path, width, rows):
    """Of seven digits and of twelve: each on one line, inside its card, on any screen."""
    path = tmp_path / "report.html"
    totals = {**FACTS.totals, "prompt_tokens": rows, "generated_tokens": rows, "predictions": rows}
    path.write_text(render_page(replace(FULL, rows=rows, totals=totals)))
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(path.as_uri())
    numbers = page.evaluate(
        """() => [...document.querySelectorAll("dd")].map((one) => {
          const words = document.createRange();
          words.selectNodeContents(one);
          const right = words.getBoundingClientRect().right;
          const room = one.getBoundingClientRect().right;
          return [words.getClientRects().length, right <= room + 0.5];
        })"""
    )
    assert numbers == [[1, True]] * 6
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_printed_page_keeps_its_figures_whole(chromium, tmp_path):
    """As PDF, of A4: it comes out, and no figure is wider than the paper."""
    path = tmp_path / "report.html"
    path.write_text(render_page(FULL))
    page = chromium.new_page()
    page.goto(path.as_uri())
    printed = page.pdf(path=SCREENSHOTS / "report.pdf", format="A4")
    assert printed.startswith(b"%PDF-")
    assert 1 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 4
    page.close()
