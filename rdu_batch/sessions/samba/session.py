"""The samba session: a row's tokens through the graphs of one PEF on the RDU, by SambaFlow.

Promises: the documented calls in the documented order, once a process (``single.py``,
``cached.py``): the command line, the model patched and converted, its trace with the PEF, the
checkpoint; then runs (``graph_session.py``). Does not: know which graphs there are, sample, or
choose a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.device_faults import device_faults
from rdu_batch.sessions.graph_session import (
    GraphSession,
    end_by_exit_on_sigterm,
    info_of_graphs,
)
from rdu_batch.sessions.samba.flow import load_sambaflow
from rdu_batch.sessions.samba.forms import FORMS
from rdu_batch.sessions.samba.pef import PefNote, run_argv, set_up
from rdu_batch.sessions.samba.tile_lease import lease_tiles

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact

RUNTIME: Final = "SambaFlow"


class SambaSession(GraphSession):
    """A model on an RDU through SambaFlow, at batch size 1; see ``door.Session``.

    SambaFlow has one session a process, which is given back when the process ends: opening a second
    one is refused, on another artifact and on the same.
    """

    _was_opened = False

    @classmethod
    def open(cls, local: LocalArtifact, *, threads: int) -> SambaSession:
        """Load the PEF and the weights onto the device; sets the host's intra-op threads.

        Raises:
            ArtifactError: no SambaFlow here, or the PEF is damaged or for another runtime.
            InputError: the weights do not fit the config.
            SessionBroken: the device failed, or this process has had its session.
        """
        artifact = local.artifact
        lease_tiles()
        flow = load_sambaflow()
        note = PefNote.read(local)
        # Absolute: the runtime may look from another folder.
        pef = local.path(note.pef).resolve()
        if cls._was_opened:
            raise SessionBroken(
                f"{artifact.url}: this process has opened its one session on the RDU; SambaFlow "
                "gives the device back when the process ends, so start another one"
            )
        SambaSession._was_opened = True
        torch.set_num_threads(threads)
        with device_faults("opening a session", url=artifact.url, runtime=RUNTIME):
            form = FORMS[note.graph]
            set_up(flow, run_argv(pef, note), form)
            graphs = form.open(flow, local, note, pef)
        end_by_exit_on_sigterm()
        info = info_of_graphs("samba", artifact, note.prefill_lengths, threads=threads)
        return cls(info, graphs, url=artifact.url, runtime=RUNTIME)
