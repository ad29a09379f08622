"""The weights file: readable by others, mapped by all sessions at once, written by none."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.weights import (
    bound_tensors,
    map_tensors,
    original_tensors,
    write_tensors,
)


def tensors() -> dict[str, torch.Tensor]:
    """Types and shapes that could go wrong."""
    torch.manual_seed(1)
    return {
        "odd": torch.randn(3),
        "a.weight": torch.randn(8, 16),
        "half": torch.randn(7, 5).bfloat16(),
        "view": torch.randn(6, 4).t(),
        "scalar": torch.tensor(2.5),
        "a table": torch.arange(5),
        "a mask": torch.randn(3, 3) > 0,
        "b.weight": torch.randn(16, 32).bfloat16(),
    }


def test_any_safetensors_reader_reads_the_file(tmp_path: Path) -> None:
    """The format's own library is the oracle."""
    write_tensors(tmp_path / "w.safetensors", tensors())
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert found[name].equal(tensor)


def test_mapped_tensors_are_the_written_ones_and_aligned(tmp_path: Path) -> None:
    """Whole-line tensors start on a cache line, the others on a multiple of their numbers' size."""
    write_tensors(tmp_path / "w.safetensors", tensors())
    found = map_tensors(tmp_path / "w.safetensors")
    for name, tensor in tensors().items():
        assert found[name].equal(tensor)
        assert found[name].data_ptr() % tensor.element_size() == 0
    assert found["a.weight"].data_ptr() % 64 == 0
    assert found["b.weight"].data_ptr() % 64 == 0


def test_an_empty_file_of_tensors_is_fine(tmp_path: Path) -> None:
    """A graph may need no constants."""
    write_tensors(tmp_path / "w.safetensors", {})
    assert map_tensors(tmp_path / "w.safetensors") == {}


def test_the_mapping_is_shared_and_read_only(tmp_path: Path) -> None:
    """Asked of the kernel."""
    path = tmp_path / "w.safetensors"
    write_tensors(path, tensors())
    found = map_tensors(path)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    assert found
    assert [line.split()[1] for line in lines] == ["r--s"]


def test_a_write_to_a_mapped_tensor_ends_the_process(tmp_path: Path) -> None:
    """Rather than change another session's weights."""
    path = tmp_path / "w.safetensors"
    write_tensors(path, tensors())
    before = path.read_bytes()
    code = (
        "import sys; from pathlib import Path\n"
        "from rdu_batch.sessions.inductor.weights import map_tensors\n"
        "map_tensors(Path(sys.argv[1]))['a.weight'].zero_()"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -signal.SIGSEGV
    assert path.read_bytes() == before


def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "w.safetensors").write_bytes(b"\x10" + bytes(7) + b"not json at all!")
    with pytest.raises(ArtifactError, match=r"w\.safetensors"):
        map_tensors(tmp_path / "w.safetensors")


def test_layouts_are_undone_for_plain_models_and_kept_for_graphs() -> None:
    """A transposed tensor for one is as stored for the other; tied names only exist for graphs."""
    stored = {"x.weight": torch.randn(3, 2), "y": torch.randn(2)}
    layouts = {"x.weight": "transposed", "z": "alias:y"}
    original = original_tensors(stored, layouts)
    assert original["x.weight"].equal(stored["x.weight"].t())
    assert "z" not in original
    bound = bound_tensors(stored, layouts)
    assert bound["x.weight"] is stored["x.weight"]
    assert bound["z"] is stored["y"]


def test_an_unknown_layout_is_refused() -> None:
    """It was written by a later version."""
    with pytest.raises(ArtifactError, match="folded"):
        original_tensors({"x": torch.zeros(1)}, {"x": "folded"})
