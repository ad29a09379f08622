"""The two forms of graphs in a PEF, by the name that ``compile --graphs`` and the note have.

Promises: the only place that tells them apart. Does not: know more of them than ``Graphs``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from rdu_batch.sessions.graph_session import RowGraphs
from rdu_batch.sessions.samba.cached import CachedGraphs
from rdu_batch.sessions.samba.single import SingleGraph

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.compile_settings import CompileSettings
    from rdu_batch.sessions.samba.flow import SambaFlow
    from rdu_batch.sessions.samba.pef import PefNote


class Graphs(RowGraphs, Protocol):
    """Graphs that SambaFlow compiles and runs.

    SambaFlow's exceptions pass as they are: the session and the compiler say what they mean.
    """

    #: Whether the parsed command line is also given to ``session.setup``: Model Zoo's programs do
    #: so, the tutorial does not.
    needs_setup: ClassVar[bool]

    @staticmethod
    def check(config: Any, settings: CompileSettings) -> None:
        """Refuse, before it is loaded, a model that this form cannot be compiled of.

        Raises:
            UsageError: more positions than it can have. Ends the command (exit 2).
            ArtifactError: a model that there is no patch for (exit 8).
        """

    @staticmethod
    def compile(flow: SambaFlow, folder: Path, dtype: str, note: PefNote) -> None:
        """Compile the model whose config and weights lie in ``folder``, as the command line says.

        Raises:
            InputError: the weights do not fit the config.
            ArtifactError: this SambaFlow cannot compile this form.
        """

    @classmethod
    def open(cls, flow: SambaFlow, local: LocalArtifact, note: PefNote, pef: Path) -> Graphs:
        """Load a PEF and the artifact's weights onto the device, once a process.

        Raises:
            InputError: the weights do not fit the config.
            ArtifactError: the PEF is of another form, or this SambaFlow cannot load it.
        """


FORMS: Final[Mapping[str, type[Graphs]]] = {"single": SingleGraph, "cached": CachedGraphs}
