"""The tutorial's form: one static graph over all positions, run whole for every token.

Promises: the tutorial's calls in its order: ``from_torch_model_``, then ``session.compile``; or
``trace_graph`` with the PEF, the checkpoint, ``to_rdu``, and ``session.run`` for each token. What a
run gave back is copied before the next one overwrites it. Does not: keep keys and values.

Shapes: S tokens so far, L positions of the graph, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.samba.flow import read_pef_metadata
from rdu_batch.sessions.samba.gpt2_patch import check_patchable, patch_gpt2
from rdu_batch.sessions.samba.graph_inputs import MOST_POSITIONS, PAD_ID, graph_inputs
from rdu_batch.sessions.samba.rdu_model import load_checkpoint, prepare_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.compile_settings import CompileSettings
    from rdu_batch.sessions.samba.flow import SambaFlow
    from rdu_batch.sessions.samba.pef import PefNote

#: No dropout: its probability is given to the graph with each run.
HYPERPARAMETERS: Final = {"p": 0.0}
#: A PEF that was compiled for training has more sections; they are never run.
SECTIONS: Final = ("fwd",)


class SingleGraph:
    """One graph on the device; see ``forms.Graphs``."""

    needs_setup: ClassVar = False

    def __init__(self, flow: SambaFlow, model: Any, traced: Any, length: int) -> None:
        """Put together what ``open`` has loaded.

        Args:
            flow: SambaFlow, with its runtime started.
            model: what was traced; SambaFlow's session may refer to it, so it lives as long.
            traced: as ``trace_graph`` gave it; runs must name these very tensors.
            length: L.
        """
        self._samba = flow.samba
        self._model, self._traced = model, traced
        self._length = length

    @staticmethod
    def check(config: Any, settings: CompileSettings) -> None:
        """See ``forms.Graphs.check``."""
        check_patchable(config)
        if settings.max_seq_length > MOST_POSITIONS:
            raise UsageError(
                f"max_seq_length is {settings.max_seq_length}; a graph of kind samba has at most "
                f"{MOST_POSITIONS} positions"
            )

    @staticmethod
    def compile(flow: SambaFlow, folder: Path, dtype: str, note: PefNote) -> None:
        """See ``forms.Graphs.compile``."""
        model = _prepared(flow, folder, dtype, place=str(folder))
        inputs = graph_inputs(flow.samba, [PAD_ID], note.max_seq_length)
        flow.samba.session.compile(model, inputs)

    @classmethod
    def open(cls, flow: SambaFlow, local: LocalArtifact, note: PefNote, pef: Path) -> SingleGraph:
        """See ``forms.Graphs.open``."""
        found = read_pef_metadata(pef, ("lengths",))
        if found is not None and found["lengths"] is not None:
            raise ArtifactError(
                f"{local.artifact.url}: {note.pef} holds graphs with a cache, of lengths "
                f"{found['lengths']}, but its note says that it is a single graph; compile the "
                "model again"
            )
        artifact = local.artifact
        model = _prepared(flow, local.folder, artifact.dtype, place=artifact.url)
        inputs = graph_inputs(flow.samba, [PAD_ID], note.max_seq_length)
        traced = flow.utils.trace_graph(model, inputs, pef=str(pef))
        load_checkpoint(flow, model, local.folder, artifact.layouts)
        return cls(flow, model, traced, note.max_seq_length)

    def prefill(self, ids_S: Sequence[int]) -> Tensor:
        """See ``RowGraphs.prefill``: all positions are computed."""
        outputs = self._samba.session.run(
            input_tensors=graph_inputs(self._samba, ids_S, self._length),
            output_tensors=self._traced,
            hyperparam_dict=dict(HYPERPARAMETERS),
            section_types=list(SECTIONS),
        )
        return _row_of(self._samba.to_torch(outputs[0]), len(ids_S) - 1)

    def decode(self, ids_S: Sequence[int]) -> Tensor:
        """See ``RowGraphs.decode``: as a prefill of all tokens so far."""
        return self.prefill(ids_S)


def _prepared(flow: SambaFlow, folder: Path, dtype: str, *, place: str) -> Any:
    patch = partial(patch_gpt2, addmm=flow.samba.addmm, op_fusion=flow.op_fusion)
    return prepare_model(flow, folder, dtype, patch=patch, place=place)


def _row_of(logits_1LV: Tensor, index: int) -> Tensor:
    """One position's logits as float32, [1, V], in memory of its own: the next run overwrites it.

    Only this row is converted: the positions behind it hold padding, those before it are known.
    """
    return logits_1LV[:, index, :].detach().to(dtype=torch.float32, copy=True)
