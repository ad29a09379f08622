"""The report page: one tree whatever the rows hold, no script, the numbers of its values."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from rdu_batch.report.page import render_page
from rdu_batch.report.page_figures import bins_of, rates
from rdu_batch.report.page_values import DeadSample, PageFacts

HOSTILE = "</li></style></title><script>alert(1)</script>\" ' onload=x <!-- &lt; ]]> \x00 \ud800"
EPOCH = {
    "epoch": 1,
    "state": "complete",
    "wall_s": 10.0,
    "tokens_per_s": 2.5,
    "workers": 2,
    "predicted_wall_s": [8.0, 12.0],
    "worker_seconds": {"total_s": 1800.0, "decode_s": 1350.0, "waiting_s": 450.0},
    "by_worker": [
        {
            "worker_id": 0,
            "rows": 617,
            "generated_tokens": 4000,
            "seconds": {"total_s": 1000.0, "decode_s": 900.0, "waiting_s": 100.0},
        },
        {
            "worker_id": 1,
            "rows": 617,
            "generated_tokens": 5000,
            "seconds": {"total_s": 800.0, "decode_s": 450.0, "waiting_s": 350.0},
        },
    ],
    "throughput": {
        "bin_s": 2.0,
        "rows": [0.0, 100.0, 500.0, 600.0, 34.0],
        "generated_tokens": [0.0, 700.0, 4300.0, 3900.0, 100.0],
    },
}
FAILED = {
    "epoch": 1,
    "exit": 12,
    "error": "Interrupted",
    "message": "stopped by SIGTERM.",
    "wall_s": 100.0,
    "tokens_per_s": 21.5,
    "workers": 2,
    "began_s": 1795905000.0,
    "ended_s": 1795905100.0,
}
FACTS = PageFacts(
    name="nightly",
    output="/data/out",
    state="complete",
    rows=1234,
    rows_durable=1234,
    shards=2,
    shards_committed=2,
    totals={
        "rows": 1234,
        "predictions": 1200,
        "dead": 34,
        "prompt_tokens": 5678,
        "generated_tokens": 91011,
        "finish_reasons": {"eos": 900, "length": 300},
        "dead_reasons": {"bad_json": 34},
    },
    epochs=(EPOCH,),
    prompt_tokens=(3, 4, 4, 90),
    generated_tokens=(20, 20, 7, 1),
    dead_samples={"bad_json": (DeadSample("a.jsonl, line 3", "not JSON"),)},
)
EMPTY = PageFacts("none", "/data/none", "empty", 0, 0, 0, 0, None)


class Tree(HTMLParser):
    """Tags with attributes in order, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.tags.append(("/" + tag, ()))

    def handle_comment(self, comment):
        raise AssertionError(comment)

    def handle_data(self, text):
        self.text.append(text)


def hurt(facts):
    sample = DeadSample(HOSTILE, HOSTILE)
    return replace(
        facts,
        name=HOSTILE,
        output=HOSTILE,
        totals={**facts.totals, "finish_reasons": {"eos": 900, HOSTILE: 300}},
        epochs=({**EPOCH, "state": HOSTILE},),
        dead_samples={HOSTILE: (sample,)},
    )


def test_markup_in_any_text_changes_nothing_of_the_page_s_tree():
    """The same tags and attributes, and the hostile text is there as text."""
    calm, hostile = Tree(render_page(FACTS)), Tree(render_page(hurt(FACTS)))
    assert hostile.tags == calm.tags
    assert hostile.open == []
    calm = replace(FACTS, epochs=(FAILED,))
    run = {**FAILED, "message": HOSTILE, "error": HOSTILE, "exit": HOSTILE}
    assert Tree(render_page(replace(calm, epochs=(run,)))).tags == Tree(render_page(calm)).tags
    assert "<script>alert(1)</script>" in "".join(hostile.text)
    render_page(hurt(FACTS)).encode()


@pytest.mark.parametrize(
    "facts", [FACTS, EMPTY, replace(FACTS, epochs=(EPOCH, {"epoch": 2, "error": "Interrupted"}))]
)
def test_a_page_has_no_script_and_fetches_nothing(facts):
    """Of every state: no element or attribute that runs or loads, every element closed."""
    page = Tree(render_page(facts, price_per_worker_hour=1.0))
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "a"})
    names = {name for _, attrs in page.tags for name, _ in attrs}
    assert not [name for name in names if name.startswith("on") or name in {"src", "href"}]
    assert "url(" not in render_page(facts)


def test_totals_shares_and_cost_are_those_of_the_values():
    """Half a worker-hour an epoch: two epochs at 3.00 cost 3.00."""
    text = " ".join(
        Tree(render_page(replace(FACTS, epochs=(EPOCH, EPOCH)), price_per_worker_hour=3.0)).text
    )
    for told in ("1,234", "91,011", "75.0%", "25.0%", "8.0-12.0", "3.00 for 1.0000 worker-hours"):
        assert told in text


def test_throughput_and_each_worker_are_drawn_from_the_run_s_result():
    """A rate a bin, and each worker's seconds as shares of the longest life."""
    many = [{**EPOCH["by_worker"][0], "worker_id": number} for number in range(60)]
    text = " ".join(Tree(render_page(FACTS)).text)
    assert "Generated tokens a second, run 1" in text
    assert "0:04 to 0:06: 2,150.0 tokens/s" in text
    assert "worker 1, waiting: 350.0 s" in text
    crowded = render_page(replace(FACTS, epochs=({**EPOCH, "by_worker": many, "workers": 60},)))
    assert "36 more are not shown" in crowded
    bars = [dict(attrs) for tag, attrs in Tree(render_page(FACTS)).tags if tag == "rect"]
    of_workers = [float(one["width"]) for one in bars if one.get("class", "").startswith("k")]
    assert of_workers == [252.0, 28.0, 126.0, 98.0]


def bars_of(figure):
    """(x, width, height) of each column."""
    found = [dict(attrs) for tag, attrs in Tree(figure).tags if tag == "rect"]
    return [tuple(float(one[name]) for name in ("x", "width", "height")) for one in found]


@pytest.mark.parametrize("num_bins", [2, 3, 5, 60])
def test_a_steady_run_fills_the_width_of_its_figure(num_bins):
    """However few bins it has: what is left empty looks like a pause."""
    bars = bars_of(rates([10.0] * num_bins, 1.0, "Rows a second", "rows/s"))
    assert bars[0][0] <= 1
    assert bars[-1][0] + bars[-1][1] >= 359
    assert all(two[0] - (one[0] + one[1]) <= 1.01 for one, two in pairwise(bars))


@pytest.mark.parametrize(("last", "end_s", "num_bars"), [(5.0, 4.5, 5), (1.0, 4.1, 4)])
def test_the_last_bin_counts_as_far_as_the_run_went(last, end_s, num_bars):
    """Ten rows a second to the end, in the middle of a second or at its beginning: no fall."""
    figure = rates([10.0, 10.0, 10.0, 10.0, last], 1.0, "Rows a second", "rows/s", end_s)
    bars = bars_of(figure)
    assert len(bars) == num_bars
    assert {height for *_, height in bars} == {100.0}
    assert bars[-1][1] == pytest.approx(360 * (end_s - (num_bars - 1)) / end_s - 1, abs=0.1)


def test_a_result_of_an_earlier_version_has_no_such_figures():
    """Nothing is drawn of what was not kept."""
    old = {key: one for key, one in EPOCH.items() if key not in {"by_worker", "throughput"}}
    text = " ".join(Tree(render_page(replace(FACTS, epochs=(old,)))).text)
    assert "Throughput" not in text
    assert "Each worker" not in text
    assert "Where the workers' time went" in text


def test_reused_rows_are_shown_with_their_origin():
    """Both kinds of reused rows together, and the parent, escaped."""
    reused = {"rows_of_unchanged_files": 40, "rows_of_same_content": 2, "since": "<old>"}
    text = Tree(render_page(replace(FACTS, epochs=({**EPOCH, "reused": reused},)))).text
    assert "42" in text
    assert "Reused from <old>" in text


def cells_of(page):
    """Text of the cells of each line of the table of runs."""
    (runs,) = re.findall(r"<h2>Runs: .*?</section>", page)
    lines = re.findall(r"<tr.*?>(.*?)</tr>", runs)[1:]
    return [
        [" ".join("".join(Tree(cell).text).split()) for cell in re.findall(r"<td.*?>.*?</td>", one)]
        for one in lines
    ]


def test_a_run_that_failed_tells_what_it_did_and_one_that_was_killed_is_there():
    """Its end, exit code, message, time, rate and workers; of a killed one what is known."""
    killed = {"epoch": 2, "state": "killed"}
    page = render_page(replace(FACTS, epochs=(FAILED, killed, {**EPOCH, "epoch": 3, "exit": 0})))
    first, below, second, third = cells_of(page)
    assert below == ["2026-11-28 22:30:00 to 22:31:40 UTCstopped by SIGTERM."]
    assert first[0] == "1 Interrupted, exit 12"
    assert first[1:] == ["100.0", "", "21.5", "2"]
    assert second == ["2 killed", "", "", "", ""]
    assert third[0] == "3 complete, exit 0"


def test_a_failed_run_of_an_earlier_version_tells_what_its_workers_tell():
    """It said neither how long it took nor how many workers it had."""
    kept = {name: EPOCH[name] for name in ("worker_seconds", "by_worker", "throughput")}
    page = render_page(replace(FACTS, epochs=({"epoch": 1, "error": "Interrupted", **kept},)))
    assert cells_of(page) == [["1 Interrupted", "> 1,000.0", "", "900.0", "2"]]


def test_a_page_says_when_it_was_made():
    """Of the moment that its values name."""
    text = "".join(Tree(render_page(replace(FACTS, looked_s=1795905000.0))).text)
    assert "as of 2026-11-28 22:30:00 UTC" in text


def test_samples_are_not_called_rows():
    """810 endings of 270 rows with a prediction, three samples each."""
    totals = {**FACTS.totals, "predictions": 270, "finish_reasons": {"eos": 800, "length": 10}}
    text = " ".join(Tree(render_page(replace(FACTS, totals=totals))).text)
    assert "How predictions ended" in text
    assert "810 samples of 270 rows: the job makes several a row." in text
    assert "samples" not in "".join(Tree(render_page(replace(FACTS, num_sampled_parts=0))).text)


def test_an_unfinished_page_says_what_was_read_and_nothing_of_what_was_not():
    """No sentence about 0 of 0 parts; dead letters stand below their own heading."""
    begun = replace(FACTS, state="unfinished", totals=None, epochs=())
    assert "were read" not in render_page(begun)
    half = replace(begun, num_sampled_parts=2, num_parts=3, num_sampled_rows=4)
    text = " ".join(Tree(render_page(half)).text)
    assert "4 predictions from the first lines of 2 of 3 parts that are finished were" in text
    assert "Dead letters" in text


@pytest.mark.parametrize("values", [[5], [0, 1], list(range(100)), [1, 1000000], [7] * 9])
def test_every_value_is_in_exactly_one_bin(values):
    """Counted again one by one; bins follow each other without a gap."""
    bins = bins_of(values)
    for first, last, count in bins:
        assert count == sum(first <= value <= last for value in values)
    assert sum(count for *_, count in bins) == len(values)
    assert all(one[1] + 1 == two[0] for one, two in pairwise(bins))
