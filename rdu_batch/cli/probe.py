"""``rdu-batch probe URL``: what does this store guarantee, and can it hold an output?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.errors import StoreError
from rdu_batch.report.ci_text import json_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.storage.protocol import ProbeReport


@click.command()
@click.argument("url", metavar="URL", type=FolderUrl())
def probe(url: str) -> int:
    """Measure what the store at folder URL guarantees, and name the commit protocol for it.

    Writes a few dozen small objects into a new folder below URL/_run/probe and removes them again.
    Exit 0 if objects are created exactly once there, even by eight creators at the same time; 6 if
    not, saying what can be done. The last line of standard output is one JSON object.
    """
    from rdu_batch.runner.run_layout import PROBE_FOLDER
    from rdu_batch.storage.probe import probe_store
    from rdu_batch.storage.protocol import Protocol
    from rdu_batch.storage.store import open_store

    found = probe_store(open_store(url), PROBE_FOLDER)
    exit_code = 0 if found.protocol is Protocol.CREATE_ONCE else StoreError.exit_code
    for line in _table(found):
        click.echo(line, err=True)
    click.echo(json_line(found.to_json() | {"exit": exit_code}))
    return exit_code


def _table(found: ProbeReport) -> Iterator[str]:
    from rdu_batch.storage.protocol import MEANING

    yield found.url
    for finding in found.findings:
        yield f"  {finding.verdict:<12}{MEANING[finding.guarantee]}"
        yield f"  {'':<12}  {finding.seen}"
    if found.latency_ms:
        latencies = ", ".join(f"{request} {ms:g}" for request, ms in found.latency_ms.items())
        yield f"  median ms   {latencies}"
    by = f", by {found.create_once_by}" if found.create_once_by else ""
    yield f"  protocol    {found.protocol}{by if found.protocol == 'create_once' else ''}"
    yield f"  {found.advice}"
