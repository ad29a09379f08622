"""The decode kernels against their meaning in plain torch, called as compiled graphs call them."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.kernels.build import build_kernels, kernels_suffix
from rdu_batch.sessions.inductor.kernels.ops import (
    row_attention,
    row_operators,
    row_products,
    row_products_int8,
)
from rdu_batch.sessions.inductor.kernels.siblings import join_siblings
from rdu_batch.sessions.inductor.package import load_kernels
from rdu_batch.sessions.inductor.target import (
    INSTRUCTION_SETS,
    choose_instruction_set,
    machine_cpu_flags,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
_AOTI: Any = torch._C._aoti
_PYTHON: Any = ctypes.pythonapi
_PYTHON.PyCapsule_GetPointer.restype = ctypes.c_void_p
_PYTHON.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_PYTHON.PyCapsule_New.restype = ctypes.py_object
_PYTHON.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def _handles(tensors: list[Tensor]) -> list[int]:
    capsules = _AOTI.unsafe_alloc_void_ptrs_from_tensors(tensors)
    return [_PYTHON.PyCapsule_GetPointer(capsule, None) for capsule in capsules]


def _free(handles: list[int | None]) -> list[Tensor]:
    capsules = [_PYTHON.PyCapsule_New(handle, None, None) for handle in handles]
    tensors: list[Tensor] = _AOTI.alloc_tensors_by_stealing_from_void_ptrs(capsules)
    return tensors


class Kernels:
    """The library's functions over tensors."""

    def __init__(self, library: Any, suffix: str) -> None:
        self._products = getattr(library, f"aoti_torch_cpu_row_products_{suffix}")
        self._int8_products = getattr(library, f"aoti_torch_cpu_row_products_int8_{suffix}")
        self._attention = getattr(library, f"aoti_torch_cpu_row_attention_{suffix}")
        self.read = getattr(library, f"rdu_batch_read_{suffix}")

    def products(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        row, *matrices = _handles([x, *weights])
        out = ctypes.c_void_p()
        array = (ctypes.c_void_p * len(matrices))(*matrices)
        number = ctypes.c_int64(len(matrices))
        assert self._products(ctypes.c_void_p(row), array, number, ctypes.byref(out)) == 0
        return _free([row, *matrices, out.value])[-1]

    def int8_products(self, x: Tensor, weights: list[Tensor], scales: list[Tensor]) -> Tensor:
        row, *handles = _handles([x, *weights, *scales])
        out = ctypes.c_void_p()
        number = ctypes.c_int64(len(weights))
        lists = [
            (ctypes.c_void_p * len(weights))(*half)
            for half in (handles[: len(weights)], handles[len(weights) :])
        ]
        arguments = (lists[0], number, lists[1], number)
        assert self._int8_products(ctypes.c_void_p(row), *arguments, ctypes.byref(out)) == 0
        return _free([row, *handles, out.value])[-1]

    def attention(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        handles = _handles([query, keys, values])
        out = ctypes.c_void_p()
        settings = (ctypes.c_double(scale), ctypes.c_int64(window), ctypes.c_double(softcap))
        tensors = [ctypes.c_void_p(handle) for handle in handles]
        assert self._attention(*tensors, *settings, ctypes.byref(out)) == 0
        return _free([*handles, out.value])[-1]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Built for the best instruction set of this machine."""
    return _build(tmp_path_factory.mktemp("kernels") / "kernels.so", None)


def _build(path: Path, name: str | None) -> Kernels:
    instruction_set = choose_instruction_set(name)
    build_kernels(path, instruction_set)
    return Kernels(load_kernels(path), kernels_suffix(instruction_set))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@DTYPES
@pytest.mark.parametrize("num_inputs", [1, 15, 16, 31, 48, 100, 576])
@pytest.mark.parametrize("nums_outputs", [[1], [7, 3], [130, 64, 64]])
def test_products_are_what_they_mean(
    kernels: Kernels, dtype: torch.dtype, num_inputs: int, nums_outputs: list[int]
) -> None:
    """Up to the order of fp32 sums; every result is there, in the order of the weights."""
    torch.set_num_threads(2)
    x = torch.randn(1, 1, num_inputs)
    weights = [torch.randn(number, num_inputs).to(dtype) for number in nums_outputs]
    found = kernels.products(x, weights)
    exact = torch.cat([weight.double() @ x.view(-1).double() for weight in weights])
    assert found.shape == (1, 1, sum(nums_outputs))
    torch.testing.assert_close(found.view(-1).double(), exact, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found, row_products(x, weights), rtol=1e-5, atol=2e-5)


def _int8(num_inputs: int, nums_outputs: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights that use their whole range, and their scales."""
    weights = [
        torch.randint(-127, 128, (number, num_inputs), dtype=torch.int8) for number in nums_outputs
    ]
    return weights, [torch.rand(number) / 64 for number in nums_outputs]


@pytest.mark.parametrize("num_inputs", [1, 15, 16, 31, 79, 576, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("nums_outputs", [[1], [7, 3], [130, 64, 64]])
def test_int8_products_are_what_they_mean(
    kernels: Kernels, num_inputs: int, nums_outputs: list[int]
) -> None:
    """Bit for bit in one block; between blocks up to the rounding of fp32 sums.

    The exact products are as near as fifteen bits of activations allow.
    """
    torch.set_num_threads(2)
    x = torch.randn(1, 1, num_inputs) * torch.rand(num_inputs) ** 4 * 50
    weights, scales = _int8(num_inputs, nums_outputs)
    found = kernels.int8_products(x, weights, scales)
    assert found.shape == (1, 1, sum(nums_outputs))
    tolerance = {"rtol": 0.0, "atol": 0.0} if num_inputs <= 1024 else {"rtol": 1e-6, "atol": 2e-5}
    torch.testing.assert_close(found, row_products_int8(x, weights, scales), **tolerance)
    dequantised = [w.double() * s.double()[:, None] for w, s in zip(weights, scales, strict=True)]
    exact = torch.cat([weight @ x.view(-1).double() for weight in dequantised])
    # Each activation is off by half a step at most.
    half_step = x.abs().max().item() / 16384 / 2
    allowed = torch.cat([weight.abs().sum(-1) for weight in dequantised]) * half_step
    assert ((found.view(-1) - exact).abs() <= allowed * 1.01 + 1e-5).all()


def test_int8_products_of_zeros_and_of_the_largest_numbers(kernels: Kernels) -> None:
    """A block of zeros adds nothing, and a sum at the edge of its range does not wrap around.

    Numbers near the ends of fp32 stay what they are.
    """
    weights = [torch.full((2, 2048), 127, dtype=torch.int8)]
    weights[0][1] = -127
    scales = [torch.ones(2)]
    assert not kernels.int8_products(torch.zeros(1, 1, 2048), weights, scales).any()
    half = torch.zeros(1, 1, 2048)
    half[..., :1024] = 3.0
    expected = torch.tensor([[[3.0 * 1024 * 127, -3.0 * 1024 * 127]]])
    assert kernels.int8_products(half, weights, scales).equal(expected)
    assert kernels.int8_products(half.flip(-1), weights, scales).equal(expected)
    for size in (1e-40, 1e-29, 1e32):
        found = kernels.int8_products(half * size, weights, scales)
        wanted = expected * size if size > 1e-30 else torch.zeros_like(expected)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1500, 1599])
def test_int8_products_of_a_row_that_is_not_finite_are_not_finite(
    kernels: Kernels, wrong: float, place: int
) -> None:
    """So that the session finds it; whole numbers would hide it."""
    x = torch.randn(1, 1, 1600)
    x[..., place] = wrong
    weights, scales = _int8(1600, [5, 3])
    assert kernels.int8_products(x, weights, scales).isnan().all()
    assert row_products_int8(x, weights, scales).isnan().all()


#: H, J, D, N, window, softcap.
ATTENTION = [
    (9, 3, 64, 1, 0, 0.0),
    (9, 3, 64, 130, 0, 0.0),
    (12, 12, 64, 511, 0, 0.0),
    (9, 3, 64, 300, 77, 0.0),
    (8, 1, 256, 400, 0, 30.0),
    (14, 2, 64, 257, 129, 0.0),
    (5, 1, 16, 9, 4, 5.0),
]


@DTYPES
@pytest.mark.parametrize("case", ATTENTION)
def test_attention_is_what_it_means(
    kernels: Kernels, dtype: torch.dtype, case: tuple[int, int, int, int, int, float]
) -> None:
    """For groups of every size, over blocks that are whole, cut, or cut off by a window."""
    torch.set_num_threads(2)
    heads, kv_heads, size, num_positions, window, softcap = case
    query = torch.randn(1, heads, 1, size) * 3
    # What lies behind the positions attended to must not be looked at.
    cache = torch.full((2, 1, kv_heads, 512, size), float("nan")).to(dtype)
    cache[:, :, :, :num_positions] = torch.randn(2, 1, kv_heads, num_positions, size).to(dtype)
    keys, values = (part.narrow(2, 0, num_positions) for part in cache)
    settings = (size**-0.5, window, softcap)
    found = kernels.attention(query, keys, values, *settings)
    assert found.shape == (1, 1, heads, size)
    wanted = row_attention(query, keys, values, *settings)
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.all_only), torch.bfloat16]
)
def test_bits_do_not_depend_on_threads_or_instruction_set(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """More threads than cores too: whoever takes a row, its sum is the same."""
    x = torch.randn(1, 1, 640)
    weights = [torch.randn(number, 640).to(dtype) for number in (700, 33, 1)]
    whole = _int8(640, [700, 33, 1])
    query = torch.randn(1, 6, 1, 64)
    keys, values = torch.randn(2, 1, 2, 500, 64).to(dtype)
    flags = machine_cpu_flags()
    sets = [one.name for one in INSTRUCTION_SETS if flags.issuperset(one.cpu_flags)]
    found = set()
    for name in sets:
        kernels = _build(tmp_path / f"{name}.so", name)
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for _ in range(5):
                product = kernels.products(x, weights)
                int8 = kernels.int8_products(x, *whole)
                mixed = kernels.attention(query, keys, values, 0.125, 0, 0.0)
                found.add(b"".join(one.numpy().tobytes() for one in (product, int8, mixed)))
    assert len(found) == 1, f"{len(found)} results on {sets}"


def test_callers_at_the_same_time_do_not_mix(kernels: Kernels) -> None:
    """Two sessions in one process share the threads of the kernels, one call after the other."""
    torch.set_num_threads(2)
    inputs = [(torch.randn(1, 1, 256), [torch.randn(300, 256)]) for _ in range(4)]
    wanted = [kernels.products(x, weights).clone() for x, weights in inputs]

    def call(index: int) -> bool:
        torch.set_num_threads(2)
        x, weights = inputs[index]
        return all(torch.equal(kernels.products(x, weights), wanted[index]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(4)))


def test_reading_touches_every_word(kernels: Kernels) -> None:
    """The benchmark's denominator: its result depends on each word it claims to have read."""
    torch.set_num_threads(2)
    words = torch.randint(-(2**31), 2**31 - 1, (4096,), dtype=torch.int32)

    def read() -> int:
        memory = ctypes.c_void_p(words.data_ptr())
        return int(kernels.read(memory, ctypes.c_int64(words.numel() * 4)))

    first = read()
    for index in (0, 17, 2048, 4095):
        words[index] ^= 1
        assert read() == first ^ 1
        words[index] ^= 1


def test_products_of_one_row_become_one_call() -> None:
    """Three of one row and one of another: two calls, the same numbers."""
    operators = row_operators("test_siblings")

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList(torch.randn(o, 8) for o in (4, 2, 3, 5))

        def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
            a, b, c = (operators.products(x, [self.weights[k]]) for k in range(3))
            return a, operators.products(z, [self.weights[3]]), b * 2, c

    inputs = (torch.randn(1, 1, 8), torch.randn(1, 1, 8))
    program = torch.export.export(Layer(), inputs, strict=False)
    wanted = program.module()(*inputs)
    assert join_siblings(program, operators.products) == 2
    calls = [node for node in program.graph.nodes if node.target is operators.products]
    assert sorted(len(call.args[1]) for call in calls) == [1, 3]
    for found, one in zip(program.module()(*inputs), wanted, strict=True):
        torch.testing.assert_close(found, one, rtol=0, atol=0)


def test_int8_products_of_one_row_become_one_call_with_their_scales() -> None:
    """Each weight keeps its own."""
    operators = row_operators("test_siblings")
    weights, scales = _int8(8, [4, 2])

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.scales = (
                torch.nn.ParameterList(torch.nn.Parameter(one, False) for one in some)
                for some in (weights, scales)
            )

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            a, b = (
                operators.int8_products(x, [self.weights[k]], [self.scales[k]]) for k in range(2)
            )
            return b, a

    x = torch.randn(1, 1, 8)
    program = torch.export.export(Layer(), (x,), strict=False)
    wanted = program.module()(x)
    assert join_siblings(program, operators.int8_products) == 1
    found = program.module()(x)
    assert [len(one.view(-1)) for one in found] == [2, 4]
    assert all(map(torch.equal, found, wanted))


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ArtifactError, match=r"no-such-compiler: .*; install it"):
        build_kernels(tmp_path / "kernels.so", choose_instruction_set())


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    """As damaged, before anything calls into it."""
    path = tmp_path / "kernels.so"
    path.write_bytes(b"no library")
    with pytest.raises(ArtifactError, match="decode kernels do not load"):
        load_kernels(path)
