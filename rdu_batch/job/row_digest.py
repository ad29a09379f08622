"""What a row is by its content alone: greedy rows of one digest have one prediction.

Promises: the digest depends on the bytes of the row and on how they are read, not on where the row
stands. Does not: know the job; digests compare rows of jobs that make all else alike.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rdu_batch.job.records import Row

#: Bytes of a digest: of 10^12 rows, the chance that any two share one by accident is 10^-15.
ROW_DIGEST_BYTES: Final = 16
#: Hex digits of a row that no other row may take the prediction of.
NO_ROW_DIGEST: Final = "00" * ROW_DIGEST_BYTES
_BOM: Final = b"\xef\xbb\xbf"


def row_digest_of(row: Row) -> str:
    """Hex digits of the row's content: its line without a byte order mark at its file's start."""
    line_bytes = row.line_bytes
    if row.byte_offset == 0:
        line_bytes = line_bytes.removeprefix(_BOM)
    kind = b"text" if row.is_text else b"json"
    return hashlib.blake2b(line_bytes, digest_size=ROW_DIGEST_BYTES, person=kind).hexdigest()
