"""The two graphs of an inductor artifact, and the process that exports and compiles one of them.

Promises: a graph is transformers' own modelling code, patched and traced; its weights stay outside;
the positions it attends to are the size of its mask. Does not: hold state; keys and values are
inputs that it updates in place.

``python -m rdu_batch.sessions.inductor.export FOLDER GRAPH SETTINGS`` compiles one graph of the
half-made artifact in FOLDER and says each finished stage in one line on stdout. Graphs are compiled
in processes of their own, so that both are made at once and Inductor's settings touch nothing else.

Shapes: C tokens of a call (1 in decode), N positions attended to, V vocabulary.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rdu_batch.sessions.inductor.cache import in_place_cache
from rdu_batch.sessions.inductor.geometry import (
    GRAPHS,
    TORCH_DTYPES,
    WEIGHT_PREFIX,
    WEIGHTS_FILE,
    GraphSettings,
    cache_shape_of,
    constants_file,
    graph_file,
)
from rdu_batch.sessions.inductor.package import open_package
from rdu_batch.sessions.inductor.patches import patch_model
from rdu_batch.sessions.inductor.target import choose_instruction_set, pinned_inductor
from rdu_batch.sessions.inductor.weights import map_tensors, original_tensors, write_tensors
from rdu_batch.sessions.plain_model import build_model, read_config

if TYPE_CHECKING:
    from collections.abc import Container

    from torch import Tensor
    from torch.export import ExportedProgram


class Graph(nn.Module):
    """One call of the model over C tokens: write their keys and values, score one position."""

    def __init__(self, model: Any, last_position: int) -> None:
        super().__init__()
        self.model: Any = model
        self.last_position = last_position

    def forward(
        self,
        input_ids_1C: Tensor,
        positions_C: Tensor,
        mask_11CN: Tensor,
        scored_1: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The greedy token [1] (lowest id of a tie) and fp32 logits [1, V] at ``scored_1``."""
        cache = in_place_cache(keys, values, positions_C, mask_11CN.shape[-1])
        embedded = self.model.get_input_embeddings()(input_ids_1C).float()
        # Padding at the end of the last chunk may lie behind the model's last position.
        position_ids = positions_C.clamp(max=self.last_position)[None]
        output = self.model(
            inputs_embeds=embedded,
            position_ids=position_ids,
            attention_mask=mask_11CN,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=scored_1,
        )
        logits_1V = output.logits[:, -1].float()
        return logits_1V.argmax(-1), logits_1V


def export_graph(model: Any, graph: str, settings: GraphSettings) -> ExportedProgram:
    """Trace one graph of a plain transformers model; patches the model in place."""
    num_tokens = 1 if graph == "decode" else settings.prefill_chunk
    cache = cache_shape_of(model.config)
    patched = patch_model(model, "row" if graph == "decode" else "chunk")
    dtype = TORCH_DTYPES[settings.dtype]
    keys = cache.zeros(settings.cache_length, dtype)
    values = cache.zeros(settings.cache_length, dtype)
    # Every row attends to two positions at least in decode, and never to the last of the cache:
    # export adds guards where a dimension may be 1 or may equal another one.
    num_positions = torch.export.Dim(
        "num_positions", min=max(2, num_tokens), max=settings.cache_length - 1
    )
    example_positions = min(num_tokens + 3, settings.cache_length - 1)
    inputs = (
        torch.zeros(1, num_tokens, dtype=torch.long),
        torch.arange(num_tokens),
        torch.zeros(1, 1, num_tokens, example_positions),
        torch.tensor([num_tokens - 1]),
        keys,
        values,
    )
    whole = [None] * cache.num_layers
    with torch.no_grad():
        return torch.export.export(
            Graph(patched, settings.max_seq_length - 1),
            inputs,
            dynamic_shapes=(None, None, {3: num_positions}, None, whole, whole),
            strict=False,
        )


def compile_graph(program: ExportedProgram, package: Path, settings: GraphSettings) -> None:
    """Compile an exported graph to a package without weights."""
    instruction_set = choose_instruction_set(settings.instruction_set)
    with pinned_inductor(instruction_set) as target_settings:
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - the documented entry point
            program,
            package_path=str(package),
            inductor_configs={
                **target_settings,
                "aot_inductor.package_constants_in_so": False,
                # The wrapper only calls kernels: optimizing it costs seconds and gains nothing.
                "aot_inductor.compile_wrapper_opt_level": "O0",
                # Threads are chosen when a session opens, not by this machine.
                "cpp.dynamic_threads": True,
                # Make norms buffers of their own, not part of every row of the next product.
                "realize_opcount_threshold": 3,
                "realize_reads_threshold": 2,
            },
        )


def _save_constants(
    program: ExportedProgram, folder: Path, graph: str, weights: Container[str]
) -> None:
    """Keep what the package wants bound and the weights file does not hold."""
    held = {**program.constants, **program.state_dict}
    wanted = open_package(folder / graph_file(graph)).get_constant_fqns()
    names = [name for name in wanted if name.removeprefix(WEIGHT_PREFIX) not in weights]
    write_tensors(folder / constants_file(graph), {name: held[name] for name in names})


def main(argv: list[str]) -> None:
    """Compile the one graph that the command line names."""
    folder, graph, settings = Path(argv[0]), argv[1], GraphSettings.from_argument(argv[2])
    if graph not in GRAPHS:
        raise ValueError(f"graph {graph!r} is none of {GRAPHS}")
    started_s = time.monotonic()

    def say(stage: str) -> None:
        print(f"{stage} {graph}: {time.monotonic() - started_s:.0f} s", flush=True)  # noqa: T201

    weights = original_tensors(map_tensors(folder / WEIGHTS_FILE), settings.layouts)
    model = build_model(read_config(folder), weights, TORCH_DTYPES[settings.dtype])
    program = export_graph(model, graph, settings)
    say("export")
    compile_graph(program, folder / graph_file(graph), settings)
    _save_constants(program, folder, graph, {*weights, *settings.layouts})
    say("compile")


if __name__ == "__main__":
    main(sys.argv[1:])
