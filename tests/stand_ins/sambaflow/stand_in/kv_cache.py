"""What the two graphs with the published names may be given: prefill and decode [MZ].

Their names are `model_nocache_{S}_fwd` and `model_cache_{M}_fwd`; other graphs pass unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.tensors import SambaTensor

PREFILL = re.compile(r"model_nocache_(\d+)_fwd")
DECODE = re.compile(r"model_cache_(\d+)_fwd")
INDEX, MASK = "last_token_index", "attention_mask"


class KvCacheRules:
    """Follows how far the cache is filled, row by row."""

    def __init__(self) -> None:
        self._filled_B1: torch.Tensor | None = None

    def check(self, graph: str, names: Iterable[str], values: Mapping[str, torch.Tensor]) -> None:
        """Check a run of one graph by what its regions hold, and note what it fills.

        Args:
            graph: Name of the graph.
            names: Names of all graphs.
            values: The graph's inputs by region.

        Raises:
            ContractError: An index is outside, a mask is not right-padded, the cache has a hole.
        """
        if INDEX not in values:
            return
        index_B1 = values[INDEX].long()
        if PREFILL.fullmatch(graph):
            self._check_prefill(graph, names, index_B1)
            self._filled_B1 = index_B1.clone()
        elif DECODE.fullmatch(graph):
            self._check_decode(graph, index_B1, values)
            assert self._filled_B1 is not None
            self._filled_B1 = torch.maximum(self._filled_B1, index_B1)

    def _check_prefill(self, graph: str, names: Iterable[str], index_B1: torch.Tensor) -> None:
        static_length = length_in(PREFILL, graph)
        longest = max(
            (length_in(DECODE, name) for name in names if DECODE.fullmatch(name)), default=None
        )
        if (index_B1 < 0).any() or (index_B1 >= static_length).any():
            raise ContractError(
                Contract.OVERFLOW,
                f"{graph} with {INDEX} {index_B1.flatten().tolist()}",
                f"0 to {static_length - 1}",
            )
        if longest is not None and (index_B1 + 1 >= longest).any():
            raise ContractError(
                Contract.OVERFLOW,
                f"{graph} with a prompt of {int(index_B1.max()) + 1} tokens",
                f"Prompts should be shorter than the compiled seq length ({longest})",
            )

    def _check_decode(
        self, graph: str, index_B1: torch.Tensor, values: Mapping[str, torch.Tensor]
    ) -> None:
        longest = length_in(DECODE, graph)
        if (index_B1 < 0).any() or (index_B1 >= longest).any():
            raise ContractError(
                Contract.OVERFLOW,
                f"{graph} with {INDEX} {index_B1.flatten().tolist()}",
                f"an index capped at {longest - 1}: beyond it a scatter is undefined",
            )
        if self._filled_B1 is None or (index_B1 > self._filled_B1 + 1).any():
            filled = None if self._filled_B1 is None else self._filled_B1.flatten().tolist()
            raise ContractError(
                Contract.REGIONS,
                f"{graph} at {index_B1.flatten().tolist()} over a cache filled to {filled}",
                "a prefill first, then each position in turn",
            )
        if MASK in values:
            wanted_BM = torch.arange(longest) <= index_B1
            if not torch.equal(values[MASK] != 0, wanted_BM):
                raise ContractError(
                    Contract.MASK,
                    f"{graph} with a mask that is not ones to {INDEX} and zeros after",
                    "right padding, and a one at the index",
                )


def check_published(graph: str, inputs: Iterable[SambaTensor]) -> None:
    """Check that the integers of a graph with a published name are the published ones.

    Raises:
        ContractError: A name, a length or a dtype is another one: ids, index and mask are int32.
    """
    if PREFILL.fullmatch(graph):
        length = length_in(PREFILL, graph)
        wanted = {f"input_ids_consume_cache_False_static_seq_length_{length}": length, INDEX: 1}
    elif DECODE.fullmatch(graph):
        length = length_in(DECODE, graph)
        wanted = {f"input_ids_consume_cache_True_max_seq_length_{length}": 1, MASK: length}
        wanted[INDEX] = 1
    else:
        return
    found = {str(one.sn_name): one for one in inputs if not one.dtype.is_floating_point}
    if found.keys() != wanted.keys():
        raise ContractError(Contract.NAMES, f"{graph} with {sorted(found)}", f"{sorted(wanted)}")
    for name, columns in wanted.items():
        if found[name].dtype is not torch.int32:
            raise ContractError(Contract.DTYPES, f"{name} of {found[name].dtype}", "torch.int32")
        if tuple(found[name].shape[1:]) != (columns,):
            raise ContractError(
                Contract.SHAPES, f"{name} of shape {tuple(found[name].shape)}", f"(B, {columns})"
            )


def with_other_padding(
    graph: str, values: Mapping[str, torch.Tensor], run: int
) -> dict[str, torch.Tensor]:
    """A prefill's inputs with other token ids behind the index, in each run others.

    A graph whose logits or whose real part of the cache depend on the padding so gives other
    results from run to run.
    """
    ids = next((name for name in values if name.startswith("input_ids")), None)
    if not PREFILL.fullmatch(graph) or ids is None or INDEX not in values:
        return dict(values)
    last_B1 = values[INDEX].long()
    places_BS = torch.arange(values[ids].shape[1]).expand(values[ids].shape)
    sources_BS = torch.where(places_BS > last_B1, (places_BS * 7 + run) % (last_B1 + 1), places_BS)
    return {**values, ids: values[ids].gather(1, sources_BS)}


def length_in(pattern: re.Pattern[str], graph: str) -> int:
    """The length in the name of a graph."""
    found = pattern.fullmatch(graph)
    assert found is not None
    return int(found[1])


def real_tokens(given: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The tokens that a run gives, without the padding of a prefill."""
    ids = next((value for name, value in given.items() if name.startswith("input_ids")), None)
    if ids is None or INDEX not in given or ids.shape[1] == 1:
        return ids
    return ids[torch.arange(ids.shape[1]) <= given[INDEX]]
