"""Device cuda, where there is one: all that ``test_replay.py`` and ``test_device.py`` cannot see.

Never run so far: no machine of this project's tests had a GPU.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.bench.rates import MatrixProduct, MemoryReader
from rdu_batch.sessions.canary import canary_of
from rdu_batch.sessions.inductor.session import InductorSession
from rdu_batch.sessions.inductor.weights import map_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, torch sees no GPU here"),
]
PROMPTS = [
    [(31 * index * index + 17 * length) % 448 for index in range(length)]
    for length in (1, 16, 40, 62, 100, 126)
]


@pytest.fixture(scope="module", params=["llama", "mistral"])
def family(request: pytest.FixtureRequest) -> str:
    """One without and one with a window."""
    return str(request.param)


@pytest.fixture(scope="module")
def local(
    family: str,
    long_checkpoint: Callable[[str], Path],
    compiled_from: Callable[..., LocalArtifact],
) -> LocalArtifact:
    """Compiled for the GPU of this machine, in fp32, which compares it with transformers too."""
    return compiled_from(
        long_checkpoint(family), dtype="fp32", max_seq_length=150, prefill_chunk=16, device="cuda"
    )


def test_greedy_tokens_are_those_of_transformers_on_the_processor(
    family: str,
    local: LocalArtifact,
    long_checkpoint: Callable[[str], Path],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """Decoding goes over both edges of buckets, and to the last position."""
    plain = AutoModelForCausalLM.from_pretrained(long_checkpoint(family)).eval()
    session = InductorSession.open(local, threads=1)
    assert assert_same_greedy_tokens(session, plain, PROMPTS, num_tokens=24) <= 1
    session.close()


def test_logits_at_the_edges_of_buckets_are_those_of_transformers(
    family: str, local: LocalArtifact, long_checkpoint: Callable[[str], Path]
) -> None:
    """Forced tokens; logits lie in main memory and stay as they are when decode goes on."""
    ids = [(31 * index * index + 17) % 448 for index in range(150)]
    session = InductorSession.open(local, threads=1)
    steps = [session.prefill(ids[:40], want_logits=True)]
    steps += [session.decode(ids[at], at, want_logits=True) for at in range(40, 150)]
    logits = torch.cat([step.logits_1V for step in steps if step.logits_1V is not None])
    plain = AutoModelForCausalLM.from_pretrained(long_checkpoint(family)).eval()
    with torch.no_grad():
        wanted = plain(torch.tensor([ids])).logits[0, 39:]
    assert logits.device.type == "cpu"
    torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-3)
    session.close()


def test_a_row_has_the_same_bits_whatever_came_before(local: LocalArtifact) -> None:
    """Recorded by another row or by itself, over another row's keys and values or over zeros."""
    used, fresh = (InductorSession.open(local, threads=1) for _ in range(2))
    step = used.prefill(PROMPTS[-1])
    for position in range(126, 150):
        step = used.decode(step.token_id, position)
    for session in (used, fresh):
        session.reset()
    found, wanted = (session.prefill(PROMPTS[3], want_logits=True) for session in (used, fresh))
    for position in range(62, 135):
        assert found.logits_1V is not None
        assert wanted.logits_1V is not None
        assert found.logits_1V.equal(wanted.logits_1V)
        found, wanted = (
            session.decode(wanted.token_id, position, want_logits=True) for session in (used, fresh)
        )
    assert canary_of(used) == canary_of(fresh)


def test_the_lowest_id_wins_a_tie(local: LocalArtifact, tmp_path: Path) -> None:
    """With an output head of few different rows, every best logit is a tie."""
    shutil.copytree(local.folder, tmp_path / "tied")
    weights = {
        name: tensor.clone()
        for name, tensor in map_tensors(local.path("weights.safetensors")).items()
    }
    head = weights["lm_head.weight"]
    head[:] = torch.cat([head[:7]] * (len(head) // 7 + 1))[: len(head)]
    write_tensors(tmp_path / "tied" / "weights.safetensors", weights)
    session = InductorSession.open(LocalArtifact(tmp_path / "tied", local.artifact), threads=1)
    steps = [session.prefill(PROMPTS[2], want_logits=True), session.decode(3, 40, want_logits=True)]
    for step in steps:
        assert step.logits_1V is not None
        logits = step.logits_1V[0].tolist()
        assert step.token_id == logits.index(max(logits)) < 7


def test_a_gpu_of_another_architecture_is_refused(local: LocalArtifact) -> None:
    """By both names, before anything is loaded."""
    target = replace(local.artifact.target, gpu_arch="sm_10")
    other = LocalArtifact(local.folder / "nowhere", replace(local.artifact, target=target))
    with pytest.raises(ArtifactError, match=rf"sm_10.*{local.artifact.target.gpu_arch}"):
        InductorSession.open(other, threads=1)


def test_a_session_leaves_nothing_in_the_temporary_folder(
    local: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels are inside the library that is loaded, so they work after the files are gone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = InductorSession.open(local, threads=1)
    assert list(tmp_path.iterdir()) == []
    step = session.prefill([1, 2, 3])
    session.decode(step.token_id, 3)


def test_bf16_compiles_and_is_near_fp32(
    long_checkpoint: Callable[[str], Path], compiled_from: Callable[..., LocalArtifact]
) -> None:
    """``compile`` itself compares, and publishes nothing that is farther away than plain bf16."""
    local = compiled_from(long_checkpoint("llama"), dtype="bf16", max_seq_length=150, device="cuda")
    assert local.artifact.target.gpu_arch.startswith("sm_")


def test_the_rates_of_the_gpu_are_more_than_nothing(local: LocalArtifact) -> None:
    """What ``bench`` holds the session against."""
    rates = MemoryReader(None, local.path("weights.safetensors"), "cuda").before()
    assert rates.best == rates.torch_sum > 0
    assert MatrixProduct(torch.bfloat16, "cuda").flop_per_s() > 0
