"""A session over graphs that a runtime holds on its device: rows, not runtimes.

Promises: what the runtime raises comes out as this program's errors; a run that failed leaves no
row. Does not: know which graphs there are, which runtime runs them, or how a token is chosen beyond
the greedy one.

Shapes: S tokens so far, V vocabulary. Batch size is 1.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from typing import TYPE_CHECKING, Protocol

from rdu_batch.sessions.device_faults import device_faults
from rdu_batch.sessions.door import SessionInfo, Step, check_logit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from torch import Tensor

    from rdu_batch.sessions.artifact import Artifact


class RowGraphs(Protocol):
    """Graphs on a device, for one row at a time; the runtime's exceptions pass as they are."""

    def prefill(self, ids_S: Sequence[int]) -> Tensor:
        """Logits after a prompt, [1, V] float32, in memory of the caller's own."""

    def decode(self, ids_S: Sequence[int]) -> Tensor:
        """Logits after one more token, the last of ``ids_S``; the others are those of the row."""


class GraphSession:
    """Stands behind ``door.Session``; kinds add how it is opened."""

    def __init__(self, info: SessionInfo, graphs: RowGraphs, *, url: str, runtime: str) -> None:
        """Put together what a kind has opened.

        Args:
            info: limits, dtype and vocabulary.
            graphs: on the device, ready to run.
            url: the artifact's, for messages.
            runtime: name of what runs the graphs, for messages.
        """
        self._info = info
        self._graphs: RowGraphs | None = graphs
        self._url, self._runtime = url, runtime
        #: Tokens of the row; None when there is no row.
        self._ids: list[int] | None = None

    @property
    def info(self) -> SessionInfo:
        """Limits, dtype and vocabulary."""
        return self._info

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """Start a row; see ``door.Session.prefill``."""
        graphs = self._open_graphs()
        ids = self._info.check_prompt(input_ids_1S)
        return self._step(graphs.prefill, ids, want_logits)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """Feed one token; see ``door.Session.decode``."""
        graphs = self._open_graphs()
        ids = self._ids
        self._info.check_decode(token_id, position, None if ids is None else len(ids))
        return self._step(graphs.decode, [*(ids or ()), int(token_id)], want_logits)

    def reset(self) -> None:
        """Forget the current row."""
        self._ids = None

    def close(self) -> None:
        """Let go of the graphs."""
        self.reset()
        self._graphs = None

    def _step(
        self, run: Callable[[Sequence[int]], Tensor], ids: list[int], want_logits: bool
    ) -> Step:
        """Run a graph, and choose what follows the last token; there is no row if that fails."""
        self.reset()
        with device_faults("running a row", url=self._url, runtime=self._runtime, in_row=True):
            logits_1V = run(ids)
        token_id = int(logits_1V.argmax(-1))
        check_logit(float(logits_1V[0, token_id]))
        self._ids = ids
        return Step(token_id, logits_1V if want_logits else None)

    def _open_graphs(self) -> RowGraphs:
        if self._graphs is None:
            raise ValueError("the session is closed")
        return self._graphs


def info_of_graphs(
    kind: str, artifact: Artifact, prefill_lengths: tuple[int, ...], *, threads: int
) -> SessionInfo:
    """Info of a session of this kind: a prompt goes whole through one graph, never in chunks.

    Args:
        kind: of the session; the artifact's may be another.
        artifact: what was opened.
        prefill_lengths: static lengths of its prefill graphs, none for a single graph.
        threads: the host's, within operators.
    """
    return SessionInfo(
        kind=kind,
        max_seq_length=artifact.max_seq_length,
        prefill_chunk=1,
        vocab_size=artifact.vocab_size,
        dtype=artifact.dtype,
        threads=threads,
        prefill_lengths=prefill_lengths,
    )


def end_by_exit_on_sigterm() -> None:
    """Let SIGTERM end this process as ``sys.exit`` does, so that a runtime gives its device back.

    A handler that is there already stays: the runtime's own, or that of a run that stops by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    # With torch loaded the interpreter's last collection takes seconds, and the runtime's own end
    # comes after it; what asks here waits one. What is frozen is not looked at.
    gc.freeze()
    sys.exit(128 + number)
