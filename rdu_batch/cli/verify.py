"""``rdu-batch verify OUTPUT``: does a finished output hold what its manifest promises?"""

from __future__ import annotations

import click

from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.errors import VerifyFailed
from rdu_batch.report.ci_text import json_line

REPAIR = (
    "rdu-batch: to repair: delete the damaged files, manifest.json and _SUCCESS, then run the job "
    "again; what was committed is published anew from _run/."
)


@click.command()
@click.argument("output", metavar="OUTPUT", type=FolderUrl())
def verify(output: str) -> int:
    """Re-read the finished output at URL OUTPUT and check every row, count and hash.

    Works on a copy that was moved, and without its _run folder. Exit 0 if all is as promised, 7 if
    not; each problem names its shard, and the row where that can be told.
    """
    from rdu_batch.runner.verify import verify_output
    from rdu_batch.storage.store import open_store

    found = verify_output(open_store(output))
    for problem in found.problems:
        click.echo(f"rdu-batch: damaged: {problem}", err=True)
    if not found.is_sound:
        click.echo(REPAIR, err=True)
    exit_code = 0 if found.is_sound else VerifyFailed.exit_code
    if found.is_sound:
        text = f"{found.output}: {found.rows:,} rows in {found.shards:,} shards, each row once"
        click.echo(text, err=True)
    document = {
        "output": found.output,
        "rows": found.rows,
        "shards": found.shards,
        "problems": found.problems,
        "exit": exit_code,
    }
    click.echo(json_line(document))
    return exit_code
