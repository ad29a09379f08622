"""rdu_batch: push a large JSONL prompt corpus through one compiled model, exactly once.

From Python: ``rdu_batch.run``, ``rdu_batch.compile``, ``rdu_batch.open_session`` and
``rdu_batch.load_job`` (``api.py``), and the errors they raise (``errors.py``). They are imported
when they are first used, so that this package alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdu_batch.api import compile, load_job, open_session, run  # noqa: A004 - the verb's name
    from rdu_batch.job.spec import JobSpec
    from rdu_batch.report.summary import Summary

__version__ = "0.1.0"

__all__ = ["JobSpec", "Summary", "__version__", "compile", "load_job", "open_session", "run"]

#: Where each of these names is; a module is imported when the name is used.
_LAZY = {
    "compile": "rdu_batch.api",
    "load_job": "rdu_batch.api",
    "open_session": "rdu_batch.api",
    "run": "rdu_batch.api",
    "JobSpec": "rdu_batch.job.spec",
    "Summary": "rdu_batch.report.summary",
}


def __getattr__(name: str) -> object:
    """Import what is used for the first time."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
    return found


def __dir__() -> list[str]:
    """Every public name, imported or not."""
    return sorted({*globals(), *__all__})
