"""What opening makes of a runtime's words: an artifact that does not fit, or a device that fails.

The engines here say what they are told to; they check no contract, unlike the stand-in.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.weights import write_tensors
from rdu_batch.sessions.rdu_engine.graphs import EngineGraphs
from rdu_batch.sessions.samba.pef import PefNote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

NOTE = PefNote("a.pef", "cached", True, 1, 64, (), "1", (8, 64))
SCHEDULES = {"model_nocache_8_fwd", "model_nocache_64_fwd", "model_cache_64_fwd"}
SPEC = {"head__weight": {"shape": [512, 8], "dtype": "TENSOR_DTYPE_FP32"}}


@pytest.fixture
def local(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact], monkeypatch: pytest.MonkeyPatch
) -> LocalArtifact:
    """An artifact of one weight."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_tensors(folder / "weights.safetensors", {"head.weight": torch.ones(512, 8)})
    (folder / "a.pef").write_bytes(b"PEF")
    return artifact_of(folder, kind="samba")


def engine(run: Callable[..., Any]) -> Any:
    """A runtime whose PEF has all that is wanted, and runs so."""
    pef = SimpleNamespace(
        get_schedules=lambda: SCHEDULES, load_checkpoint=lambda _folder: "checkpoint", run=run
    )
    return SimpleNamespace(PEF=lambda _path: pef, get_checkpoint_spec=lambda _path: SPEC)


def logits(shape: tuple[int, ...] = (1, 1, 512), dtype: torch.dtype = torch.float32) -> Any:
    """A result that has logits alone."""
    return SimpleNamespace(get_tensor={"logits": torch.zeros(shape, dtype=dtype)}.__getitem__)


def test_each_graph_is_run_once_with_its_symbols(local: LocalArtifact) -> None:
    """The longest prompt that leaves room, then one token more; all int32, outputs reused."""
    calls = []

    def run(checkpoint: Any, inputs: Any, schedule: str, *, reuse_outputs: bool) -> Any:
        assert (checkpoint, reuse_outputs) == ("checkpoint", True)
        assert {one.dtype for one in inputs.values()} == {torch.int32}
        calls.append((schedule, {name: tuple(one.shape) for name, one in inputs.items()}))
        return logits()

    EngineGraphs.open(engine(run), local, NOTE)
    ids = "input_ids_consume_cache"
    assert calls == [
        (
            f"model_nocache_{length}_fwd",
            {f"{ids}_False_static_seq_length_{length}": (1, length), "last_token_index": (1, 1)},
        )
        for length in (8, 64)
    ] + [
        (
            "model_cache_64_fwd",
            {
                f"{ids}_True_max_seq_length_64": (1, 1),
                "attention_mask": (1, 64),
                "last_token_index": (1, 1),
            },
        )
    ]


@pytest.mark.parametrize(
    "said",
    [
        "PyTorch tensor dtype does not match CoETensor dtype",
        "Source buffer size 32 does not match expected size 64",
        'PEF "a.pef" does not have a tensor "last_token_index"',
        'Unknown schedule "model_cache_64_fwd"!',
        'Checkpoint at "x" was missing weight symbols: head__weight',
        'Schedule "model_cache_64_fwd" has the following uninitialized inputs: past_key_0',
    ],
)
def test_words_that_blame_the_pef_are_an_artifact_s_error(local: LocalArtifact, said: str) -> None:
    """Messages that can be read in the runtime's public wheel."""

    def run(*_: Any, **__: Any) -> Any:
        raise RuntimeError(said)

    with pytest.raises(ArtifactError, match=r"a\.pef is not what its note says \(RuntimeError: "):
        EngineGraphs.open(engine(run), local, NOTE)


def test_other_words_pass(local: LocalArtifact) -> None:
    """They are the device's; see ``device_faults.py``."""

    def run(*_: Any, **__: Any) -> Any:
        raise RuntimeError("HW error: 3 - link down")

    with pytest.raises(RuntimeError, match="link down"):
        EngineGraphs.open(engine(run), local, NOTE)


@pytest.mark.parametrize("wrong", [((1, 512), torch.float32), ((1, 1, 512), torch.bfloat16)])
def test_logits_of_another_shape_or_type_are_refused(local: LocalArtifact, wrong: Any) -> None:
    """Before a row is run."""
    with pytest.raises(ArtifactError, match=r"gives logits as .*wanted torch\.float32 \(1, 1, 512"):
        EngineGraphs.open(engine(lambda *_, **__: logits(*wrong)), local, NOTE)
