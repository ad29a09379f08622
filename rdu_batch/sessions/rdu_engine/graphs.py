"""The graphs of a cached PEF, run by ``rdu_engine``: one checkpoint, one row at a time.

Promises: what is wrong with a PEF shows when it is opened: its schedules by name, its weights by
name, shape and type, and inputs and outputs by a probe, one run of each graph on tokens of no row.
The key/value cache never leaves the device; of a run's outputs only (1, 1, V) logits come back, and
are copied before the next run overwrites them. Does not: choose tokens.

Shapes: S tokens of the row so far, V vocabulary.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from rdu_batch.errors import ArtifactError, RduBatchError
from rdu_batch.sessions.rdu_engine.weights import checkpoint_folder
from rdu_batch.sessions.samba import symbols
from rdu_batch.sessions.samba.cached_inputs import decode_inputs, prefill_inputs
from rdu_batch.sessions.samba.graph_inputs import PAD_ID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from rdu_batch.sessions.artifact import Artifact, LocalArtifact
    from rdu_batch.sessions.samba.pef import PefNote

#: Parts of what the runtime says where a PEF is not what it is taken for, in lower case.
MISFITS: Final = (
    "does not match",
    "does not have a tensor",
    "does not have a schedule",
    "does not have symbol",
    "missing weight symbols",
    "unknown schedule",
    "unknown tensor",
    "uninitialized inputs",
)


class EngineGraphs:
    """Prefill and decode graphs on the device; see ``graph_session.RowGraphs``."""

    def __init__(self, pef: Any, checkpoint: Any, note: PefNote) -> None:
        """Put together what ``open`` has loaded."""
        self._pef, self._checkpoint = pef, checkpoint
        self._lengths, self._max_seq_length = note.prefill_lengths, note.max_seq_length

    @classmethod
    def open(cls, engine: Any, local: LocalArtifact, note: PefNote) -> EngineGraphs:
        """Load a PEF and the artifact's weights onto the device, and run each graph once.

        The runtime's own exceptions pass, but for those that blame the PEF.

        Args:
            engine: as ``load_rdu_engine`` gave it.
            local: the artifact.
            note: says which of its files is the PEF, and its lengths.

        Raises:
            ArtifactError: the PEF has not the schedules, symbols, shapes or types that the note and
                the artifact promise.
        """
        # Absolute: the runtime may look from another folder.
        path = str(local.path(note.pef).resolve())
        with _misfits_refused(local.artifact.url, note):
            folder = checkpoint_folder(local, engine.get_checkpoint_spec(path))
            pef = engine.PEF(path)
            _check_schedules(pef, local.artifact.url, note)
            graphs = cls(pef, pef.load_checkpoint(str(folder)), note)
            graphs._probe(local.artifact)
        return graphs

    def prefill(self, ids_S: Sequence[int]) -> Tensor:
        """See ``graph_session.RowGraphs``: through the shortest graph that holds the tokens."""
        return self._run(*prefill_inputs(ids_S, self._lengths))

    def decode(self, ids_S: Sequence[int]) -> Tensor:
        """See ``graph_session.RowGraphs``: the last token, over the cache of the others."""
        return self._run(*decode_inputs(ids_S, self._max_seq_length))

    def _run(self, schedule: str, inputs: dict[str, Tensor]) -> Tensor:
        output = self._pef.run(self._checkpoint, inputs, schedule, reuse_outputs=True)
        logits_11V = output.get_tensor(symbols.LOGITS)
        # In memory of its own: the next run overwrites it.
        row: Tensor = logits_11V[:, 0, :].detach().to(dtype=torch.float32, copy=True)
        return row

    def _probe(self, artifact: Artifact) -> None:
        """Run each graph that a row can reach, and look at what comes back."""
        lengths = sorted({min(length, self._max_seq_length - 1) for length in self._lengths})
        runs = [prefill_inputs([PAD_ID] * length, self._lengths) for length in lengths]
        runs.append(decode_inputs([PAD_ID] * (lengths[-1] + 1), self._max_seq_length))
        wanted = (1, 1, artifact.vocab_size)
        for schedule, inputs in runs:
            output = self._pef.run(self._checkpoint, inputs, schedule, reuse_outputs=True)
            logits = output.get_tensor(symbols.LOGITS)
            if tuple(logits.shape) != wanted or logits.dtype != torch.float32:
                raise ArtifactError(
                    f"{artifact.url}: {schedule} of its PEF gives {symbols.LOGITS} as "
                    f"{logits.dtype} {tuple(logits.shape)}, wanted torch.float32 {wanted}; compile "
                    "the model again with --graphs cached"
                )


def _check_schedules(pef: Any, url: str, note: PefNote) -> None:
    wanted = [symbols.prefill_graph(length) for length in note.prefill_lengths]
    wanted.append(symbols.decode_graph(note.max_seq_length))
    found = set(pef.get_schedules())
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ArtifactError(
            f"{url}: {note.pef} has no schedule {', '.join(missing)}; it has "
            f"{', '.join(sorted(found)) or 'none'}; compile the model again with --graphs cached"
        )


@contextmanager
def _misfits_refused(url: str, note: PefNote) -> Iterator[None]:
    """Tell a PEF that does not fit from a device that fails."""
    try:
        yield
    except RduBatchError:
        raise
    except Exception as error:
        if not any(part in str(error).lower() for part in MISFITS):
            raise
        raise ArtifactError(
            f"{url}: {note.pef} is not what its note says ({type(error).__name__}: {error}); "
            "compile the model again with --graphs cached"
        ) from error
