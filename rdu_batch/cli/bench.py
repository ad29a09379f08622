"""``rdu-batch bench ARTIFACT``: how fast a compiled model is here, beside what this machine can do.

Promises: progress on stderr; a table, then one JSON line on stdout.
"""

from __future__ import annotations

import os
import time

import click

from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.report.ci_text import json_line
from rdu_batch.sessions.bench.settings import (
    DEFAULT_NEW_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    DEFAULT_ROUNDS,
    BenchSettings,
)


@click.command("bench")
@click.argument("artifact", metavar="ARTIFACT", type=FolderUrl())
@click.option("--threads", type=int, help="Threads of a session. [default: all processors]")
@click.option(
    "--prompt-tokens", type=int, default=DEFAULT_PROMPT_TOKENS, show_default=True,
    help="Tokens to prefill; with --new-tokens no more than the artifact has positions.",
)  # fmt: skip
@click.option(
    "--new-tokens", type=int, default=DEFAULT_NEW_TOKENS, show_default=True,
    help="Tokens to generate behind them, 3 or more. Both defaults are cut for a short artifact.",
)  # fmt: skip
@click.option(
    "--against", type=click.Choice(["eager"]),
    help="Also measure transformers.generate on the same weights, in the same type.",
)  # fmt: skip
@click.option(
    "--sessions", type=int, metavar="K",
    help="Also open K processes side by side: tokens/s of all, memory of each.",
)  # fmt: skip
@click.option(
    "--without", multiple=True, metavar="PATCH",
    help="Also compile the model without this patch, and show what it buys. May be repeated.",
)  # fmt: skip
@click.option("--keep", metavar="FOLDER", help="Keep what --without compiles for the next time.")
@click.option(
    "--rounds", type=int, default=DEFAULT_ROUNDS, show_default=True, help="Rounds to measure."
)
def bench_command(
    artifact: str,
    threads: int | None,
    prompt_tokens: int,
    new_tokens: int,
    against: str | None,
    sessions: int | None,
    without: tuple[str, ...],
    keep: str | None,
    rounds: int,
) -> int:
    """Measure the compiled model at URL ARTIFACT on this machine.

    Speed stands beside what the machine does in the same moment: decode beside its read bandwidth,
    prefill beside a matrix product. Takes a minute or two, and wants a machine that does nothing
    else. The last line of standard output is one JSON object.
    """
    settings = BenchSettings(
        artifact_url=artifact,
        threads=len(os.sched_getaffinity(0)) if threads is None else threads,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        against_eager=against == "eager",
        sessions=sessions,
        without=tuple(dict.fromkeys(without)),
        keep=keep,
        rounds=rounds,
    )
    from rdu_batch.sessions.bench.measure import bench

    started_s = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - started_s:6.1f} s  {line}", err=True)

    report = bench(settings, say)
    for line in report.to_lines():
        click.echo(line)
    click.echo(json_line(report.to_json()))
    return 0
