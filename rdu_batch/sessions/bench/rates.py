"""What the machine can do: how fast it reads memory, and how fast it multiplies matrices.

Why the greatest of three ways to read counts: each of them is a rate that the memory did reach, so
the true limit is at least the greatest. A fraction against a slow way to read (``torch.sum`` alone
may be slower than the artifact's own loop) would flatter the session.

Memory in pages of 2 MiB reads faster than in the usual ones of 4 KiB (1.2 to 1.5 times on the
machine of ``tests/benchmarks/LOG.md``: a virtual machine looks every page up twice). Weights that
sessions share lie in the page cache, in small pages on most kernels, and so does the memory that
counts here, torch's own tensors' too; the rate over large pages stands beside it, because that is
what the memory itself could do.

On a GPU ``torch.sum`` is the only way to read, and what is timed ends when the device is at rest.
That part has never run on a GPU.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.sessions.bench.rounds import SETTLE_S, ReadRates
from rdu_batch.sessions.inductor.package import load_kernels
from rdu_batch.sessions.inductor.weights import map_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Much more than any cache holds, read in some milliseconds.
READ_BYTES = 256 << 20
#: The same for a GPU; so often in a row that starting and ending do not count.
GPU_READ_BYTES = 1 << 30
_GPU_REPEATS = 8
#: A weights file below this may lie in a cache, and says nothing about memory.
LEAST_MAPPED_BYTES = 64 << 20
_MATRIX_SIZE, _GPU_MATRIX_SIZE = 2048, 8192


def read_function_name(library: bytes) -> str | None:
    """Name of the reading loop in a library of decode kernels; None if it has none.

    Its end is a digest of the source it was compiled from, which need not be today's; so the name
    is looked for among the library's own names.
    """
    found = re.search(rb"\0(rdu_batch_read_[0-9a-f]+)\0", library)
    return found[1].decode() if found else None


def _read_function(kernels: Path) -> Callable[[int, int], int] | None:
    name = read_function_name(kernels.read_bytes())
    if name is None:
        return None
    function: Any = getattr(load_kernels(kernels), name)
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_uint32
    return function  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Memory:
    """Some memory to read, and what keeps it there."""

    address: int
    num_bytes: int
    owner: object


class MemoryReader:
    """Reads memory with torch's number of threads, or on a GPU, and says how fast."""

    def __init__(self, kernels: Path | None, weights: Path, device: str = "cpu") -> None:
        """Take the memory to read: twice ``READ_BYTES`` and the mapped weights file, on cpu.

        Args:
            kernels: the artifact's decode kernels, for their reading loop; None if it has none.
            weights: the artifact's weights file.
            device: whose memory: ``cpu`` or ``cuda``.
        """
        self._device = device
        self._own = None if kernels is None else _read_function(kernels)
        self._ordinary: Memory | None = None
        self._large: Memory | None = None
        self._mapped: Memory | None = None
        if device == "cpu":
            self._tensor = _anonymous(large_pages=False)
            self._ordinary = _memory_of([self._tensor])
            self._large = _memory_of([_anonymous(large_pages=True)])
            mapped = _memory_of(list(map_tensors(weights).values()))
            self._mapped = mapped if mapped.num_bytes >= LEAST_MAPPED_BYTES else None
        else:
            self._tensor = torch.ones(GPU_READ_BYTES // 4, device=device)
        self.before()

    def before(self) -> ReadRates:
        """Read now, and leave the threads at rest: for what is measured next."""
        torch_sum = self._torch_sum()
        time.sleep(SETTLE_S)
        return self._rates(torch_sum)

    def after(self) -> ReadRates:
        """Read now, the kernels' way first: for what was measured last."""
        own = self._rates(0.0)
        return replace(own, torch_sum=self._torch_sum())

    def _rates(self, torch_sum: float) -> ReadRates:
        return ReadRates(
            torch_sum=torch_sum,
            own=self._own_rate(self._ordinary),
            mapped=self._own_rate(self._mapped),
            large_pages=self._own_rate(self._large),
        )

    def _own_rate(self, memory: Memory | None) -> float | None:
        if self._own is None or memory is None:
            return None
        begin_s = time.perf_counter()
        self._own(memory.address, memory.num_bytes)
        return memory.num_bytes / (time.perf_counter() - begin_s)

    def _torch_sum(self) -> float:
        repeats = 1 if self._device == "cpu" else _GPU_REPEATS
        _wait_for(self._device)
        begin_s = time.perf_counter()
        for _ in range(repeats):
            self._tensor.sum()
        _wait_for(self._device)
        return repeats * self._tensor.nbytes / (time.perf_counter() - begin_s)


def _wait_for(device: str) -> None:
    """Until a GPU has done what it was told; on cpu calls are done when they return."""
    if device == "cuda":
        torch.cuda.synchronize()


def _anonymous(*, large_pages: bool) -> torch.Tensor:
    """Memory in pages of the usual size, or in large ones where the kernel gives them."""
    anonymous = mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice = getattr(mmap, "MADV_HUGEPAGE" if large_pages else "MADV_NOHUGEPAGE", None)
    if advice is not None:
        with suppress(OSError):  # A kernel without large pages takes no advice about them.
            anonymous.madvise(advice)
    # Written to, because pages that never were are all one and the same.
    return torch.frombuffer(anonymous, dtype=torch.float32).fill_(1.0)


def _memory_of(tensors: list[torch.Tensor]) -> Memory:
    """The memory of tensors that lie one after the other, up to ``READ_BYTES`` of it."""
    begin = min(tensor.data_ptr() for tensor in tensors)
    end = max(tensor.data_ptr() + tensor.nbytes for tensor in tensors)
    return Memory(begin, min(READ_BYTES, end - begin), tensors)


class MatrixProduct:
    """Multiplies two square matrices of one type, with torch's number of threads or on a GPU."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        self._device = device
        # A GPU is done with the small ones sooner than it was told to begin.
        self._size = _MATRIX_SIZE if device == "cpu" else _GPU_MATRIX_SIZE
        size = (self._size, self._size)
        generator = torch.Generator().manual_seed(1)
        self._a, self._b = (
            torch.randn(size, generator=generator).to(device, dtype) for _ in range(2)
        )
        self._out = torch.empty(size, dtype=dtype, device=device)
        self.flop_per_s()

    def flop_per_s(self) -> float:
        """Floating-point operations a second of one product."""
        _wait_for(self._device)
        begin_s = time.perf_counter()
        torch.mm(self._a, self._b, out=self._out)
        _wait_for(self._device)
        return 2 * self._size**3 / (time.perf_counter() - begin_s)
