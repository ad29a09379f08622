"""Where an artifact may be written: an empty place, or what an interrupted compile left.

Promises: nothing that somebody else put there is written over or mixed with an artifact; a place
that cannot be written is found before the model is compiled.
"""

from __future__ import annotations

from fnmatch import fnmatch

from rdu_batch.errors import UsageError
from rdu_batch.storage.store import open_store

#: Files that a compile writes before ``artifact.json``; tokenizers have some of several.
LEFT_BY_COMPILE = (
    *("*.pt2", "*.constants.safetensors", "weights.safetensors", "kernels.so"),
    *("*.pef", "samba.json", "measured.json"),
    *("config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json"),
    *("tokenizer*", "vocab.*", "merges.txt", "added_tokens.json", "*.model"),
)
_TRIAL = "_rdu_batch_compile_tries_to_write"
#: Names of strange files in the message.
_MOST_NAMES = 3


def check_out(url: str) -> None:
    """Check a place that holds no artifact yet.

    Raises:
        UsageError: other files lie there. Ends the command (exit 2).
        StoreError: nothing can be written there. Ends the command (exit 6).
    """
    store = open_store(url)
    found = [name for name in store.list_names(recursive=True) if not _is_ours(name)]
    if found:
        more = "" if len(found) <= _MOST_NAMES else f" and {len(found) - _MOST_NAMES} more"
        raise UsageError(
            f"--out {url} holds other files ({', '.join(found[:_MOST_NAMES])}{more}): an artifact "
            "wants a folder of its own; name one that is new or empty"
        )
    store.put_whole(_TRIAL, b"\n")
    store.delete(_TRIAL)


def _is_ours(name: str) -> bool:
    return name == _TRIAL or any(fnmatch(name, pattern) for pattern in LEFT_BY_COMPILE)
