"""What an exception of an RDU's runtime means: another device, another artifact, or this row alone.

The classes are known by name, not imported: they live in different modules of different runtimes.

    HwException, TileFaultException, ...     SessionBroken   the lease is run elsewhere
    NumericalException                       RowError        the row is a dead letter
    "PEF version mismatch"                   ArtifactError   exit 8, as no node can load it
    anything else                            SessionBroken   with what it said

Promises: no exception of a runtime leaves a session under its own class. Does not: retry.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rdu_batch.errors import ArtifactError, RduBatchError, RowError, SessionBroken
from rdu_batch.job.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Exceptions of a device that failed by itself.
HARDWARE: Final = frozenset(
    {
        "HwException",
        "TileFaultException",
        "DramUeException",
        "ScratchpadUeException",
        "D2dUeException",
    }
)
#: The exception for numbers that the device cannot compute with: the input's doing.
NUMERICAL: Final = "NumericalException"
#: Part of what SambaFlow says of a PEF that the runtime of this host does not load.
VERSION_MISMATCH: Final = "pef version mismatch"


@contextmanager
def device_faults(
    doing: str, *, url: str, runtime: str = "SambaFlow", in_row: bool = False
) -> Iterator[None]:
    """Turn what a runtime raises inside into this program's errors.

    Args:
        doing: what is being done, for messages: "running a row".
        url: the artifact's, for messages.
        runtime: whose exceptions these are, for messages.
        in_row: a row is in progress, whose numbers may be at fault.

    Raises:
        ArtifactError: the PEF is for another version of the runtime. Ends the job (exit 8).
        RowError: the row's numbers are at fault. Ends the row.
        SessionBroken: anything else. Ends the worker; the lease is run elsewhere.
    """
    try:
        yield
    except RduBatchError:
        raise
    except Exception as error:
        raise error_for(error, doing, url=url, runtime=runtime, in_row=in_row) from error


def error_for(
    error: Exception, doing: str, *, url: str, runtime: str, in_row: bool
) -> RduBatchError:
    """This program's error for one of a runtime's; see the module for which."""
    names = {one.__name__ for one in type(error).__mro__}
    said = f"{type(error).__name__}: {error}"
    if VERSION_MISMATCH in str(error).lower():
        return ArtifactError(
            f"{url}: its PEF was compiled for another version of the SambaNova runtime than this "
            f"host has ({said}); compile the model again with the SambaFlow of the hosts that run "
            "it, or install the runtime it was compiled for"
        )
    if NUMERICAL in names and in_row:
        # Nothing of the device's own words: the same row says the same, whichever device it met.
        return RowError(
            Reason.NUMERICAL_ERROR,
            f"the device cannot compute this row's numbers ({NUMERICAL}); look for text of an "
            "unusual length or kind, or run it with another session.kind",
        )
    if names & HARDWARE:
        return SessionBroken(f"{url}: the RDU failed while {doing}: {said}")
    return SessionBroken(f"{url}: {runtime} failed while {doing}: {said}")
