"""The instruction sets that graphs are compiled for: named, fixed, and checked before loading.

Promises: the graphs' own code uses nothing beyond the named instruction set, whatever machine
compiles it. Left alone, Inductor compiles for the very processor it runs on, and the package dies
with an illegal instruction on an older one. Does not: fix the bits across processors. Matrix
products (prefill, attention) are library calls, and the library chooses its kernels by processor;
the run's canary finds a worker that computes other bits.
"""

from __future__ import annotations

import platform
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.sessions.artifact import Target

#: Flags of /proc/cpuinfo behind x86-64-v3, except those every such processor has.
_V3_FLAGS = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")


@dataclass(frozen=True)
class InstructionSet:
    """One instruction set: its name, what the compiler is told, what a machine must have."""

    name: str
    march: str
    vector_bits: int
    cpu_flags: tuple[str, ...]


#: Best first.
INSTRUCTION_SETS = (
    InstructionSet(
        "avx512",
        "x86-64-v4",
        512,
        (*_V3_FLAGS, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
    ),
    InstructionSet("avx2", "x86-64-v3", 256, _V3_FLAGS),
)


def machine_cpu_flags() -> frozenset[str]:
    """Processor flags of this machine, as Linux names them; empty where /proc/cpuinfo is not."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text().splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return frozenset(flags.split())
    return frozenset()


def choose_instruction_set(name: str | None = None) -> InstructionSet:
    """The named instruction set, or the best one this machine has.

    Raises:
        ArtifactError: an unknown name, or a machine that the inductor kind cannot compile for.
    """
    known = ", ".join(entry.name for entry in INSTRUCTION_SETS)
    if name is not None:
        for entry in INSTRUCTION_SETS:
            if entry.name == name:
                return entry
        raise ArtifactError(f"instruction set {name!r} is not known; choose one of {known}")
    flags = machine_cpu_flags()
    for entry in INSTRUCTION_SETS:
        if flags.issuperset(entry.cpu_flags):
            return entry
    raise ArtifactError(
        f"this machine ({platform.machine()}) has none of the instruction sets {known}; "
        "the inductor kind compiles for x86_64 Linux today; compile there, or use kind eager"
    )


def check_target(target: Target, *, url: str, cpu_flags: frozenset[str] | None = None) -> None:
    """Refuse an artifact whose graphs this machine or this torch cannot run.

    Args:
        target: what the artifact was compiled for.
        url: the artifact's, for messages.
        cpu_flags: flags to judge by; this machine's if None.

    Raises:
        ArtifactError: names what is missing. Raised before any native code is loaded.
    """
    import torch

    if target.device != "cpu":
        raise ArtifactError(
            f"{url}: compiled for device {target.device}, the inductor kind runs on cpu; compile "
            "the model again for cpu"
        )
    wanted, found = target.torch_version, torch.__version__
    if wanted.partition("+")[0] != found.partition("+")[0]:
        raise ArtifactError(
            f"{url}: compiled with torch {wanted}, this node has {found}; install that torch here, "
            "or compile the model again with this one"
        )
    if target.machine != platform.machine():
        raise ArtifactError(
            f"{url}: compiled for {target.machine}, this node is {platform.machine()}; "
            "compile the model again on a machine of this kind"
        )
    flags = machine_cpu_flags() if cpu_flags is None else cpu_flags
    missing = sorted(set(target.cpu_flags) - flags)
    if missing:
        raise ArtifactError(
            f"{url}: compiled for instruction set {target.instruction_set}, this node's processor "
            f"lacks {', '.join(missing)}; compile the model for a smaller one "
            "(rdu-batch compile ... --isa avx2), or keep workers on nodes that have it"
        )


@contextmanager
def pinned_inductor(instruction_set: InstructionSet) -> Iterator[dict[str, Any]]:
    """Inductor settings that fix the machine code to ``instruction_set``.

    Yields the settings to compile with. Inductor asks the processor which vector extensions it has
    and takes the best, which would leak this machine into the package; so for the time of the
    compilation it is told there is exactly one.
    """
    from torch._inductor import cpu_vec_isa as vector_isas

    cpu_vec_isa: Any = vector_isas
    plain: type[Any] = (
        cpu_vec_isa.VecAVX512 if instruction_set.vector_bits == 512 else cpu_vec_isa.VecAVX2
    )

    class Pinned(plain):  # type: ignore[misc]
        """The vector extension, without asking the processor what else it could do."""

        __hash__ = plain.__hash__

        def __bool__(self) -> bool:
            return True

    vector_isa = Pinned()
    detected = cpu_vec_isa.valid_vec_isa_list
    cpu_vec_isa.valid_vec_isa_list = lambda: [vector_isa]
    try:
        yield {"cpp.march": instruction_set.march, "cpp.simdlen": instruction_set.vector_bits}
    finally:
        cpu_vec_isa.valid_vec_isa_list = detected
