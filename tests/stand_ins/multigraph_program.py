"""A program of two graphs, prefill and decode, over a tiny attention layer with a static cache.

Written from the description of the modelzoo's calls. The right program of its tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from sambaflow import samba
from sambaflow.samba import SambaTensor
from sambaflow.samba.graph import FwdGraph
from sambaflow.samba.utils import trace_multigraph
from torch import nn

PREFILL_LENGTH = 6
MAX_LENGTH = 10
VOCAB_SIZE = 20
WIDTH = 8
PROMPT = [3, 1, 4]
PREFILL = f"model_nocache_{PREFILL_LENGTH}_fwd"
DECODE = f"model_cache_{MAX_LENGTH}_fwd"
PREFILL_IDS = f"input_ids_consume_cache_False_static_seq_length_{PREFILL_LENGTH}"
DECODE_IDS = f"input_ids_consume_cache_True_max_seq_length_{MAX_LENGTH}"


class TinyModel(nn.Module):
    """One attention layer that returns logits of one position and its cache."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.wpe = nn.Embedding(MAX_LENGTH, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(
        self,
        input_ids: torch.Tensor,
        last_token_index: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
        return_dict: bool = False,
    ) -> Any:
        """Prefill without a cache, or one step with one."""
        if past_key_values is None:
            return self._prefill(input_ids, last_token_index)
        hidden_B1D = self.wte(input_ids) + self.wpe(last_token_index)
        q_B1D, k_B1D, v_B1D = self.qkv(hidden_B1D).chunk(3, dim=-1)
        place_B1D = last_token_index.unsqueeze(-1).expand_as(k_B1D)
        past_k_BMD, past_v_BMD = past_key_values[0]
        k_BMD = past_k_BMD.scatter(1, place_B1D, k_B1D)
        v_BMD = past_v_BMD.scatter(1, place_B1D, v_B1D)
        seen_B1M = (attention_mask != 0).unsqueeze(1)
        return self._logits(q_B1D, k_BMD, v_BMD, seen_B1M, hidden_B1D), ((k_BMD, v_BMD),)

    def _prefill(self, input_ids: torch.Tensor, last_token_index: torch.Tensor) -> Any:
        length = input_ids.shape[1]
        hidden_BSD = self.wte(input_ids) + self.wpe.weight[:length]
        q_BSD, k_BSD, v_BSD = self.qkv(hidden_BSD).chunk(3, dim=-1)
        rows = torch.arange(len(input_ids)).unsqueeze(1)
        seen_B1S = (torch.arange(length) <= last_token_index).unsqueeze(1)
        last_B1 = (rows, last_token_index)
        logits_B1V = self._logits(q_BSD[last_B1], k_BSD, v_BSD, seen_B1S, hidden_BSD[last_B1])
        padding = (0, 0, 0, MAX_LENGTH - length)
        cache = tuple(nn.functional.pad(one, padding) for one in (k_BSD, v_BSD))
        return logits_B1V, (cache,)

    def _logits(
        self,
        q_B1D: torch.Tensor,
        k_BMD: torch.Tensor,
        v_BMD: torch.Tensor,
        seen_B1M: torch.Tensor,
        hidden_B1D: torch.Tensor,
    ) -> torch.Tensor:
        scores_B1M = q_B1D @ k_BMD.transpose(1, 2) / math.sqrt(WIDTH)
        scores_B1M = scores_B1M.masked_fill(~seen_B1M, -10e10)
        return self.lm_head(hidden_B1D + scores_B1M.softmax(-1) @ v_BMD)


def tiny_model(*, tied: bool = False) -> TinyModel:
    """A model with large random weights."""
    torch.manual_seed(0)
    model = TinyModel(tied=tied)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def reference_logits_V(tokens: Sequence[int]) -> torch.Tensor:
    """Logits after these tokens, without a cache."""
    with torch.no_grad():
        index_11 = torch.tensor([[len(tokens) - 1]])
        return tiny_model()(torch.tensor([list(tokens)]), index_11)[0][0, 0]


def named(shape: Sequence[int], name: str) -> SambaTensor:
    """An input of integers for the trace."""
    return samba.from_torch_tensor(torch.zeros(*shape, dtype=torch.int32), name=name)


class Graphs:
    """Both graphs, traced, with their regions shared."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self.model = tiny_model() if model is None else model
        samba.from_torch_model_(self.model)
        self.index = named((1, 1), "last_token_index")
        self.prefill_inputs = {
            "input_ids": named((1, PREFILL_LENGTH), PREFILL_IDS),
            "use_cache": True,
            "return_dict": False,
            "last_token_index": self.index,
        }
        self.prefill_outputs = trace_multigraph(
            self.model, self.prefill_inputs, trace_prefix=PREFILL
        )
        cache = [tuple(self.as_input(one) for one in pair) for pair in self.prefill_outputs[1]]
        self.decode_inputs = {
            "input_ids": named((1, 1), DECODE_IDS),
            "attention_mask": named((1, MAX_LENGTH), "attention_mask"),
            "past_key_values": cache,
            "use_cache": True,
            "return_dict": False,
            "last_token_index": self.index,
        }
        self.decode_outputs = trace_multigraph(self.model, self.decode_inputs, trace_prefix=DECODE)
        for output, into in zip(self.decode_outputs[1][0], cache[0], strict=True):
            output.sn_region_name = into.sn_region_name
        for outputs in (self.prefill_outputs, self.decode_outputs):
            outputs[0].sn_region_name = "logits"

    @staticmethod
    def as_input(output: SambaTensor) -> SambaTensor:
        """An input in the region of an output."""
        return SambaTensor(
            name=f"{output.sn_name}_copy",
            region_name=output.sn_region_name,
            shape=output.shape,
            dtype=output.dtype,
        )

    def add(self) -> None:
        """Add both graphs."""
        samba.session.add_graph(FwdGraph(self.prefill_inputs, self.prefill_outputs, name=PREFILL))
        samba.session.add_graph(FwdGraph(self.decode_inputs, self.decode_outputs, name=DECODE))


def compiled_pef(folder: Any) -> str:
    """Compile both graphs into one PEF."""
    samba.session.setup(SimpleNamespace(output_folder=str(folder), pef_name="two"))
    Graphs().add()
    return samba.session.compile_multigraph(
        name="two", config_dict={}, pef_metadata={}, enable_hypersection=True, inference=True
    )


def start(pef: str) -> None:
    """Trace again, and make the session."""
    samba.session.setup(SimpleNamespace(pef=pef))
    Graphs().add()
    samba.session.init_multigraph_runtime(pef)


def run(graph: str, **inputs: torch.Tensor) -> torch.Tensor:
    """Run a graph, and fetch a copy of the logits."""
    samba.session.run(input_tensors=samba.from_named_dict(inputs), graph_name=graph)
    return samba.session.get_tensors_by_name(["logits"])[0].data[0, 0].clone()


def prefill(tokens: Sequence[int]) -> torch.Tensor:
    """Fill the cache with a prompt; the logits after it."""
    ids_1S = torch.zeros(1, PREFILL_LENGTH, dtype=torch.int32)
    ids_1S[0, : len(tokens)] = torch.tensor(tokens)
    index_11 = torch.tensor([[len(tokens) - 1]], dtype=torch.int32)
    return run(PREFILL, **{PREFILL_IDS: ids_1S, "last_token_index": index_11})


def decode(token: int, index: int, **changes: torch.Tensor) -> torch.Tensor:
    """One more token at an index; the logits after it."""
    mask_1M = (torch.arange(MAX_LENGTH) <= index).int().unsqueeze(0)
    inputs = {
        DECODE_IDS: torch.tensor([[token]], dtype=torch.int32),
        "attention_mask": mask_1M,
        "last_token_index": torch.tensor([[index]], dtype=torch.int32),
    }
    return run(DECODE, **{**inputs, **changes})
