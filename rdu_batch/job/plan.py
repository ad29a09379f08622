"""The plan: which rows exist, in which order, and which shard each belongs to.

Promises: plain frozen values and pure functions; the same values give the same bytes on every
machine (sorted keys, UTF-8, one text for each number); which shard a row belongs to depends on the
plan alone. Does not: list or read inputs (``dataset``), or store anything (``storage``).

Row semantics: every input is a logical stream of lines, split on LF only: a file's own bytes, the
decompressed ones, or the elements of a JSON array, one a line. A line number is 1-based and counts
every line, blank ones too. A row is a line that is not blank: something is left after removing a
byte order mark at offset 0 and stripping spaces, tabs and CR. In a table (Parquet) every record is
a line and a row. Row ordinals count rows over all files in index order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import OutputMismatch

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec

_to_json_string = json.JSONEncoder(ensure_ascii=False).encode
#: Version of the plan and of the files it leads to; a change of either is a change of the other.
FORMAT_VERSION = 4
#: A stream is indexed, and read, in windows of this many bytes.
WINDOW_BYTES = 1 << 20
#: A stream that must be decoded is decoded from its start by whoever reads it, up to this size; a
#: larger one is cut anew into pieces that can be read alone.
MAX_DECODED_BYTES = 64 << 20
#: Windows of one such piece.
WINDOWS_PER_PIECE = 8
#: A longer line is never held in memory: it is a dead letter.
MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True)
class Window:
    """The lines that START in bytes [k * W, (k + 1) * W) of a stream, W = ``WINDOW_BYTES``.

    In a table a window is a row group: its records, and the number of the first from 0.
    """

    num_lines: int
    #: Lines that are not blank.
    num_rows: int
    #: Absolute offset of the first line that starts here; -1 if none does.
    first_line_offset: int
    #: 16 hex digits, the XXH3 of the window's own bytes; in a table, of the bytes stored.
    digest: str


@dataclass(frozen=True)
class InputFile:
    """One input file, pinned and indexed."""

    index: int
    url: str
    #: Relative to the part of its URL pattern that has no wildcard; seeds the sampling of its rows.
    path: str
    #: As its name ends, such as ``jsonl.gz``.
    format: str
    #: Of the file as it is stored.
    size_bytes: int
    #: Of the file as it is stored; None where the store gives none.
    etag: str | None
    #: Bytes of the logical stream; for a table, its records.
    logical_bytes: int
    #: Digest of the content: the sha256 of its windows' digests, one after the other.
    windows_sha256: str
    num_lines: int
    num_rows: int
    windows: tuple[Window, ...]

    def to_line(self) -> bytes:
        """One line of an index page, with its LF: canonical JSON, put together by hand.

        A plan of a million files has a million of them.
        """
        windows = ",".join(
            f'[{w.num_lines},{w.num_rows},{w.first_line_offset},"{w.digest}"]' for w in self.windows
        )
        etag = "null" if self.etag is None else _to_json_string(self.etag)
        line = (
            f'{{"etag":{etag},"format":{_to_json_string(self.format)},"index":{self.index}'
            f',"logical_bytes":{self.logical_bytes},"num_lines":{self.num_lines}'
            f',"num_rows":{self.num_rows},"path":{_to_json_string(self.path)}'
            f',"size_bytes":{self.size_bytes},"url":{_to_json_string(self.url)}'
            f',"windows":[{windows}],"windows_sha256":"{self.windows_sha256}"}}\n'
        )
        return line.encode()

    @classmethod
    def from_line(cls, line: bytes) -> InputFile:
        """Read back what ``to_line`` wrote. Raises OutputMismatch for anything else."""
        try:
            content = json.loads(line)
            windows = tuple(Window(*values) for values in content.pop("windows"))
            return cls(windows=windows, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutputMismatch(
                "a line of the index in _run/index/ is damaged; wanted one input file as JSON; "
                "delete the output folder, or choose another one, and run again"
            ) from error


def digest_of_windows(windows: Iterable[Window]) -> str:
    """The hex sha256 of the digests of these windows, one after the other."""
    return hashlib.sha256("".join(window.digest for window in windows).encode()).hexdigest()


@dataclass(frozen=True)
class IndexPage:
    """One object under ``_run/index/``: JSON lines, one ``InputFile`` a line."""

    #: Relative to the output, such as ``_run/index/00000.jsonl``.
    name: str
    sha256: str
    first_file: int
    num_files: int
    first_row: int
    num_rows: int


@dataclass(frozen=True)
class LongestRow:
    """One of the longest rows of the inputs: where it is and how many bytes it has."""

    file_index: int
    line: int
    path: str
    num_bytes: int


@dataclass(frozen=True)
class Parent:
    """The finished output that this one began from; nothing says where it lies."""

    #: Hex digest of the parent's ``manifest.json``.
    manifest_sha256: str
    #: Of a retry of dead letters: the reasons of those that are run again, sorted, as far as the
    #: parent has them. None for a run over inputs that changed since the parent (``input.since``).
    reasons: tuple[str, ...] | None

    def retries(self, reasons: Iterable[str]) -> bool:
        """Whether a shard with dead letters of these reasons has a row that is run again."""
        return not set(self.reasons or ()).isdisjoint(reasons)

    def to_json(self) -> dict[str, Any]:
        """A JSON object, for the plan and the manifest."""
        reasons = {} if self.reasons is None else {"reasons": list(self.reasons)}
        return {"manifest_sha256": self.manifest_sha256, **reasons}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Parent:
        """Read back what ``to_json`` wrote. Raises KeyError or TypeError for anything else."""
        reasons = tuple(map(str, document["reasons"])) if "reasons" in document else None
        return cls(str(document["manifest_sha256"]), reasons)


@dataclass(frozen=True)
class Shard:
    """A fixed, half-open range of row ordinals: one output file."""

    index: int
    first_row: int
    end_row: int

    @property
    def num_rows(self) -> int:
        """How many rows the shard has; 0 for the one shard of a job without rows."""
        return self.end_row - self.first_row


@dataclass(frozen=True)
class Plan:
    """What a job will do to which rows. Saved once per output; every run of it reads it back."""

    version: int
    name: str
    #: ``digest_of(decides)``: two runs with the same digest may share an output.
    job_digest: str
    #: What decides the bytes of the output; see ``job_decides``.
    decides: dict[str, Any]
    num_files: int
    #: Rows that will be predicted: ``input.limit`` is applied already.
    num_rows: int
    num_bytes: int
    rows_per_shard: int
    index_pages: tuple[IndexPage, ...]
    longest_rows: tuple[LongestRow, ...]
    #: Set for a retry of dead letters, and for a run with ``input.since``.
    parent: Parent | None = None

    @property
    def num_shards(self) -> int:
        """At least 1: a job without rows still has one, empty, part."""
        return max(1, -(-self.num_rows // self.rows_per_shard))

    @cached_property
    def digest(self) -> str:
        """``sha256:`` and the hex digest of ``to_bytes()``."""
        return _sha256(self.to_bytes())

    def shard(self, index: int) -> Shard:
        """The shard of this index. Raises IndexError outside 0..num_shards - 1."""
        if not 0 <= index < self.num_shards:
            raise IndexError(f"shard {index} is not one of 0..{self.num_shards - 1}")
        first_row = index * self.rows_per_shard
        return Shard(index, first_row, min(first_row + self.rows_per_shard, self.num_rows))

    def shards(self) -> Iterator[Shard]:
        """All shards in order. Together they hold every row once."""
        return (self.shard(index) for index in range(self.num_shards))

    def with_parent(self, parent: Parent) -> Plan:
        """The same rows in the same shards, made from that parent."""
        return replace(self, parent=parent)

    def to_bytes(self) -> bytes:
        """The plan as JSON a person can read; the same plan always gives the same bytes."""
        values = asdict(self)
        if self.parent is None:
            del values["parent"]
        else:
            values["parent"] = self.parent.to_json()
        text = json.dumps(values, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Plan:
        """Read back what ``to_bytes`` wrote.

        Raises:
            OutputMismatch: another format version, or damaged. Ends the job.
        """
        try:
            values = json.loads(content)
            version = values["version"]
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged_plan(f"it is not a plan ({len(content)} bytes)") from error
        if version != FORMAT_VERSION:
            raise OutputMismatch(
                f"{_PLAN_NAME}: found plan version {version!r:.40}; this program reads version "
                f"{FORMAT_VERSION}; finish this output with the program that made it, or choose "
                "another output.url"
            )
        try:
            pages = tuple(IndexPage(**page) for page in values.pop("index_pages"))
            longest = tuple(LongestRow(**row) for row in values.pop("longest_rows"))
            parent = Parent.from_json(values.pop("parent")) if "parent" in values else None
            return cls(index_pages=pages, longest_rows=longest, parent=parent, **values)
        except (TypeError, KeyError) as error:
            raise _damaged_plan("its fields are not those of a plan") from error


_PLAN_NAME = "_run/plan.json"


def _damaged_plan(found: str) -> OutputMismatch:
    return OutputMismatch(
        f"{_PLAN_NAME} is damaged: {found}; wanted the JSON this program wrote there; "
        "restore it, or choose another output.url"
    )


def job_decides(spec: JobSpec, artifact_digest: str) -> dict[str, Any]:
    """Everything of a job that decides the bytes of its output, as plain JSON values.

    Two specs with equal results may share an output. Name, limits, worker counts and the output's
    URL are left out: they may change between runs. URLs are as written, after ``{date}``, wherever
    ``submit`` has copied what they name.
    """
    elsewhere = {"storage_options", "since", "copied_from"}
    inputs = spec.input.model_dump(mode="json", exclude=elsewhere)
    if spec.input.copied_from:
        inputs["urls"] = list(spec.input.copied_from)
    return {
        "format_version": FORMAT_VERSION,
        # How to reach the bytes does not decide them, nor where some of them are made already.
        "input": inputs,
        "prompt": spec.prompt.model_dump(mode="json"),
        "artifact_digest": artifact_digest,
        "session": {"kind": spec.session.kind, "threads": spec.session.threads},
        "generation": spec.generation.model_dump(mode="json"),
        "output": {"format": spec.output.format, "rows_per_shard": spec.output.rows_per_shard},
    }


def canonical_json(value: object) -> bytes:
    """One text for one value: sorted keys, no spaces, UTF-8. Raises ValueError for NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def digest_of(value: object) -> str:
    """``sha256:`` and the hex digest of the value's canonical JSON."""
    return _sha256(canonical_json(value))


def diff_decides(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per difference, such as ``generation.max_new_tokens: 64 -> 32``; [] if equal."""
    return list(_differences(old, new, ""))


_ABSENT = object()


def _differences(old: object, new: object, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            here = f"{path}.{key}" if path else str(key)
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), here)
    elif _is_list(old) and _is_list(new):
        if list(old) != list(new):  # type: ignore[call-overload]
            yield f"{path}: {_shown(old)} -> {_shown(new)}"
    elif old is _ABSENT or new is _ABSENT or canonical_json(old) != canonical_json(new):
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
