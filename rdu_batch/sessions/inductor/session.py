"""The inductor session: a key/value cache, two compiled graphs, and nothing else.

Promises: a row's tokens depend on that row alone; weights are shared with every other session of
the node; opening needs no compiler. Does not: tokenize or sample; see ``decode_loop.py``.

Shapes: S prompt length, C tokens of a prefill chunk, N positions attended to, L cache positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.errors import ArtifactError, SessionBroken
from rdu_batch.sessions.door import SessionInfo, Step, check_logit
from rdu_batch.sessions.inductor.geometry import (
    KERNELS_FILE,
    TORCH_DTYPES,
    WEIGHT_PREFIX,
    WEIGHTS_FILE,
    CacheShape,
    constants_file,
    graph_file,
)
from rdu_batch.sessions.inductor.package import bind_tensors, load_kernels, open_package
from rdu_batch.sessions.inductor.target import check_target
from rdu_batch.sessions.inductor.weights import bound_tensors, map_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact

#: Fills the end of the last chunk. Any id does: what it writes is overwritten before it is read.
PAD_ID = 0
#: The last chunk of a prompt has a multiple of this many tokens, or is a whole one: few enough
#: shapes for the library that prepares each, few enough tokens that are computed for nothing.
TAIL_STEP = 8


def chunk_tokens(num_tokens: int, prefill_chunk: int) -> int:
    """Tokens that a chunk is computed with, padding included; a function of its size alone."""
    return min(prefill_chunk, -(-num_tokens // TAIL_STEP) * TAIL_STEP)


class InductorSession:
    """A model compiled ahead of time, on CPU, at batch size 1; see ``door.Session``.

    Leading chunks that a prompt shares with the prompt before are kept: their keys and values were
    computed from the same tokens, by the same graph, at the same positions and sizes, so a fresh
    prefill would write the very same bits. Decode writes only behind the prompt's whole chunks.
    """

    def __init__(
        self, info: SessionInfo, prefill_graph: Any, decode_graph: Any, keys_values: list[Tensor]
    ) -> None:
        self._info = info
        self._prefill_graph, self._decode_graph = prefill_graph, decode_graph
        self._keys_values = keys_values
        cache_length = keys_values[0].shape[2]
        self._positions_L = torch.arange(cache_length)
        self._token_11 = torch.zeros(1, 1, dtype=torch.long)
        # Graphs take the number of positions from a mask's size, and never read it.
        self._mask_111L = torch.zeros(1, 1, 1, cache_length)
        self._scored = torch.arange(info.prefill_chunk)
        #: Where the next decode must be; None when there is no row.
        self._next_position: int | None = None
        #: Tokens of the whole chunks that lie in the cache from position 0 on.
        self._cached_ids: list[int] = []
        self._closed = False
        #: What the graphs hold bare pointers into.
        self._bound: Any = None

    @classmethod
    def open(cls, local: LocalArtifact, *, threads: int) -> InductorSession:
        """Load graphs and bind weights; sets this process's intra-op threads.

        Raises:
            ArtifactError: compiled for another target, another number of threads, or damaged.
        """
        artifact = local.artifact
        if artifact.kind != "inductor":
            raise ArtifactError(
                f"{artifact.url}: an artifact of kind {artifact.kind}, wanted inductor; "
                "set session.kind, or compile the model for inductor"
            )
        if artifact.threads not in (None, threads):
            raise ArtifactError(
                f"{artifact.url}: compiled for {artifact.threads} threads, asked for {threads}; "
                "set session.threads, or compile the model again"
            )
        check_target(artifact.target, url=artifact.url)
        torch.set_num_threads(threads)
        weights = bound_tensors(map_tensors(local.path(WEIGHTS_FILE)), artifact.layouts)
        named = {WEIGHT_PREFIX + name: tensor for name, tensor in weights.items()}
        load_kernels(local.path(KERNELS_FILE))
        graphs = []
        for graph in ("prefill", "decode"):
            path = local.path(graph_file(graph))
            package = open_package(path)
            constants = map_tensors(local.path(constants_file(graph)))
            bind_tensors(package, {**named, **constants}, path=path)
            graphs.append((package, constants))
        info = SessionInfo(
            kind="inductor",
            max_seq_length=artifact.max_seq_length,
            prefill_chunk=artifact.prefill_chunk,
            vocab_size=artifact.vocab_size,
            dtype=artifact.dtype,
            threads=threads,
        )
        shape = CacheShape(artifact.num_layers, artifact.num_kv_heads, artifact.head_size)
        dtype = TORCH_DTYPES[artifact.dtype]
        keys_values = [
            *shape.zeros(artifact.cache_length, dtype),
            *shape.zeros(artifact.cache_length, dtype),
        ]
        session = cls(info, graphs[0][0], graphs[1][0], keys_values)
        session._bound = (named, graphs)
        return session

    @property
    def info(self) -> SessionInfo:
        """Limits, dtype and vocabulary."""
        return self._info

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """Start a row; see ``door.Session.prefill``."""
        self._check_open()
        ids = self._info.check_prompt(input_ids_1S)
        chunk = self._info.prefill_chunk
        self._next_position = None
        num_chunks = -(-len(ids) // chunk)
        # The last chunk always runs: its last token is what is scored.
        num_kept = min(self._num_shared_chunks(ids), num_chunks - 1)
        whole = len(ids) // chunk * chunk
        self._cached_ids = ids[: num_kept * chunk]
        step = None
        for index in range(num_kept, num_chunks):
            step = self._run_chunk(ids[index * chunk : (index + 1) * chunk], index * chunk)
        self._cached_ids = ids[:whole]
        self._next_position = len(ids)
        return self._step_of(step, want_logits)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """Feed one token; see ``door.Session.decode``."""
        self._check_open()
        self._info.check_decode(token_id, position, self._next_position)
        outputs = self._run(
            self._decode_graph,
            [
                self._token_11.fill_(token_id),
                self._positions_L[position : position + 1],
                self._mask_111L[..., : position + 1],
                self._scored[:1],
            ],
        )
        self._next_position = position + 1
        return self._step_of(outputs, want_logits)

    def reset(self) -> None:
        """Forget the current row, kept chunks too."""
        self._next_position = None
        self._cached_ids = []

    def close(self) -> None:
        """Drop graphs and cache.

        The mapping of the weights may stay until the process ends, because torch can keep what
        was bound; its pages are clean and shared, so the kernel takes them back at need.
        """
        self.reset()
        self._closed = True
        self._prefill_graph = self._decode_graph = None
        self._keys_values = []
        self._bound = None

    def _run_chunk(self, ids: list[int], start: int) -> list[Tensor]:
        """Prefill up to C tokens at ``start``; scores the last of them."""
        num_tokens = chunk_tokens(len(ids), self._info.prefill_chunk)
        end = start + num_tokens
        last = len(ids) - 1
        return self._run(
            self._prefill_graph,
            [
                torch.tensor([ids + [PAD_ID] * (num_tokens - len(ids))]),
                self._positions_L[start:end],
                torch.empty(1, 1, num_tokens, end),
                self._scored[last : last + 1],
            ],
        )

    def _run(self, graph: Any, inputs: list[Tensor]) -> list[Tensor]:
        try:
            outputs: list[Tensor] = graph.run([*inputs, *self._keys_values])
        except RuntimeError as error:
            self.reset()
            raise SessionBroken(f"the compiled graph failed: {error}") from error
        return outputs

    def _num_shared_chunks(self, ids: list[int]) -> int:
        chunk = self._info.prefill_chunk
        shared = 0
        while (end := (shared + 1) * chunk) <= min(len(ids), len(self._cached_ids)) and ids[
            end - chunk : end
        ] == self._cached_ids[end - chunk : end]:
            shared += 1
        return shared

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the session is closed")

    @staticmethod
    def _step_of(outputs: list[Tensor] | None, want_logits: bool) -> Step:
        if outputs is None:
            raise SessionBroken("no chunk was run; this is a bug")
        token_1, logits_1V = outputs
        token_id = int(token_1)
        check_logit(float(logits_1V[0, token_id]))
        return Step(token_id, logits_1V if want_logits else None)
