"""``rdu-batch gc OUTPUT``: remove from its ``_run`` folder what no commit record names."""

from __future__ import annotations

import click

from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.report.ci_text import json_line


@click.command()
@click.argument("output", metavar="OUTPUT", type=FolderUrl())
@click.option("--dry-run", is_flag=True, help="Remove nothing, only say what would be removed.")
@click.option(
    "--sealed",
    is_flag=True,
    help="Also remove the sealed copies of a finished output's files, each after its published "
    "file was read and has the right sha256. A file damaged later can then not be repaired.",
)
def gc(output: str, dry_run: bool, sealed: bool) -> int:
    """Remove what killed workers left in the _run folder of the output at URL OUTPUT.

    Touches only shards that are committed, so a resume and a running job miss nothing. Exit 0; 7
    if --sealed met a published file that is damaged.
    """
    from rdu_batch.report.wording import counted
    from rdu_batch.runner.gc import collect_garbage
    from rdu_batch.storage.store import open_store

    store = open_store(output)
    removed = collect_garbage(store, remove_sealed=sealed, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for kind, number in removed.objects.items():
        size = f"{counted(number, 'object')}, {counted(removed.num_bytes[kind], 'byte')}"
        text = f"{verb} {LABELS[kind]}: {size}"
        click.echo(f"{store.url}: {text}", err=True)
    if not removed.objects:
        click.echo(f"{store.url}: nothing to remove", err=True)
    for name in removed.damaged:
        click.echo(
            f"rdu-batch: damaged: {name}: it is not what was committed; its sealed copy was kept. "
            f"`rdu-batch verify {store.url}` says more",
            err=True,
        )
    document = {"output": store.url, "dry_run": dry_run, **removed.to_json()}
    click.echo(json_line(document))
    return removed.exit


#: What each kind of object is to people.
LABELS = {
    "segments": "segments of committed shards",
    "sealed_unnamed": "sealed files that no commit record names",
    "sealed": "sealed copies of published files",
}
