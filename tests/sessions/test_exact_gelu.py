"""``compile --gelu erf``: every kind computes the GELU that the RDU's patch does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, GPT2LMHeadModel

from rdu_batch.errors import UsageError
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.checkpoint import ModelSource
from rdu_batch.sessions.compile import compile_artifact
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.exact_gelu import use_exact_gelu
from rdu_batch.sessions.registry import open_session

ERF = CompileSettings(kind="eager", dtype="fp32", max_seq_length=48, gelu="erf")


def test_the_artifact_s_own_config_has_the_exact_gelu(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """So it computes what a model built with it does, and not what the checkpoint's config says."""
    folder, url = tiny_checkpoint("gpt2"), str(tmp_path / "a")
    compile_artifact(ModelSource(str(folder)), url, ERF)
    local = fetch_artifact(url)
    assert json.loads(local.path("config.json").read_text())["activation_function"] == "gelu"
    ids = [9, 200, 31, 77]
    found_1V = open_session("eager", local, threads=1).prefill(ids, want_logits=True).logits_1V
    exact, plain = (
        GPT2LMHeadModel.from_pretrained(folder, activation_function=name).eval()
        for name in ("gelu", "gelu_new")
    )
    with torch.no_grad():
        torch.testing.assert_close(found_1V, exact(torch.tensor([ids])).logits[:, -1])
        assert not torch.allclose(found_1V, plain(torch.tensor([ids])).logits[:, -1], atol=1e-6)
    with pytest.raises(Exception, match="holds another artifact"):
        compile_artifact(
            ModelSource(str(folder)),
            url,
            CompileSettings(kind="eager", dtype="fp32", max_seq_length=48),
        )


def test_a_model_without_a_gelu_by_tanh_is_refused(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """A Llama has none; the message says what it has. Nothing is written."""
    with pytest.raises(UsageError, match=r"llama model has no GELU by tanh.*hidden_act: silu"):
        compile_artifact(ModelSource(str(tiny_checkpoint("llama"))), str(tmp_path / "a"), ERF)
    assert not (tmp_path / "a").exists()


def test_every_place_where_a_config_names_it_is_changed() -> None:
    """Gemma names its activation by another key, and twice."""
    config = Gemma2Config(hidden_activation="gelu_pytorch_tanh")
    use_exact_gelu(config)
    assert config.hidden_activation == "gelu"
    with pytest.raises(UsageError):
        use_exact_gelu(config)


def test_only_two_ways_are_known() -> None:
    """Exit 2 for another word."""
    with pytest.raises(UsageError, match="gelu 'tanh': wanted config or erf"):
        CompileSettings(dtype="fp32", max_seq_length=48, gelu="tanh")
