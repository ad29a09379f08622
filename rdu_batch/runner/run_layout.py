"""Names of the runner's own objects under ``_run/``; pure, relative to the output folder.

``job/run_paths.py`` names what a plan and a reader of the output need; these names concern only
a run in progress and a resume.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ATTEMPTS_FOLDER = "_run/attempts"
CANARY = "_run/canary.json"
COMMITS_FOLDER = "_run/commits"
DRIVERS_FOLDER = "_run/drivers"
PROBE_FOLDER = "_run/probe"
#: The numbers of the last run that came to its end, for a collector of text files.
OPENMETRICS = "_run/openmetrics.txt"
#: For people; written when a run came to its end, by whoever asked for the run.
REPORT_PAGE = "_run/report.html"
RESULTS_FOLDER = "_run/results"
#: What a run with ``input.since`` took over; written once it is all durable.
REUSED = "_run/reused.json"
ROW_DIGESTS_FOLDER = "_run/row_digests"
SEGMENTS_FOLDER = "_run/segments"
SEALED_FOLDER = "_run/sealed"

_SEGMENT = re.compile(
    r"_run/segments/(?P<shard>\d+)/(?P<first>\d+)-(?P<end>\d+)"
    r"-e(?P<epoch>\d+)-l(?P<lease>\d+)-(?P<sha256>[0-9a-f]{64})\.seg"
)
_SEALED = re.compile(r"_run/sealed/(?P<shard>\d+)/(part|dead)-[0-9a-f]+\.[a-z.]+")


@dataclass(frozen=True, order=True)
class SegmentName:
    """What a segment's name says: a finished row range of one shard, and the sha256 of its bytes.

    Ordered by first row, then end, epoch and lease: the order in which overlaps are settled.
    """

    shard: int
    first_row: int
    end_row: int
    epoch: int
    lease: int
    sha256: str

    @property
    def name(self) -> str:
        """The object's name, relative to the output."""
        return (
            f"{SEGMENTS_FOLDER}/{self.shard:05d}/{self.first_row:012d}-{self.end_row:012d}"
            f"-e{self.epoch:06d}-l{self.lease:06d}-{self.sha256}.seg"
        )

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Read a name back; None for anything that is not a segment (a temporary file, say)."""
        match = _SEGMENT.fullmatch(name)
        if match is None:
            return None
        return cls(
            shard=int(match["shard"]),
            first_row=int(match["first"]),
            end_row=int(match["end"]),
            epoch=int(match["epoch"]),
            lease=int(match["lease"]),
            sha256=match["sha256"],
        )


def driver_epoch(epoch: int) -> str:
    """Created once by the driver that takes this epoch."""
    return f"{DRIVERS_FOLDER}/{epoch:06d}.json"


def driver_heartbeat(epoch: int) -> str:
    """The counter of this epoch, overwritten by its driver for as long as it lives."""
    return f"{DRIVERS_FOLDER}/{epoch:06d}.heartbeat.json"


def epoch_result(epoch: int) -> str:
    """What this epoch reported when it ended; created once."""
    return f"{RESULTS_FOLDER}/{epoch:06d}.json"


def commit_record(shard_index: int) -> str:
    """The commit point of a shard; created once."""
    return f"{COMMITS_FOLDER}/{shard_index:05d}.json"


def sealed(shard_index: int, kind: str, attempt: str, suffix: str = ".jsonl") -> str:
    """A shard's file under a name of this attempt alone; ``kind`` is ``part`` or ``dead``."""
    return f"{SEALED_FOLDER}/{shard_index:05d}/{kind}-{attempt}{suffix}"


def row_digests(shard_index: int, sha256: str) -> str:
    """The row digests of a shard, under the digest of their bytes: equal files are one object."""
    return f"{ROW_DIGESTS_FOLDER}/{shard_index:05d}-{sha256[:32]}.bin"


def shard_of_sealed(name: str) -> int | None:
    """The shard of a name of ``sealed``; None for anything else."""
    match = _SEALED.fullmatch(name)
    return int(match["shard"]) if match else None


def numbers_in(names: list[str]) -> list[int]:
    """The numbers of a listing of ``.../000123.json``, ascending; other names are passed over."""
    stems = (name.rsplit("/", 1)[-1] for name in names)
    return sorted(
        int(stem[: -len(".json")])
        for stem in stems
        if stem.endswith(".json") and stem[: -len(".json")].isdigit()
    )
