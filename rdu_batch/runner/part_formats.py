"""The format of a part: its lines as they are, compressed, or as Parquet; and its lines read back.

A shard's predictions are spooled as lines, then packed whole. Whoever checks or continues an output
reads lines again: of every format they are the lines that were packed, byte for byte.

Promises: the same lines give the same file with the same library, on every machine, whoever packs
them (no times, no names, one thread); memory stays bounded. Does not: promise the same bytes from
another release of a compressing library, or pack dead letters, which are always JSON lines.

Parquet has a column for each key of a prediction line, in that order. ``id`` and carried fields
are texts that hold JSON, exactly as the input had it, null where the line has null: a field may be
a number in one row and a list in the next.
"""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfileobj
from typing import IO, TYPE_CHECKING, Any, Final

from rdu_batch.errors import StoreDriverMissing

if TYPE_CHECKING:
    from rdu_batch.job.plan import Plan

#: Suffix of a part of each format.
SUFFIX_OF: Final = {
    "jsonl": ".jsonl",
    "jsonl.gz": ".jsonl.gz",
    "jsonl.zst": ".jsonl.zst",
    "parquet": ".parquet",
}
#: Module and extra that a format needs.
_NEEDS: Final = {"jsonl.zst": ("zstandard", "zstd"), "parquet": ("pyarrow", "parquet")}
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3
_BLOCK_BYTES: Final = 1 << 20


def format_of(plan: Plan) -> str:
    """The format of a plan's parts."""
    return str(plan.decides["output"]["format"])


def suffix_of(plan: Plan) -> str:
    """The suffix of a plan's parts."""
    return SUFFIX_OF[format_of(plan)]


def check_can_pack(part_format: str) -> None:
    """Whether this machine has what a format needs.

    Raises:
        StoreDriverMissing: it has not; the message names the extra. Ends the job.
    """
    module, extra = _NEEDS.get(part_format, (None, None))
    if module is None:
        return
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise StoreDriverMissing(
            f"output.format {part_format} needs the package {module}, which is not installed here; "
            f"run: pip install 'rdu_batch[{extra}]', or choose another output.format ({error})"
        ) from error


def pack(lines: Path, packed: Path, plan: Plan) -> None:
    """Write the part of a file of prediction lines.

    Raises:
        OSError: the local disk failed.
    """
    part_format = format_of(plan)
    with lines.open("rb") as source, packed.open("wb") as target:
        if part_format == "parquet":
            from rdu_batch.runner.parquet_parts import write_parquet

            write_parquet(source, target, plan)
        elif part_format == "jsonl.gz":
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, target, mtime=0) as zipped:
                copyfileobj(source, zipped, _BLOCK_BYTES)
        elif part_format == "jsonl.zst":
            import zstandard

            compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
            compressor.copy_stream(source, target, read_size=_BLOCK_BYTES)
        else:
            copyfileobj(source, target, _BLOCK_BYTES)


def unpacked_lines(file: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of a part or of dead letters, each with its newline, in bounded memory.

    Args:
        file: open at its beginning; Parquet needs it to seek.
        name: of the file; its suffix says the format.

    Raises:
        ValueError: what is there is not a whole file of that format; the lines before are given.
        StoreDriverMissing: what reads the format is not installed.
    """
    part_format = next((one for one, end in SUFFIX_OF.items() if name.endswith(end)), "jsonl")
    check_can_pack(part_format)
    if part_format == "parquet":
        from rdu_batch.runner.parquet_parts import read_parquet

        yield from read_parquet(file)
    elif part_format == "jsonl":
        yield from file
    else:
        yield from _decompressed_lines(file, part_format)


def _decompressed_lines(file: IO[bytes], part_format: str) -> Iterator[bytes]:
    errors: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    stream: Any
    if part_format == "jsonl.gz":
        stream = gzip.GzipFile(fileobj=file)
    else:
        import zstandard

        errors = (*errors, zstandard.ZstdError)
        stream = io.BufferedReader(
            zstandard.ZstdDecompressor().stream_reader(file, closefd=False), _BLOCK_BYTES
        )
    try:
        yield from stream
    except errors as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
