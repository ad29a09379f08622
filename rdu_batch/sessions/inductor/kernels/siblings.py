"""Join products of one and the same row into one call.

Promises: the same products in the same order of sums, fewer calls: queries, keys and values of a
layer read one run of weights after the other, without the threads meeting in between.
Does not: join anything that stands behind a user of what it joins; an exported graph has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def join_siblings(program: ExportedProgram, products: Any) -> int:
    """Rewrite the graph in place; gives back how many calls were saved."""
    graph = program.graph
    families: dict[Any, list[Any]] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target is products:
            families.setdefault(node.args[0], []).append(node)
    for x, calls in families.items():
        if len(calls) > 1:
            _join(graph, x, calls, products)
    program.graph_module.recompile()
    return sum(len(calls) - 1 for calls in families.values())


def _join(graph: Any, x: Any, calls: list[Any], products: Any) -> None:
    """One call where the first stood; each old one becomes a part of its result."""
    import torch

    # Lists of one entry for each weight: the weights themselves, and their scales if they have any.
    lists = [
        [entry for call in calls for entry in call.args[place]]
        for place in range(1, len(calls[0].args))
    ]
    with graph.inserting_before(calls[0]):
        joined = graph.call_function(products, (x, *lists))
        fake = [call.meta["val"] for call in calls]
        with fake[0].fake_mode:
            joined.meta["val"] = torch.cat(fake, -1)
        start = 0
        parts = []
        for value in fake:
            part = graph.call_function(
                torch.ops.aten.slice.Tensor, (joined, 2, start, start + value.shape[-1])
            )
            part.meta["val"] = value
            parts.append(part)
            start += value.shape[-1]
    for call, part in zip(calls, parts, strict=True):
        call.replace_all_uses_with(part)
        graph.erase_node(call)
