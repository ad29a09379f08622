"""``rdu-batch report OUTPUT``: one page about an output, for a browser or a printer."""

from __future__ import annotations

from pathlib import Path

import click

from rdu_batch.cli.parameter_types import FiniteRange, FolderUrl
from rdu_batch.report.ci_text import json_line


@click.command()
@click.argument("output", metavar="OUTPUT", type=FolderUrl())
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The local file to write.",
)
@click.option(
    "--price-per-worker-hour",
    type=FiniteRange(min=0.0),
    help="Show what the runs cost at this price.",
)
def report(output: str, out: Path, price_per_worker_hour: float | None) -> int:
    """Write a page about the output at URL OUTPUT, finished or not.

    One HTML file without scripts; it fetches nothing. The output itself is only read. Where there
    is no job nothing is written, and the exit code is 7, as that of `verify`.
    """
    from rdu_batch.errors import UsageError
    from rdu_batch.report.page import render_page
    from rdu_batch.runner.page_facts import read_page_facts
    from rdu_batch.storage.store import open_store

    facts = read_page_facts(open_store(output))
    page = render_page(facts, price_per_worker_hour=price_per_worker_hour)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {out}: {error.strerror}; choose another file with --out"
        ) from error
    click.echo(f"{facts.output}: {facts.state}; page written to {out}", err=True)
    told = {"output": facts.output, "state": facts.state, "page": str(out), "exit": 0}
    click.echo(json_line(told))
    return 0
