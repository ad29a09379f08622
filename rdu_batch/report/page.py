"""The report page: values in, one self-contained HTML text out.

Promises: no script, nothing fetched; every text that is not ours is escaped, so that no row can
change the page's structure; the same values give the same page. Does not: read anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rdu_batch.report.page_figures import histogram, rates, worker_bars
from rdu_batch.report.page_markup import moment, section, soft, table, text
from rdu_batch.report.page_runs import runs
from rdu_batch.report.page_style import STYLE
from rdu_batch.report.page_values import PageFacts

_S_PER_HOUR: Final = 3600
#: Runs whose throughput is drawn: the last ones.
_MAX_DRAWN_RUNS: Final = 3
_MAX_DRAWN_WORKERS: Final = 24


def render_page(facts: PageFacts, *, price_per_worker_hour: float | None = None) -> str:
    """The whole page. The price is in any currency; the page names none."""
    sections = [
        _head(facts),
        _throughput(facts),
        _lengths(facts),
        _endings(facts.totals or {}),
        _dead(facts),
        runs(facts.epochs),
        _worker_time(facts),
        _cost(facts, price_per_worker_hour),
        _basis(facts),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(facts.name)}: report</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def worker_seconds(epochs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of all workers by class, over all epochs; ``total_s`` is one of them."""
    sums: dict[str, float] = {}
    for epoch in epochs:
        for name, seconds in (epoch.get("worker_seconds") or {}).items():
            sums[name] = sums.get(name, 0.0) + float(seconds)
    return sums


def _head(facts: PageFacts) -> str:
    looked = f" &middot; as of {moment(facts.looked_s)} UTC" if facts.looked_s is not None else ""
    title = f"<h1>{text(facts.name)}</h1>"
    title += soft(f"{facts.state} &middot; {text(facts.output)}{looked}")
    cards = [("Rows", facts.rows), ("Shards", facts.shards)]
    if facts.totals is None:
        cards += [("Rows durable", facts.rows_durable), ("Shards done", facts.shards_committed)]
    else:
        totals = facts.totals
        cards += [
            ("Predictions", totals["predictions"]),
            ("Dead letters", totals["dead"]),
            ("Prompt tokens", totals["prompt_tokens"]),
            ("Generated tokens", totals["generated_tokens"]),
        ]
    reused = next((one["reused"] for one in reversed(facts.epochs) if one.get("reused")), None)
    if reused:
        num = reused["rows_of_unchanged_files"] + reused["rows_of_same_content"]
        cards.append(("Rows reused", num))
    numbers = [(name, f"{value:,}") for name, value in cards]
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in numbers)
    # No number is broken: the longest decides how wide a card is. Six cards are no five and one.
    digits, columns = max(len(value) for _, value in numbers), 3 if len(cards) == 6 else 4
    since = soft(f"Reused from {text(reused['since'])}") if reused else ""
    cards_shown = f'<dl style="--digits:{digits};--columns:{columns}">{shown}</dl>'
    return f"<header>{title}{cards_shown}{since}</header>"


def _throughput(facts: PageFacts) -> str:
    """Of the last runs that did something, the latest first."""
    worked = [one for one in facts.epochs if (one.get("throughput") or {}).get("rows")]
    figures = ""
    for one in reversed(worked[-_MAX_DRAWN_RUNS:]):
        told, run = one["throughput"], f"run {one.get('epoch', '')}"
        bin_s, end_s = float(told["bin_s"]), told.get("end_s")
        tokens = [float(count) for count in told["generated_tokens"]]
        rows = [float(count) for count in told["rows"]]
        figures += rates(tokens, bin_s, f"Generated tokens a second, {run}", "tokens/s", end_s)
        figures += rates(rows, bin_s, f"Rows a second, {run}", "rows/s", end_s)
    return section("Throughput", figures) if figures else ""


def _lengths(facts: PageFacts) -> str:
    figures = histogram(facts.prompt_tokens, "Prompt length, sampled rows")
    figures += histogram(facts.generated_tokens, "Output length, sampled predictions")
    return section("Lengths", figures) if figures else ""


def _endings(totals: Mapping[str, Any]) -> str:
    """A row has a prediction or a dead letter; a prediction may have several samples."""
    endings = totals.get("finish_reasons", {})
    num_samples, predictions = sum(endings.values()), totals.get("predictions", 0)
    note = ""
    if num_samples != predictions:
        note = soft(
            f"{num_samples:,} samples of {predictions:,} rows: the job makes several a row."
        )
    return _counts("How predictions ended", endings, note)


def _counts(title: str, numbers: Mapping[str, int], note: str = "") -> str:
    total = sum(numbers.values())
    if not total:
        return ""
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    rows = [[text(name), f"{one:,}", f"{one / total:.1%}"] for name, one in ordered]
    return section(title, note + table(["Reason", "Count", "Share"], rows))


def _dead(facts: PageFacts) -> str:
    told = _counts("Dead letters", (facts.totals or {}).get("dead_reasons", {}))
    if facts.dead_samples and not told:
        told = section("Dead letters", soft("How many there are is known when the job is done."))
    for reason, samples in sorted(facts.dead_samples.items()):
        items = "".join(
            f"<li><code>{text(one.place)}</code><p>{text(one.detail)}</p></li>" for one in samples
        )
        told += f"<h3>{text(reason)}</h3><ul>{items}</ul>"
    return told


def _worker_time(facts: PageFacts) -> str:
    sums = worker_seconds(facts.epochs)
    total_s = sums.pop("total_s", 0.0)
    if not total_s:
        return ""
    rows = [
        [f'<i class="k{kind}"></i>{text(_words(name))}', f"{one:,.1f}", f"{one / total_s:.1%}"]
        for kind, (name, one) in enumerate(sums.items())
    ]
    rows.append(["all", f"{total_s:,.1f}", ""])
    told = table(["What", "Seconds", "Share"], rows)
    return section("Where the workers' time went", told + _each_worker(facts, list(sums)))


def _each_worker(facts: PageFacts, classes: list[str]) -> str:
    """Of the last run that had workers: what each did, and its seconds in the classes' colours."""
    last = next((one for one in reversed(facts.epochs) if one.get("by_worker")), None)
    if last is None:
        return ""
    workers = last["by_worker"][:_MAX_DRAWN_WORKERS]
    seconds = [
        (
            f"worker {one['worker_id']}",
            {_words(name): float(one["seconds"].get(name, 0.0)) for name in classes},
        )
        for one in workers
    ]
    heads = ["Worker", "Rows", "Tokens", "Seconds"]
    numbers = ("rows", "generated_tokens")
    rows = [
        [
            f"{one['worker_id']}",
            *(f"{one[name]:,}" for name in numbers),
            f"{one['seconds']['total_s']:,.1f}",
        ]
        for one in workers
    ]
    title = f"<h3>Each worker, run {last.get('epoch', '')}</h3>"
    num_workers = int(last.get("workers", 0)) + int(last.get("workers_lost", 0))
    more = num_workers - len(workers)
    note = soft(f"{more:,} more are not shown.") if more > 0 else ""
    return (
        title + worker_bars(seconds, [_words(one) for one in classes]) + table(heads, rows) + note
    )


def _words(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _cost(facts: PageFacts, price: float | None) -> str:
    if price is None:
        return ""
    hours = worker_seconds(facts.epochs).get("total_s", 0.0) / _S_PER_HOUR
    told = f"{hours * price:,.2f} for {hours:,.4f} worker-hours at {price:,.2f} each"
    return section("Cost", f"<p>{told}, of the runs that reported their end.</p>")


def _basis(facts: PageFacts) -> str:
    told = [_what_was_read(facts)] if facts.num_sampled_parts else []
    told.append("A run that was killed reported nothing: its time is not on this page.")
    if facts.num_epochs_left_out:
        told.append(f"{facts.num_epochs_left_out:,} earlier runs are left out.")
    if facts.num_damaged_parts:
        told.append(f"{facts.num_damaged_parts:,} sampled files are damaged: run verify.")
    return section("What this page is made of", "".join(soft(one) for one in told))


def _what_was_read(facts: PageFacts) -> str:
    is_complete = facts.totals is not None
    parts = "parts" if is_complete else "parts that are finished"
    dead = ""
    if facts.num_dead_files:
        sampled, files = facts.num_sampled_dead_files, facts.num_dead_files
        dead = f", and dead letters of {sampled:,} of {files:,} files,"
    told = (
        f"{facts.num_sampled_rows:,} predictions from the first lines of "
        f"{facts.num_sampled_parts:,} of {facts.num_parts:,} {parts}{dead} were read for this "
        "page. Lengths and samples are of these"
    )
    return f"{told}; all other numbers are of the whole job." if is_complete else f"{told}."
