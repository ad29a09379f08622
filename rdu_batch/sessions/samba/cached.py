"""Several graphs with a key/value cache on the device: prefill of static lengths, and decode.

Promises: Model Zoo's names and calls (``symbols.py``): each graph is traced by
``trace_multigraph`` and added by ``add_graph``, by the same calls to compile and to run, then
``compile_multigraph`` or ``init_multigraph_runtime``. A prompt goes, padded on the right, through
the shortest prefill that holds it; each further token through decode, under ``graph_name``. The
cache never leaves the device: a run is given ids, index and mask, and only (1, 1, V) logits come
back, copied before the next run overwrites them.
Does not: choose tokens; write Model Zoo's further graphs, which choose them on the device.

What public material does not say and is inferred: ``run`` without ``output_tensors``, as the logits
are fetched by region; that a mask and an index are given whole at every step.

Shapes: S static length of a prefill, M positions of the cache, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.samba import symbols
from rdu_batch.sessions.samba.cached_inputs import decode_inputs, prefill_inputs
from rdu_batch.sessions.samba.cached_model import CachedModel, check_cachable, patch_cached
from rdu_batch.sessions.samba.flow import load_multigraph, read_pef_metadata
from rdu_batch.sessions.samba.rdu_model import load_weights, prepare_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.compile_settings import CompileSettings
    from rdu_batch.sessions.samba.flow import SambaFlow
    from rdu_batch.sessions.samba.pef import PefNote


class CachedGraphs:
    """Prefill and decode graphs on the device; see ``forms.Graphs``."""

    needs_setup: ClassVar = True

    def __init__(self, flow: SambaFlow, traced: TracedGraphs, note: PefNote) -> None:
        """Put together what ``open`` has loaded.

        Args:
            flow: SambaFlow, with its runtime started.
            traced: what was added to its session, which may refer to it, so it lives as long.
            note: lengths of the graphs.
        """
        self._samba = flow.samba
        self._traced = traced
        self._lengths, self._max_seq_length = note.prefill_lengths, note.max_seq_length

    @staticmethod
    def check(config: Any, settings: CompileSettings) -> None:
        """See ``forms.Graphs.check``."""
        check_cachable(config, settings.max_seq_length)

    @staticmethod
    def compile(flow: SambaFlow, folder: Path, dtype: str, note: PefNote) -> None:
        """See ``forms.Graphs.compile``."""
        model = _prepared(flow, folder, dtype, note, place=str(folder))
        TracedGraphs(flow, model, note).add()
        flow.samba.session.compile_multigraph(
            name=note.pef.removesuffix(".pef"),
            config_dict={},
            pef_metadata=symbols.metadata_of(note.max_seq_length, note.prefill_lengths),
            enable_hypersection=True,
            inference=True,
        )

    @classmethod
    def open(cls, flow: SambaFlow, local: LocalArtifact, note: PefNote, pef: Path) -> CachedGraphs:
        """See ``forms.Graphs.open``. Weights are there before the runtime starts and sends them."""
        artifact = local.artifact
        wanted = symbols.metadata_of(note.max_seq_length, note.prefill_lengths)
        found = read_pef_metadata(pef, tuple(wanted))
        if found != wanted:
            raise ArtifactError(
                f"{artifact.url}: {note.pef} says that it holds {found or 'no graphs with a cache'}"
                f", its note says {wanted}; compile the model again"
            )
        model = _prepared(flow, local.folder, artifact.dtype, note, place=artifact.url)
        load_weights(model, local.folder, artifact.layouts)
        traced = TracedGraphs(flow, model, note)
        traced.add()
        flow.samba.session.init_multigraph_runtime(str(pef))
        return cls(flow, traced, note)

    def prefill(self, ids_S: Sequence[int]) -> Tensor:
        """See ``RowGraphs.prefill``: through the shortest graph that holds the tokens."""
        return self._run(*prefill_inputs(ids_S, self._lengths))

    def decode(self, ids_S: Sequence[int]) -> Tensor:
        """See ``RowGraphs.decode``: the last token alone, over the cache of the others."""
        return self._run(*decode_inputs(ids_S, self._max_seq_length))

    def _run(self, graph: str, inputs: dict[str, Tensor]) -> Tensor:
        session = self._samba.session
        session.run(input_tensors=self._samba.from_named_dict(inputs), graph_name=graph)
        logits_11V = session.get_tensors_by_name([symbols.LOGITS])[0].data
        # In memory of its own: the next run overwrites it.
        row: Tensor = logits_11V[:, 0, :].detach().to(dtype=torch.float32, copy=True)
        return row


class TracedGraphs:
    """The graphs as SambaFlow traces them, with the regions that they share.

    One index tensor and one cache are inputs of several graphs; every graph's logits lie in one
    region, and every graph's cache in that of decode's input, so that it is updated in place.
    """

    def __init__(self, flow: SambaFlow, model: Any, note: PefNote) -> None:
        """Trace all graphs.

        Args:
            flow: SambaFlow, set up for a command.
            model: patched and converted.
            note: lengths of the graphs.
        """
        self._samba, self._multigraph = flow.samba, load_multigraph(flow)
        self._model = CachedModel(model, note.max_seq_length)
        #: Inputs and outputs by graph.
        self._graphs: dict[str, tuple[dict[str, Any], Any]] = {}
        index = self._integers((1, 1), symbols.INDEX)
        for length in note.prefill_lengths:
            ids = self._integers((1, length), symbols.prefill_ids(length))
            inputs = {"input_ids": ids, "last_token_index": index}
            self._trace(symbols.prefill_graph(length), inputs)
        _, (_, cache) = next(iter(self._graphs.values()))
        length = note.max_seq_length
        inputs = {
            "input_ids": self._integers((1, 1), symbols.decode_ids(length)),
            "last_token_index": index,
            "attention_mask": self._integers((1, length), symbols.MASK),
            "past_key_values": [tuple(self._cache_input(one) for one in pair) for pair in cache],
        }
        self._trace(symbols.decode_graph(length), inputs)

    def add(self) -> None:
        """Add all graphs to SambaFlow's session."""
        for name, (inputs, outputs) in self._graphs.items():
            graph = self._multigraph.fwd_graph(inputs, outputs, name=name)
            self._samba.session.add_graph(graph)

    def _trace(self, name: str, inputs: dict[str, Any]) -> None:
        outputs = self._multigraph.trace_multigraph(self._model, inputs, trace_prefix=name)
        logits, cache = outputs
        logits.sn_region_name = symbols.LOGITS
        for layer, (key, value) in enumerate(cache):
            key.sn_region_name = symbols.cache_region(layer, "key")
            value.sn_region_name = symbols.cache_region(layer, "value")
        self._graphs[name] = (inputs, outputs)

    def _integers(self, shape: tuple[int, ...], name: str) -> Any:
        return self._samba.from_torch_tensor(torch.zeros(shape, dtype=torch.int32), name=name)

    def _cache_input(self, output: Any) -> Any:
        """Decode's input in the region that prefill writes."""
        return self._multigraph.samba_tensor(
            name=output.sn_region_name,
            region_name=output.sn_region_name,
            shape=output.shape,
            dtype=output.dtype,
        )


def _prepared(flow: SambaFlow, folder: Path, dtype: str, note: PefNote, *, place: str) -> Any:
    patch = partial(
        patch_cached,
        max_seq_length=note.max_seq_length,
        addmm=flow.samba.addmm,
        op_fusion=flow.op_fusion,
    )
    return prepare_model(flow, folder, dtype, patch=patch, place=place)
