"""Names under which an object is written before it gets its own, in stores that can rename.

A reader of the store never sees them in a listing. What a writer that died left behind stays until
somebody removes it; it is hidden (``.<16 hex digits>.tmp``).
"""

from __future__ import annotations

import re
import secrets

_TEMPORARY = re.compile(r"(?:^|/)\.[0-9a-f]{16}\.tmp$")


def temporary_beside(path: str) -> str:
    """A new name in the same folder."""
    folder, slash, _name = path.rpartition("/")
    return f"{folder}{slash}.{secrets.token_hex(8)}.tmp"


def is_temporary(path: str) -> bool:
    """Whether a path is one that ``temporary_beside`` made."""
    return _TEMPORARY.search(path) is not None
