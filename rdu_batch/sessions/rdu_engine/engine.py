"""The runtime, as this program sees it: the one place that imports ``rdu_engine``.

Promises: nothing is imported before ``load_rdu_engine``; without the runtime the error says what to
install, and what works here all the same. Does not: call anything.
"""

from __future__ import annotations

from typing import Any, Final

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.registry import CHOSEN_BY

#: How messages call it.
RUNTIME: Final = "rdu_engine"
#: What is used of it: the class of a compiled file, and a function that describes its weights.
WANTED: Final = ("PEF", "get_checkpoint_spec")


def load_rdu_engine() -> Any:
    """Import the runtime; it has no types of its own.

    Raises:
        ArtifactError: it is not installed here, cannot be loaded, or is too old. Ends the job (exit
            8).
    """
    try:
        import rdu_engine
    except ImportError as error:
        raise ArtifactError(
            "session kind rdu_engine needs SambaNova's runtime, which cannot be loaded here: "
            f"{error}. On every RDU node, `pip install sambanova-rdu-engine-api` into the Python "
            "3.11 that runs this program, beside the node's SambaFlow runtime libraries (package "
            "sambanova-runtime). Kinds that work here without it: inductor (compile the model for "
            "it), eager (opens any artifact) and fake (a dry run); samba runs the same artifact "
            f"where SambaFlow is installed; a kind is chosen by {CHOSEN_BY}"
        ) from error
    missing = [name for name in WANTED if not hasattr(rdu_engine, name)]
    if missing:
        raise ArtifactError(
            f"session kind rdu_engine: the rdu_engine that is installed here has no "
            f"{' and no '.join(missing)}; `pip install --upgrade sambanova-rdu-engine-api` (1.27 "
            "has them)"
        )
    return rdu_engine
