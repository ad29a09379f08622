"""The names of the files that a consumer of an output folder may rely on.

Promises: every name is relative to the output folder, uses ``/``, and sorts in shard order. Names
that begin with ``_`` are skipped by Spark, Hive and ``datasets`` readers. Does not: join URLs
(``storage``) or name the runner's own working objects (``runner/run_layout.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: Folder of everything a run keeps for itself.
RUN_FOLDER = "_run"
#: The pinned plan, created once.
PLAN = "_run/plan.json"
#: Folder of the line index that the plan names page by page.
INDEX_FOLDER = "_run/index"
#: Folder of large compressed inputs, cut anew into pieces that can be read alone.
RECUT_FOLDER = "_run/recut"
#: Folder of inputs that were files of the machine that submitted the job.
SHIPPED_INPUTS_FOLDER = "_run/inputs"
#: Folder of what is known of sessions that died; for people.
FORENSICS_FOLDER = "_run/forensics"
#: What a job produced; written when every shard is committed.
MANIFEST = "manifest.json"
#: Digest of the manifest; written last.
SUCCESS = "_SUCCESS"

_SHARD_FILE = re.compile(r"(part|dead)-([0-9]{5,})-of-([0-9]{5,})(\.[a-z.]+)")


def index_page(index: int) -> str:
    """Name of page ``index`` of the line index."""
    return f"{INDEX_FOLDER}/{_at_least(0, index):05d}.jsonl"


def part_name(index: int, num_shards: int, suffix: str = ".jsonl") -> str:
    """Name of the predictions of shard ``index`` of ``num_shards``."""
    return _shard_file("part", index, num_shards, suffix)


def dead_name(index: int, num_shards: int, suffix: str = ".jsonl") -> str:
    """Name of the dead letters of shard ``index`` of ``num_shards``."""
    return _shard_file("dead", index, num_shards, suffix)


@dataclass(frozen=True)
class ShardFile:
    """What the name of a part or of a dead letter file says."""

    kind: Literal["part", "dead"]
    index: int
    num_shards: int
    suffix: str


def read_shard_file_name(name: str) -> ShardFile | None:
    """Read back a name of ``part_name`` or ``dead_name``; None for any other name."""
    match = _SHARD_FILE.fullmatch(name)
    if match is None:
        return None
    kind: Literal["part", "dead"] = "part" if match[1] == "part" else "dead"
    found = ShardFile(kind, int(match[2]), int(match[3]), match[4])
    if found.index >= found.num_shards:
        return None
    is_ours = name == _shard_file(kind, found.index, found.num_shards, found.suffix)
    return found if is_ours else None


def _shard_file(kind: str, index: int, num_shards: int, suffix: str) -> str:
    if not 0 <= index < num_shards:
        raise ValueError(f"shard {index} is not one of 0..{num_shards - 1}")
    # One width for all shards of a job, so that names sort in shard order.
    width = max(5, len(str(num_shards)))
    return f"{kind}-{index:0{width}d}-of-{num_shards:0{width}d}{suffix}"


def _at_least(least: int, value: int) -> int:
    if value < least:
        raise ValueError(f"found {value}; wanted at least {least}")
    return value
