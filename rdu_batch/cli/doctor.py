"""``rdu-batch doctor``: what this machine is and has, to read or to paste into a bug report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.report.ci_text import json_line
from rdu_batch.report.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.runner.machine import Machine, StoreAccess


@click.command()
@click.option(
    "--store",
    "stores",
    type=FolderUrl(),
    multiple=True,
    metavar="URL",
    help="Also list this folder, to see whether it can be reached. May be repeated.",
)
def doctor(stores: tuple[str, ...]) -> int:
    """Say what this machine has: versions, cores, memory, compiler, GPUs, stores.

    Writes nothing; `rdu-batch probe URL` tells whether a store can hold an output. Exit 0, or the
    code of the first store that cannot be listed: 6 for a local path where there is no folder. The
    last line of standard output is one JSON object.
    """
    from rdu_batch.runner.machine import examine_machine

    found = examine_machine(stores)
    for line in _lines(found):
        click.echo(line, err=True)
    exit_code = next((store.exit for store in found.stores if store.exit), 0)
    click.echo(json_line(asdict(found) | {"exit": exit_code}))
    return exit_code


def _lines(found: Machine) -> Iterator[str]:
    yield _line("rdu_batch", f"{found.rdu_batch}, Python {found.python}, {found.system}")
    there = [f"{name} {one}" for name, one in found.packages.items() if one]
    missing = [name for name, one in found.packages.items() if not one]
    yield _line("packages", ", ".join(there))
    yield _line("missing", ", ".join(missing) or "nothing")
    sets = ", ".join(found.instruction_sets) or "no instruction set that can be compiled for"
    yield _line("processor", f"{found.processor or 'unknown'}: {found.cores} cores, {sets}")
    yield _line("memory", _memory(found))
    wanted = "none: `compile` needs one (install g++, or name one in CXX); `run` does not"
    yield _line("compiler", found.compiler or wanted)
    yield _line("GPU", "; ".join(found.gpus) or "none that nvidia-smi shows")
    yield _line("RDU", "SambaFlow is installed" if found.packages["sambaflow"] else "no SambaFlow")
    for store in found.stores:
        yield _line("store", f"{store.url}: {store.error or _listed(store)}")


def _listed(store: StoreAccess) -> str:
    objects = counted(store.objects or 0, "object")
    # A folder of folders has none, either.
    note = "" if store.objects else " directly in it"
    return f"{objects}{note}, listed in {store.list_s:.2f} s"


def _memory(found: Machine) -> str:
    copying = f"one thread copies at {found.copy_bytes_per_s / 1e9:.1f} GB/s (read and written)"
    if found.memory_bytes is None or found.memory_available_bytes is None:
        return copying
    total, free = (one / 2**30 for one in (found.memory_bytes, found.memory_available_bytes))
    return f"{total:.1f} GiB, {free:.1f} available; {copying}"


def _line(label: str, text: str) -> str:
    return f"{label:>10}  {text}"
