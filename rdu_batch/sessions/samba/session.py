"""The samba session: one static graph on the RDU, run whole for every token.

Promises: the documented calls in the documented order, once a process: patch,
``from_torch_model_``, ``trace_graph`` with the PEF, the checkpoint, ``to_rdu``; then
``session.run`` for each token. What a run gave back is copied before the next one overwrites it.
Does not: keep keys and values (each call computes all L positions), sample, or choose a device.

Shapes: S tokens so far, L positions of the graph, V vocabulary.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import torch

from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.door import SessionInfo, Step, check_logit
from rdu_batch.sessions.samba.device_faults import device_faults
from rdu_batch.sessions.samba.flow import load_sambaflow
from rdu_batch.sessions.samba.graph_inputs import PAD_ID, graph_inputs
from rdu_batch.sessions.samba.pef import PefNote, add_own_flags, run_argv
from rdu_batch.sessions.samba.rdu_model import load_checkpoint, prepare_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.samba.flow import SambaFlow

#: No dropout: its probability is given to the graph with each run.
HYPERPARAMETERS: Final = {"p": 0.0}
#: A PEF that was compiled for training has more sections; they are never run.
SECTIONS: Final = ("fwd",)


class SambaSession:
    """A model on an RDU, at batch size 1; see ``door.Session``.

    SambaFlow has one session a process, which is given back when the process ends: opening a second
    one is refused, on another artifact and on the same.
    """

    _was_opened = False

    def __init__(
        self, info: SessionInfo, flow: SambaFlow, model: Any, traced: Any, *, url: str
    ) -> None:
        """Put together what ``open`` has loaded.

        Args:
            info: limits, dtype and vocabulary.
            flow: SambaFlow, with its runtime started.
            model: what was traced; SambaFlow's session may refer to it, so it lives as long.
            traced: as ``trace_graph`` gave it; runs must name these very tensors.
            url: the artifact's, for messages.
        """
        self._info = info
        self._samba = flow.samba
        self._model, self._traced = model, traced
        self._url = url
        #: Tokens of the row; None when there is no row.
        self._ids: list[int] | None = None
        self._closed = False

    @classmethod
    def open(cls, local: LocalArtifact, *, threads: int) -> SambaSession:
        """Load the PEF and the weights onto the device; sets the host's intra-op threads.

        Raises:
            ArtifactError: no SambaFlow here, or the PEF is damaged or for another runtime.
            InputError: the weights do not fit the config.
            SessionBroken: the device failed, or this process has had its session.
        """
        artifact = local.artifact
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
        with device_faults("opening a session", url=artifact.url):
            flow.parse_app_args(argv=run_argv(pef, note), common_parser_fn=add_own_flags)
            model = prepare_model(flow, local.folder, artifact.dtype, place=artifact.url)
            inputs = graph_inputs(flow.samba, [PAD_ID], artifact.max_seq_length)
            traced = flow.utils.trace_graph(model, inputs, pef=str(pef))
            load_checkpoint(flow, model, local.folder, artifact.layouts)
        end_by_exit_on_sigterm()
        info = SessionInfo(
            kind="samba",
            max_seq_length=artifact.max_seq_length,
            prefill_chunk=1,
            vocab_size=artifact.vocab_size,
            dtype=artifact.dtype,
            threads=threads,
        )
        return cls(info, flow, model, traced, url=artifact.url)

    @property
    def info(self) -> SessionInfo:
        """Limits, dtype and vocabulary."""
        return self._info

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """Start a row; see ``door.Session.prefill``."""
        self._check_open()
        ids = self._info.check_prompt(input_ids_1S)
        self.reset()
        return self._run(ids, want_logits)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """Feed one token; see ``door.Session.decode``."""
        self._check_open()
        ids = self._ids
        self._info.check_decode(token_id, position, None if ids is None else len(ids))
        return self._run([*(ids or ()), int(token_id)], want_logits)

    def reset(self) -> None:
        """Forget the current row."""
        self._ids = None

    def close(self) -> None:
        """Run nothing more; SambaFlow itself ends with the process."""
        self.reset()
        self._closed = True
        self._model = self._traced = None

    def _run(self, ids: list[int], want_logits: bool) -> Step:
        """Compute all positions; score what follows the last token."""
        self._ids = None
        with device_faults("running a row", url=self._url, in_row=True):
            outputs = self._samba.session.run(
                input_tensors=graph_inputs(self._samba, ids, self._info.max_seq_length),
                output_tensors=self._traced,
                hyperparam_dict=dict(HYPERPARAMETERS),
                section_types=list(SECTIONS),
            )
            logits_1V = _row_of(self._samba.to_torch(outputs[0]), len(ids) - 1)
        token_id = int(logits_1V.argmax(-1))
        check_logit(float(logits_1V[0, token_id]))
        self._ids = ids
        return Step(token_id, logits_1V if want_logits else None)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the session is closed")


def _row_of(logits_1LV: Tensor, index: int) -> Tensor:
    """One position's logits as float32, [1, V], in memory of its own: the next run overwrites it.

    Only this row is converted: the positions behind it hold padding, those before it are known.
    """
    return logits_1LV[:, index, :].detach().to(dtype=torch.float32, copy=True)


def end_by_exit_on_sigterm() -> None:
    """Let SIGTERM end this process as ``sys.exit`` does, so that SambaFlow gives the device back.

    A handler that is there already stays: SambaFlow's own, or that of a run that stops by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
