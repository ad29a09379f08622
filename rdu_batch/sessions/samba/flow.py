"""SambaFlow, as this program sees it: the one place that imports ``sambaflow``.

Promises: nothing is imported before ``load_sambaflow``; without SambaFlow the error says what to
install, and what works here all the same; what only several graphs need is imported for them alone,
as older releases do not have it. Does not: compile or run anything.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.registry import CHOSEN_BY

if TYPE_CHECKING:
    from pathlib import Path


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
            f" (opens any artifact) and fake (a dry run); a kind is chosen by {CHOSEN_BY}"
        ) from error
    version = str(getattr(sambaflow, "__version__", "unknown"))
    return SambaFlow(samba, utils, op_fusion, parse_app_args, version)


def check_can_compile() -> None:
    """Check that SambaFlow is installed here, before there is an artifact; imports nothing.

    Raises:
        ArtifactError: it is not. Ends the command (exit 8).
    """
    if importlib.util.find_spec("sambaflow") is None:
        raise ArtifactError(
            "compile --kind samba needs SambaNova's SambaFlow, and there is no module sambaflow "
            "here. It comes with the software of an RDU system, not from PyPI: install the package"
            " sambaflow into the Python that runs this program. Without it, `--kind inductor` "
            "(without SambaFlow's flags, such as --arch) compiles an artifact that runs on any "
            "machine"
        )


@dataclass(frozen=True)
class MultigraphFlow:
    """The parts of SambaFlow for several graphs in one PEF."""

    #: Function of ``sambaflow.samba.utils``.
    trace_multigraph: Any
    #: Class of ``sambaflow.samba.graph``.
    fwd_graph: Any
    #: Class of ``sambaflow.samba``.
    samba_tensor: Any


def load_multigraph(flow: SambaFlow) -> MultigraphFlow:
    """Import what several graphs need.

    Raises:
        ArtifactError: this SambaFlow has it not. Ends the job (exit 8).
    """
    try:
        from sambaflow.samba import SambaTensor
        from sambaflow.samba.graph import FwdGraph
        from sambaflow.samba.utils import trace_multigraph
    except ImportError as error:
        raise ArtifactError(
            f"a key/value cache needs several graphs in one PEF, which SambaFlow {flow.version} "
            f"here does not have: {error}; install a newer one, or compile the model with "
            "--graphs single"
        ) from error
    return MultigraphFlow(trace_multigraph, FwdGraph, SambaTensor)


def read_pef_metadata(pef: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """These keys of what the program that compiled a PEF wrote into it.

    None: the PEF has not all of them, or this SambaFlow cannot tell.
    """
    try:
        from sambaflow.samba.utils.pef_utils import PefInfoStruct, get_pef_info
    except ImportError:
        return None
    try:
        return dict(get_pef_info(str(pef), {key: PefInfoStruct(None) for key in keys}))
    except ValueError:
        return None
