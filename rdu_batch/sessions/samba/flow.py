"""SambaFlow, as this program sees it: the one place that imports ``sambaflow``.

Promises: nothing is imported before ``load_sambaflow``; without SambaFlow the error says what to
install, and what works here all the same. Does not: call anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdu_batch.errors import ArtifactError


@dataclass(frozen=True)
class SambaFlow:
    """The parts of SambaFlow that are called; it has no types of its own."""

    #: Module ``sambaflow.samba``; ``samba.session`` is the one session of this process.
    samba: Any
    #: Module ``sambaflow.samba.utils``.
    utils: Any
    #: Function of ``sambaflow.samba.directives``.
    op_fusion: Any
    #: Function of ``sambaflow.samba.utils.argparser``.
    parse_app_args: Any
    #: As ``sambaflow.__version__`` says; "unknown" if it says nothing.
    version: str


def load_sambaflow() -> SambaFlow:
    """Import SambaFlow.

    Raises:
        ArtifactError: it is not installed here, or cannot be loaded. Ends the job (exit 8).
    """
    try:
        import sambaflow
        from sambaflow import samba
        from sambaflow.samba import utils
        from sambaflow.samba.directives import op_fusion
        from sambaflow.samba.utils.argparser import parse_app_args
    except ImportError as error:
        raise ArtifactError(
            f"session kind samba needs SambaNova's SambaFlow, which cannot be loaded here: {error}."
            " It comes with the software of an RDU system, not from PyPI: install the packages"
            " sambaflow and sambanova-runtime on every RDU node, into the Python that runs this"
            " program. Kinds that work here without it: inductor (compile the model for it), eager"
            " (opens any artifact: `--set session.kind=eager`) and fake (a dry run)"
        ) from error
    version = str(getattr(sambaflow, "__version__", "unknown"))
    return SambaFlow(samba, utils, op_fusion, parse_app_args, version)
