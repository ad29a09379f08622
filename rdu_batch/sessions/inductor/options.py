"""What Inductor is told about a graph, by the device that it is for.

Promises: nothing here depends on the machine that compiles. Does not: pin the instruction set; see
``target.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdu_batch.sessions.inductor.kernels.build import kernels_suffix
from rdu_batch.sessions.inductor.kernels.ops import RowOperators, row_operators, shims_of
from rdu_batch.sessions.inductor.target import choose_instruction_set

if TYPE_CHECKING:
    from rdu_batch.sessions.inductor.geometry import GraphSettings

#: What is left to Inductor in decode are rows of some hundred numbers: threads would only wait for
#: each other, and so would buffers from the heap (measured: tests/benchmarks/LOG.md).
_DECODE_CONFIGS = {
    "cpp.threads": 1,
    "aot_inductor.allow_stack_allocation": True,
    "aot_inductor.compile_wrapper_opt_level": "O1",
}
_PREFILL_CONFIGS = {
    # Threads are chosen when a session opens, not by this machine.
    "cpp.dynamic_threads": True,
    # The wrapper only calls kernels: optimizing it costs seconds and gains nothing here.
    "aot_inductor.compile_wrapper_opt_level": "O0",
}
_CUDA_CONFIGS = {
    # Triton's kernels are loaded when they are first launched; by then what a package was unpacked
    # to is gone (``package.py``), so they lie inside the one library that is loaded at once.
    "aot_inductor.embed_kernel_binary": True,
}


def operators_for(settings: GraphSettings) -> RowOperators | None:
    """The decode kernels, which are code for processors; on a GPU Triton makes all kernels."""
    if settings.device != "cpu":
        return None
    return row_operators(kernels_suffix(choose_instruction_set(settings.instruction_set)))


def inductor_options(graph: str, settings: GraphSettings) -> dict[str, Any]:
    """Inductor's settings for one of ``GRAPHS``, besides those of its instruction set."""
    options: dict[str, Any] = {
        "aot_inductor.package_constants_in_so": False,
        # They would be made once for each torch installation, in 15 s and with over 500 MB of
        # temporary files, and compiling with them takes as long as without (LOG.md).
        "aot_inductor.precompile_headers": False,
    }
    operators = operators_for(settings)
    if operators is None:
        return options | _CUDA_CONFIGS
    return {
        **options,
        "aot_inductor.custom_ops_to_c_shims": shims_of(operators),
        # Make norms buffers of their own, not part of every row of the next product.
        "realize_opcount_threshold": 3,
        "realize_reads_threshold": 2,
        **(_DECODE_CONFIGS if graph == "decode" else _PREFILL_CONFIGS),
    }
