"""What graphs are compiled for: a named instruction set and a device, checked before loading.

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


def machine_gpu_arch() -> str:
    """Architecture (``sm_90``) of the first GPU that this process sees; empty where there is none.

    A worker sees the GPUs that Ray gave it (``workers.gpus``), so this is the one of its session.
    """
    import torch

    if torch.version.cuda is None or not torch.cuda.is_available():
        return ""
    return "sm_{}{}".format(*torch.cuda.get_device_capability(0))


def choose_gpu_arch(device: str, gpu_arch: str | None = None) -> str:
    """Architecture of the GPU to compile for; empty for device cpu.

    Args:
        device: ``cpu`` or ``cuda``.
        gpu_arch: of this machine, empty without a GPU; looked for if None.

    Raises:
        ArtifactError: device cuda where there is no GPU. Ends the command (exit 8).
    """
    if device == "cpu":
        return ""
    found = machine_gpu_arch() if gpu_arch is None else gpu_arch
    if not found:
        raise ArtifactError(
            f"--device {device}: torch sees no GPU here, and graphs are compiled on the machine "
            "they are for; compile on a node with a GPU and a torch built for it, or use "
            "--device cpu"
        )
    return found


def check_target(
    target: Target,
    *,
    url: str,
    cpu_flags: frozenset[str] | None = None,
    gpu_arch: str | None = None,
) -> None:
    """Refuse an artifact whose graphs this machine or this torch cannot run.

    Args:
        target: what the artifact was compiled for.
        url: the artifact's, for messages.
        cpu_flags: flags to judge by; this machine's if None.
        gpu_arch: architecture of the GPU to judge by, empty without one; this machine's if None.

    Raises:
        ArtifactError: names what is missing. Raised before any native code is loaded.
    """
    import torch

    _check_device(target, url, gpu_arch)
    wanted, found = target.torch_version, torch.__version__
    # What follows the "+" names the CUDA release that torch, and so the package, was built with.
    parts = 3 if target.device == "cuda" else 1
    if wanted.partition("+")[:parts] != found.partition("+")[:parts]:
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


def _check_device(target: Target, url: str, gpu_arch: str | None) -> None:
    if target.device == "cpu":
        return
    if target.device != "cuda":
        raise ArtifactError(
            f"{url}: compiled for device {target.device}, the inductor kind runs on cpu and cuda; "
            "compile the model again (rdu-batch compile ... --device cpu)"
        )
    found = machine_gpu_arch() if gpu_arch is None else gpu_arch
    if not found:
        raise ArtifactError(
            f"{url}: compiled for device cuda ({target.gpu_arch}), torch sees no GPU here; compile "
            "the model for what is here (rdu-batch compile ... --device cpu), or give each worker "
            "a GPU (workers.gpus: 1)"
        )
    if found != target.gpu_arch:
        raise ArtifactError(
            f"{url}: compiled for device cuda of architecture {target.gpu_arch or 'unknown'}, this "
            f"node's GPU is {found}; compile the model on a node like this one (rdu-batch compile "
            "... --device cuda), or keep workers on nodes with the other"
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
