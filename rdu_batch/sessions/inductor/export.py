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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.cache_argument import cache_argument
from rdu_batch.sessions.inductor.cache import in_place_cache
from rdu_batch.sessions.inductor.families import cannot_compile, reason_of
from rdu_batch.sessions.inductor.geometry import (
    GRAPHS,
    KERNELS_FILE,
    REFUSED,
    TORCH_DTYPES,
    WEIGHT_PREFIX,
    WEIGHTS_FILE,
    GraphSettings,
    cache_shape_of,
    constants_file,
    graph_file,
)
from rdu_batch.sessions.inductor.kernels.siblings import join_siblings
from rdu_batch.sessions.inductor.options import inductor_options, operators_for
from rdu_batch.sessions.inductor.package import load_kernels, open_package
from rdu_batch.sessions.inductor.patches import Form, patch_model
from rdu_batch.sessions.inductor.replay import check_buckets
from rdu_batch.sessions.inductor.rotary import freeze_rotary
from rdu_batch.sessions.inductor.target import choose_instruction_set, pinned_inductor
from rdu_batch.sessions.inductor.weights import (
    bound_tensors,
    int8_weights,
    map_tensors,
    original_tensors,
    write_tensors,
)
from rdu_batch.sessions.plain_model import build_model, read_config

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from torch import Tensor
    from torch.export import ExportedProgram

    from rdu_batch.sessions.inductor.int8 import Int8Weight

#: Operators that exist wherever a session runs: torch's own in C++, and this project's.
_OPERATOR_NAMESPACES = ("aten", "prims", "higher_order", "rdu_batch")


class Graph(nn.Module):
    """One call of the model over C tokens: write their keys and values, score one position."""

    def __init__(self, model: Any, last_position: int) -> None:
        super().__init__()
        self.model: Any = model
        self.last_position = last_position
        self.cache_argument = cache_argument(model)

    def forward(
        self,
        input_ids_1C: Tensor,
        positions_C: Tensor,
        mask_11CN: Tensor,
        scored_1: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The greedy token [1] (lowest id of a tie) and fp32 logits [1, V] at ``scored_1``.

        Of the mask only N, its size, is read: each layer's own mask, causal or with a window, is
        made inside from the positions, by the rule of the model's code (``attention.py``).

        Raises:
            ArtifactError: the model remembers tokens elsewhere than in ``keys`` and ``values``.
        """
        cache = in_place_cache(keys, values, positions_C, mask_11CN.shape[-1])
        embedded = self.model.get_input_embeddings()(input_ids_1C).float()
        # Padding at the end of the last chunk may lie behind the model's last position.
        position_ids = positions_C.clamp(max=self.last_position)[None]
        output = self.model(
            inputs_embeds=embedded,
            position_ids=position_ids,
            attention_mask=None,
            use_cache=True,
            logits_to_keep=scored_1,
            **{self.cache_argument: cache},
        )
        cache.check_used()
        logits_1V = output.logits[:, -1].float()
        return logits_1V.argmax(-1), logits_1V


def export_graph(
    model: Any,
    graph: str,
    settings: GraphSettings,
    int8: Mapping[str, Int8Weight] = MappingProxyType({}),
) -> ExportedProgram:
    """Trace one graph of a plain transformers model; patches the model in place.

    Args:
        model: the plain model.
        graph: one of ``GRAPHS``.
        settings: how to trace.
        int8: weights by name that stand for the model's own.

    Raises:
        ArtifactError: the model does what no graph can; why is all that it says.
    """
    cache = cache_shape_of(model.config)
    freeze_rotary(model, settings.max_seq_length)
    operators = operators_for(settings)
    form: Form = "row" if graph == "decode" else "chunk"
    device = settings.device
    patched = patch_model(model.to(device), form, operators, settings.without, int8)
    dtype = TORCH_DTYPES[settings.dtype]
    keys = cache.zeros(settings.cache_length, dtype, device)
    values = cache.zeros(settings.cache_length, dtype, device)
    # Every row attends to two positions at least in decode, and never to the last of the cache:
    # export adds guards where a dimension may be 1 or may equal another one.
    num_positions = torch.export.Dim("num_positions", min=2, max=settings.cache_length - 1)
    num_tokens: Any = None
    example_tokens = 1
    if graph == "prefill":
        example_tokens = min(6, settings.prefill_chunk)
        if settings.prefill_chunk > 2:
            num_tokens = torch.export.Dim("num_tokens", min=2, max=settings.prefill_chunk)
    inputs = (
        torch.zeros(1, example_tokens, dtype=torch.long, device=device),
        torch.arange(example_tokens, device=device),
        torch.zeros(
            (1, 1, example_tokens, min(example_tokens + 3, settings.cache_length - 1)),
            device=device,
        ),
        torch.tensor([example_tokens - 1], device=device),
        keys,
        values,
    )
    whole = [None] * cache.num_layers
    with torch.no_grad():
        program = torch.export.export(
            Graph(patched, settings.max_seq_length - 1),
            inputs,
            dynamic_shapes=(
                {1: num_tokens},
                {0: num_tokens},
                {2: num_tokens, 3: num_positions},
                None,
                whole,
                whole,
            ),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    _check_operators(program)
    _check_devices(program, device)
    if operators is not None and "joined_rows" not in settings.without:
        join_siblings(program, operators.products)
        join_siblings(program, operators.int8_products)
    return program


def _check_operators(program: ExportedProgram) -> None:
    """Refuse a graph that a session could not run: one that calls back into Python code.

    Raises:
        ArtifactError: names the operator.
    """
    for node in program.graph.nodes:
        name = str(getattr(node.target, "namespace", "aten"))
        if node.op == "call_function" and name not in _OPERATOR_NAMESPACES:
            raise ArtifactError(f"it calls {node.target}, which only exists inside {name}")


def _check_devices(program: ExportedProgram, device: str) -> None:
    """Refuse a graph that computes elsewhere too: a CUDA graph would replay its first answer.

    Raises:
        ArtifactError: names the operator.
    """
    for node in program.graph.nodes:
        for value in tree_leaves(node.meta.get("val")):
            if isinstance(value, torch.Tensor) and value.device.type != device:
                raise ArtifactError(
                    f"{node.target} has its numbers on {value.device.type}, in a graph for {device}"
                )


def compile_graph(
    program: ExportedProgram, package: Path, graph: str, settings: GraphSettings
) -> None:
    """Compile an exported graph to a package without weights."""
    instruction_set = choose_instruction_set(settings.instruction_set)
    with pinned_inductor(instruction_set) as target_settings:
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - the documented entry point
            program,
            package_path=str(package),
            inductor_configs={**target_settings, **inductor_options(graph, settings)},
        )


def _save_constants(
    program: ExportedProgram, folder: Path, graph: str, device: str, weights: Container[str]
) -> None:
    """Keep what the package wants bound and the weights file does not hold."""
    held = {**program.constants, **program.state_dict}
    wanted = open_package(folder / graph_file(graph), device).get_constant_fqns()
    names = [name for name in wanted if name.removeprefix(WEIGHT_PREFIX) not in weights]
    write_tensors(folder / constants_file(graph), {name: held[name].cpu() for name in names})


def main(argv: list[str]) -> None:
    """Compile the one graph that the command line names.

    A model that cannot be compiled ends it with the exit code of ``ArtifactError``, and with why,
    behind ``REFUSED``, as the last of what it writes to stderr.
    """
    try:
        _compile_one(argv)
    except ArtifactError as error:
        print(f"{REFUSED}{error}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(ArtifactError.exit_code) from error


def _compile_one(argv: list[str]) -> None:
    folder, graph, settings = Path(argv[0]), argv[1], GraphSettings.from_argument(argv[2])
    if graph not in GRAPHS:
        raise ValueError(f"graph {graph!r} is none of {GRAPHS}")
    started_s = time.monotonic()

    def say(stage: str) -> None:
        print(f"{stage} {graph}: {time.monotonic() - started_s:.0f} s", flush=True)  # noqa: T201

    tensors, dtype = map_tensors(folder / WEIGHTS_FILE), TORCH_DTYPES[settings.dtype]
    weights = original_tensors(tensors, settings.layouts, dtype)
    model = build_model(read_config(folder), weights, dtype)
    int8 = int8_weights(tensors, settings.layouts)
    try:
        program = export_graph(model, graph, settings, int8)
        if graph == "decode" and settings.device != "cpu":
            check_buckets(program, settings.cache_length - 1)
    except Exception as error:  # tracing foreign code raises all sorts
        raise cannot_compile(model.config.model_type, reason_of(error)) from error
    say("export")
    if settings.device == "cpu":
        load_kernels(folder / KERNELS_FILE)
    compile_graph(program, folder / graph_file(graph), graph, settings)
    bound = bound_tensors(tensors, settings.layouts)
    _save_constants(program, folder, graph, settings.device, bound)
    say("compile")


if __name__ == "__main__":
    main(sys.argv[1:])
