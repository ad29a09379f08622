"""The inductor session: a key/value cache, two compiled graphs, and nothing else.

Promises: a row's tokens depend on that row alone; weights are shared with every other session of
the node, where the device is the node's processor; opening needs no compiler. Does not: tokenize or
sample; see ``decode_loop.py``.

On a GPU (an artifact of device ``cuda``) each session has a copy of the weights in device memory,
prefill runs the compiled graph, and decode replays recordings of it (``replay.py``). All of that is
written against torch 2.13's documented interfaces and has never run on a GPU.

Shapes: S prompt length, C tokens of a prefill chunk, N positions attended to, L cache positions.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
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
from rdu_batch.sessions.inductor.replay import (
    CudaRecorder,
    ReplayedGraph,
    bucket_of,
    greedy_choice,
)
from rdu_batch.sessions.inductor.target import check_target
from rdu_batch.sessions.inductor.weights import bound_tensors, map_tensors
from rdu_batch.sessions.registry import CHOSEN_BY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from rdu_batch.sessions.artifact import Artifact, LocalArtifact

#: Fills the end of the last chunk. Any id does: what it writes is overwritten before it is read.
PAD_ID = 0
#: The last chunk of a prompt has a multiple of this many tokens, or is a whole one: few enough
#: shapes for the library that prepares each, few enough tokens that are computed for nothing.
TAIL_STEP = 8


def chunk_tokens(num_tokens: int, prefill_chunk: int) -> int:
    """Tokens that a chunk is computed with, padding included; a function of its size alone."""
    return min(prefill_chunk, -(-num_tokens // TAIL_STEP) * TAIL_STEP)


class InductorSession:
    """A model compiled ahead of time, at batch size 1; see ``door.Session``.

    Leading chunks that a prompt shares with the prompt before are kept: their keys and values were
    computed from the same tokens, by the same graph, at the same positions and sizes, so a fresh
    prefill would write the very same bits. Decode writes only behind the prompt's whole chunks.
    """

    def __init__(
        self,
        info: SessionInfo,
        prefill_graph: Any,
        decode_graph: Any,
        keys_values: list[Tensor],
        attended: Callable[[int], int] = int,
        bound: Any = None,
    ) -> None:
        """Put together what ``open`` has loaded.

        Args:
            info: limits, dtype and vocabulary.
            prefill_graph: as ``open_package`` gives it.
            decode_graph: the same, or one that replays it.
            keys_values: the cache, on the device of the graphs.
            attended: how many positions decode attends to, of how many it has to; as many if left
                out.
            bound: what the graphs hold bare pointers into; lives as long as the session.
        """
        self._info = info
        self._prefill_graph, self._decode_graph = prefill_graph, decode_graph
        self._attended = attended
        self._keys_values = keys_values
        cache_length = keys_values[0].shape[2]
        self._device = keys_values[0].device
        self._positions_L = torch.arange(cache_length, device=self._device)
        self._token_11 = torch.zeros(1, 1, dtype=torch.long, device=self._device)
        # Graphs take the number of positions from a mask's size, and never read it.
        self._mask_111L = torch.zeros(1, 1, 1, cache_length, device=self._device)
        self._scored_1 = torch.zeros(1, dtype=torch.long, device=self._device)
        #: Where the next decode must be; None when there is no row.
        self._next_position: int | None = None
        #: Tokens of the whole chunks that lie in the cache from position 0 on.
        self._cached_ids: list[int] = []
        self._closed = False
        self._bound = bound

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
                f"use kind {artifact.kind} ({CHOSEN_BY}), or compile the model for inductor"
            )
        if artifact.threads not in (None, threads):
            raise ArtifactError(
                f"{artifact.url}: compiled for {artifact.threads} threads, asked for {threads}; "
                "set session.threads, or compile the model again"
            )
        check_target(artifact.target, url=artifact.url)
        torch.set_num_threads(threads)
        device = artifact.target.device
        stored = _on_device(map_tensors(local.path(WEIGHTS_FILE)), device)
        weights = bound_tensors(stored, artifact.layouts)
        named = {WEIGHT_PREFIX + name: tensor for name, tensor in weights.items()}
        if device == "cpu":
            load_kernels(local.path(KERNELS_FILE))
        graphs = []
        for graph in ("prefill", "decode"):
            path = local.path(graph_file(graph))
            package = open_package(path, device)
            constants = _on_device(map_tensors(local.path(constants_file(graph))), device)
            bind_tensors(package, {**named, **constants}, path=path)
            graphs.append((package, constants))
        (prefill_graph, _), (decode_graph, _) = graphs
        return cls._over(artifact, threads, prefill_graph, decode_graph, (named, graphs))

    @classmethod
    def _over(
        cls, artifact: Artifact, threads: int, prefill_graph: Any, decode_graph: Any, bound: Any
    ) -> InductorSession:
        """The session over loaded graphs, with an empty cache on their device."""
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
        device = torch.device(artifact.target.device)
        keys_values = [
            *shape.zeros(artifact.cache_length, dtype, device),
            *shape.zeros(artifact.cache_length, dtype, device),
        ]
        if device.type == "cpu":
            return cls(info, prefill_graph, decode_graph, keys_values, bound=bound)
        replayed = ReplayedGraph(decode_graph, device, CudaRecorder())
        attended = partial(bucket_of, most=artifact.cache_length - 1)
        return cls(info, prefill_graph, replayed, keys_values, attended, bound)

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
                self._mask_111L[..., : self._attended(position + 1)],
                self._scored_1,
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
                torch.tensor([ids + [PAD_ID] * (num_tokens - len(ids))], device=self._device),
                self._positions_L[start:end],
                torch.empty(1, 1, num_tokens, end, device=self._device),
                # A tensor of its own: on a GPU a part of another one may lie askew, and is copied.
                torch.tensor([last], device=self._device),
            ],
        )

    def _run(self, graph: Any, inputs: list[Tensor]) -> list[Tensor]:
        with self._breaking():
            outputs: list[Tensor] = graph.run([*inputs, *self._keys_values])
        return outputs

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """A failure of the device breaks the session; a GPU's shows when its answer is read."""
        try:
            yield
        except RuntimeError as error:
            self.reset()
            raise SessionBroken(f"the compiled graph failed: {error}") from error

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

    def _step_of(self, outputs: list[Tensor] | None, want_logits: bool) -> Step:
        if outputs is None:
            raise SessionBroken("no chunk was run; this is a bug")
        token_1, logits_1V = outputs
        with self._breaking():
            token_id, logit = greedy_choice(token_1, logits_1V)
        check_logit(logit)
        # On a GPU a copy, because the next replay overwrites what this one gave back.
        return Step(token_id, logits_1V.cpu() if want_logits else None)


def _on_device(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """The same tensors where a graph wants them; on cpu that is where they are mapped.

    Raises:
        SessionBroken: they do not fit into the device's memory, or it failed.
    """
    try:
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    except RuntimeError as error:
        raise SessionBroken(f"the weights cannot be copied to {device}: {error}") from error
