"""Which files can be read, by how their names end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Content = Literal["lines", "document", "table"]
Compression = Literal["gz", "zst", "bz2", "xz"]

_TEXTS: Final[dict[str, Content]] = {"jsonl": "lines", "json": "document", "txt": "lines"}
COMPRESSIONS: Final[tuple[Compression, ...]] = ("gz", "zst", "bz2", "xz")


@dataclass(frozen=True)
class InputFormat:
    """How a file's bytes become rows."""

    #: The end of the file's name without its first dot, such as ``jsonl.gz``; also its name.
    name: str
    #: ``lines``: a row a line; ``document``: one JSON array or object; ``table``: a row a record.
    content: Content
    compression: Compression | None = None

    @property
    def is_plain_text(self) -> bool:
        """Whether a line is the text of a prompt, not JSON."""
        return self.name.startswith("txt")

    @property
    def is_meant_by_folder(self) -> bool:
        """Whether a folder means its files of this format: those that are hardly anything else.

        A ``README.txt`` or a ``metadata.json`` beside the rows is no input; a name or a pattern can
        make it one.
        """
        return self.name.startswith(("jsonl", "parquet"))

    @property
    def is_stored_as_read(self) -> bool:
        """Whether the logical stream is the file's own bytes, so that any range can be read."""
        return self.content == "lines" and self.compression is None


FORMATS: Final[dict[str, InputFormat]] = {
    each.name: each
    for each in (
        *(InputFormat(name, content) for name, content in _TEXTS.items()),
        *(
            InputFormat(f"{name}.{compression}", content, compression)
            for name, content in _TEXTS.items()
            for compression in COMPRESSIONS
        ),
        InputFormat("parquet", "table"),
    )
}
#: For messages.
OF_FOLDERS: Final = ".jsonl or .ndjson (also with .gz, .zst, .bz2 or .xz) and .parquet"
READABLE: Final = (
    ".jsonl (or .ndjson), .json and .txt, each also with .gz, .zst, .bz2 or .xz, and .parquet"
)


def format_of(name: str) -> InputFormat | None:
    """The format of a file with this name or URL, in small letters or large; None if it has none.

    ``.ndjson`` is another word for ``.jsonl``.
    """
    stem, slash, name = name.rpartition("/")
    first, _, last = re.sub(r"\.ndjson(?=\.|$)", ".jsonl", name.lower()).rpartition(".")
    first = f"{stem}{slash}{first}"
    if last in COMPRESSIONS:
        last = f"{first.rpartition('.')[2]}.{last}" if "." in first else ""
    return FORMATS.get(last) if first or name.startswith(".") else None
