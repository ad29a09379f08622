"""What lets a request pass a cluster's door: Ray's token, and headers for a proxy in front of it.

Promises: a token goes only to a server that has refused a request without one; no value is printed
or kept. Does not: decide what Ray does where RAY_AUTH_MODE is set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from rdu_batch.errors import UsageError

#: Ray's own variables, and its place for a token.
MODE_VARIABLE: Final = "RAY_AUTH_MODE"
TOKEN_VARIABLE: Final = "RAY_AUTH_TOKEN"  # noqa: S105 - a name, not a token
TOKEN_PATH_VARIABLE: Final = "RAY_AUTH_TOKEN_PATH"  # noqa: S105
TOKEN_FILE: Final = Path(".ray") / "auth_token"
#: A JSON object, as ``ray job submit`` takes it.
HEADERS_VARIABLE: Final = "RAY_JOB_HEADERS"


def token_at_hand() -> str | None:
    """The token that Ray would use here; None where there is none, or RAY_AUTH_MODE is set.

    ``ray start`` uses a token that lies there, though nobody asked for it; Ray's own client of the
    Jobs API brings one only where RAY_AUTH_MODE says so.
    """
    if os.environ.get(MODE_VARIABLE):
        return None
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    named = os.environ.get(TOKEN_PATH_VARIABLE)
    path = Path(named) if named else Path.home() / TOKEN_FILE
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def headers_for_proxy() -> dict[str, str]:
    """The headers that RAY_JOB_HEADERS asks for.

    Raises:
        UsageError: it is no JSON object of texts.
    """
    text = os.environ.get(HEADERS_VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        # Not shown: such headers are secrets.
        raise UsageError(
            f"{HEADERS_VARIABLE} is no JSON object of texts; wanted one such as "
            '{"Cookie": "session=..."}'
        )
    return found
