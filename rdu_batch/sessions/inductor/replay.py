"""Decode as recorded CUDA graphs: what a GPU needs to be told one token's hundreds of kernels once.

A CUDA graph replays fixed shapes at fixed addresses, and the decode graph attends to as many
positions as its mask is long. So decode on a GPU attends to the positions of a bucket, and there is
one recording a bucket.

Promises: which bucket a token falls into depends on its position alone, and a result is always that
of a replay, also of the call that recorded; so a row's bits do not depend on the rows before it.
Attended positions behind the token's own are masked with -inf, so their weights are exactly 0. What
lies there (zeros, or an earlier row's keys and values) is finite, and 0 times it is 0; a number
that is not finite would make the logits NaN, which ends the session (``door.check_logit``), and so
it cannot change a token in silence.
Does not: record prefill, whose shapes are too many and whose kernels are long.

Written against torch 2.13's documented interfaces. What is about buckets and static inputs is
tested on cpu; ``CudaRecorder`` has never run on a GPU.

Shapes: N positions attended to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import torch

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

#: A call of a graph with nothing left open; what it gives back may be overwritten by the next.
Call = Callable[[], "list[Tensor]"]
#: The smallest bucket, in positions.
LEAST_BUCKET: Final = 64
#: How far logits may be apart for another number of masked positions, in their standard deviations.
_ROUNDING_DISTANCE = 1e-3


def bucket_of(num_positions: int, most: int, least: int = LEAST_BUCKET) -> int:
    """Positions that decode attends to on a GPU, so that few numbers occur.

    Up to ``16 * least`` a multiple of ``least``; from there on eight sizes from one power of two to
    the next, so an eighth is added at most, and 128 Ki positions have 72 sizes.

    Args:
        num_positions: up to and with the token's own.
        most: what the graph can attend to; never less than ``num_positions``.
        least: the smallest bucket, a power of two.
    """
    step = max(least, (1 << (num_positions - 1).bit_length()) // 16)
    return min(most, -(-num_positions // step) * step)


def check_buckets(program: ExportedProgram, most: int) -> None:
    """Refuse a decode graph whose answer depends on how many positions behind its token it gets.

    Most models take a token's position from where they are told it is; GPT-Neo takes the end of
    what is attended to for it. Run as exported, over random keys and values, on their device.

    Args:
        program: the decode graph.
        most: positions that it can attend to.

    Raises:
        ArtifactError: the answers differ; says no more than that.
    """
    graph = program.module()
    token_11, position_1, mask_111N, scored_1, keys, values = program.example_inputs[0]
    torch.manual_seed(1)
    cached = [[torch.randn_like(tensor) for tensor in tensors] for tensors in (keys, values)]

    def logits(position: int, num_positions: int) -> Tensor:
        copies = [[tensor.clone() for tensor in tensors] for tensors in cached]
        mask = mask_111N.new_zeros(1, 1, 1, num_positions)
        found = graph(token_11, torch.full_like(position_1, position), mask, scored_1, *copies)
        logits_1V: Tensor = found[1]
        return logits_1V

    with torch.no_grad():
        for position in (1, most // 2):
            wanted = logits(position, position + 1)
            distance = float((logits(position, most) - wanted).abs().mean() / wanted.std())
            if not distance <= _ROUNDING_DISTANCE:
                raise ArtifactError(
                    "it takes a token's position from how many positions are attended to, which "
                    "decode on a GPU rounds up; compile it with --device cpu"
                )


class ReplayedGraph:
    """The decode graph, recorded when a number of positions is first attended to, then replayed.

    Not at opening: a model of many positions has many buckets, and most rows meet few of them.
    """

    def __init__(self, graph: Any, device: torch.device, record: Callable[[Call], Call]) -> None:
        """Make the static inputs; records nothing yet.

        Args:
            graph: as ``open_package`` gives it.
            device: of its inputs.
            record: turns a call into one that does the same again; may run it before.
        """
        self._graph, self._record = graph, record
        self._token_11 = torch.zeros(1, 1, dtype=torch.long, device=device)
        self._position_1 = torch.zeros(1, dtype=torch.long, device=device)
        self._replays: dict[int, Call] = {}

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        """As a graph's own ``run``; what it gives back is overwritten by the next call.

        ``inputs`` are the token, its position, the mask, and tensors that are the same ones in
        every call; the mask says N, the others are read again in each replay.
        """
        token_11, position_1, mask_111N, *same = inputs
        self._token_11.copy_(token_11)
        self._position_1.copy_(position_1)
        num_positions = mask_111N.shape[-1]
        replay = self._replays.get(num_positions)
        if replay is None:

            def call() -> list[Tensor]:
                static = [self._token_11, self._position_1, mask_111N, *same]
                outputs: list[Tensor] = self._graph.run(static)
                return outputs

            # Recording may run the graph, with this very token: the replay writes the same keys and
            # values to the same place again.
            replay = self._replays[num_positions] = self._record(call)
        return replay()


class CudaRecorder:
    """Records calls as CUDA graphs that share one pool of memory.

    Sharing is safe because only one of them runs at a time, and because what a replay gave back is
    read before the next one begins.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Call) -> Call:
        """Run once as it is, so that kernels are loaded and constants are made; then record."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            call()
        recorded = torch.cuda.CUDAGraph()
        # Waits for the stream first.
        with torch.cuda.graph(recorded, pool=self._pool, stream=self._stream):
            outputs = call()

        def replay() -> list[Tensor]:
            recorded.replay()
            return outputs

        return replay


def greedy_choice(token_1: Tensor, logits_1V: Tensor) -> tuple[int, float]:
    """The greedy token and its logit; from a GPU in one transfer, because each one waits for it."""
    if token_1.device.type == "cpu":
        token_id = int(token_1)
        return token_id, float(logits_1V[0, token_id])
    return choice_in_one_transfer(token_1, logits_1V)


def choice_in_one_transfer(token_1: Tensor, logits_1V: Tensor) -> tuple[int, float]:
    """``greedy_choice`` for any device. A token id is exact as a float64."""
    logit_1 = logits_1V.gather(1, token_1[None])[0]
    token, logit = torch.cat((token_1.double(), logit_1.double())).tolist()
    return int(token), logit
