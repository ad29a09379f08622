"""The rdu_engine session: a row's tokens through the graphs of one PEF on the RDU.

Promises: opens what SambaFlow compiled with a key/value cache, without SambaFlow; a process may
open several. Does not: know how rows run (``graph_session.py``), or choose a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.device_faults import device_faults
from rdu_batch.sessions.graph_session import (
    GraphSession,
    end_by_exit_on_sigterm,
    info_of_graphs,
)
from rdu_batch.sessions.rdu_engine.engine import RUNTIME, load_rdu_engine
from rdu_batch.sessions.rdu_engine.graphs import EngineGraphs
from rdu_batch.sessions.registry import CHOSEN_BY
from rdu_batch.sessions.samba.pef import PefNote
from rdu_batch.sessions.samba.tile_lease import lease_tiles

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact


class RduEngineSession(GraphSession):
    """A model on an RDU through ``rdu_engine``, at batch size 1; see ``door.Session``."""

    @classmethod
    def open(cls, local: LocalArtifact, *, threads: int) -> RduEngineSession:
        """Load the PEF and the weights onto the device; sets the host's intra-op threads.

        Raises:
            ArtifactError: no ``rdu_engine`` here; the artifact has a single graph; or its PEF is
                for another runtime, or is not what its note says. Ends the job (exit 8).
            SessionBroken: the device failed.
        """
        artifact = local.artifact
        lease_tiles()
        engine = load_rdu_engine()
        note = PefNote.read(local)
        if note.graph != "cached":
            raise ArtifactError(
                f"{artifact.url}: compiled with --graphs {note.graph}; session kind rdu_engine "
                "runs graphs with a key/value cache: compile the model with `--kind samba --graphs "
                f"cached`, or use kind samba ({CHOSEN_BY}) where SambaFlow is installed"
            )
        torch.set_num_threads(threads)
        with device_faults("opening a session", url=artifact.url, runtime=RUNTIME):
            graphs = EngineGraphs.open(engine, local, note)
        end_by_exit_on_sigterm()
        info = info_of_graphs("rdu_engine", artifact, note.prefill_lengths, threads=threads)
        return cls(info, graphs, url=artifact.url, runtime=RUNTIME)
