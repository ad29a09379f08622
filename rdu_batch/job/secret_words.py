"""What sounds like a secret, and how a text is shown without the secrets in it.

Promises: pure; a text that is hidden once is not changed by hiding it again. Does not: know which
secrets a process holds (``rdu_batch/storage/options_in_force.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

#: What is shown in the place of a secret.
HIDDEN = "***"

_WORDS = (
    "key|keys|secret|secrets|token|password|passwd|passphrase|pass|pwd|pin|credential|credentials"
    "|sas|auth|authorization|signature|pkey|cookie|apikey|accesskey|secretkey|privatekey|authtoken"
)
_SECRET_NAME = re.compile(rf"(?:^|_)(?:{_WORDS}|connection_string|connectionstring)(?:_|$)")
#: Such an option names a file, or a place; it holds nothing secret itself.
_PLACE_NAME = re.compile(r"(?:^|_)(?:file|filename|path|url|uri|endpoint|type|size|id_file)$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

#: In the place of a secret these say where to find one, or that there is none.
HARMLESS = frozenset({"", "anon", "anonymous", "browser", "cache", "cloud", "google_default"})

_FIELDS = (
    r"x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential"
    r"|awsaccesskeyid|signature|sig|accountkey|sharedaccesssignature|sharedaccesskey"
    r"|access_token|token|password|passwd|secret"
)
#: (pattern, what stands in its place); ``\1`` is what may be shown.
_SHAPES = (
    # user:password@ of a URL.
    (re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^/@\s:]*:)[^/@\s]+(?=@)"), rf"\g<1>{HIDDEN}"),
    (
        re.compile(rf"((?<![A-Za-z0-9_/])(?:{_FIELDS})=)[^&\s;'\"<>)]+", re.IGNORECASE),
        rf"\g<1>{HIDDEN}",
    ),
    (re.compile(r"((?:Bearer|Basic) )[A-Za-z0-9+/._~=\-]{8,}", re.IGNORECASE), rf"\g<1>{HIDDEN}"),
    (re.compile(r"()\bhf_[A-Za-z0-9]{20,}"), rf"\g<1>{HIDDEN}"),
)


def is_secret_name(name: str) -> bool:
    """Whether an option of this name holds a secret, as far as its name tells.

    ``secret``, ``account_key``, ``sasToken``, ``connection_string`` do; ``key_filename`` does not.
    """
    plain = _CAMEL.sub("_", name).lower().replace("-", "_").replace(".", "_")
    return _SECRET_NAME.search(plain) is not None and _PLACE_NAME.search(plain) is None


def hide_secrets(text: str, values: Iterable[str] = ()) -> str:
    """The text without these values, as they are or as in a URL, and without known shapes."""
    for value in sorted({value for value in values if value}, key=len, reverse=True):
        for form in {value, quote(value, safe=""), quote(value)}:
            text = text.replace(form, HIDDEN)
    for shape, shown in _SHAPES:
        text = shape.sub(shown, text)
    return text


def has_secret(text: str) -> bool:
    """Whether a text, such as a URL, holds a secret of a known shape."""
    return hide_secrets(text) != text
