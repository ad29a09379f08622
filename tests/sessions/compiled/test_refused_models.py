"""Models that cannot be compiled: each is refused with its reason, and nothing is published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma4TextConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    OpenAIGPTConfig,
    Phi3Config,
    RecurrentGemmaConfig,
)

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.artifact import ARTIFACT_FILE
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.checkpoint import ModelSource
from rdu_batch.sessions.compile import compile_artifact
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.eager import EagerSession
from rdu_batch.sessions.inductor.export import export_graph
from rdu_batch.sessions.inductor.families import FAMILIES, reason_of
from rdu_batch.sessions.inductor.geometry import GraphSettings, cache_shape_of
from rdu_batch.sessions.inductor.rotary import freeze_rotary, rotary_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = GraphSettings("fp32", 32, 8, 40, "avx2", {})
COMMON = {
    "vocab_size": 448,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
SINKS = GptOssConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2)


def phi3_of_two_lengths() -> Phi3Config:
    """Trained on 16 positions, stretched to 256: from the 17th on frequencies are others."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
    }
    positions = {"max_position_embeddings": 256, "original_max_position_embeddings": 16}
    return Phi3Config(**{**COMMON, **positions}, rope_parameters=rope)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SINKS, "its attention uses s_aux"),
        (OpenAIGPTConfig(vocab_size=448, n_embd=32, n_layer=2, n_head=2), "its layer 0 keeps"),
        (
            RecurrentGemmaConfig(**COMMON, block_types=["recurrent", "attention"], lru_width=32),
            "its layer 0 keeps",
        ),
    ],
    ids=["gpt_oss", "openai-gpt", "recurrent_gemma"],
)
def test_a_model_that_no_graph_can_hold_is_refused_with_the_reason(config: Any, said: str) -> None:
    """It would compute something else, or nothing a session could run."""
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ArtifactError) as caught:
        export_graph(model, "decode", SETTINGS)
    assert reason_of(caught.value).startswith(said)


def test_other_errors_of_the_exporter_become_one_line_with_their_place() -> None:
    """What it says first, and the line of the model's code; no page of symbols."""
    config = LlamaConfig(**COMMON)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.model.layers[0].mlp.forward = lambda x: x if bool(x.sum() > 0) else -x
    with pytest.raises(Exception, match="data-dependent") as caught:
        export_graph(model, "decode", SETTINGS)
    assert len(str(caught.value).splitlines()) > 5
    reason = reason_of(caught.value)
    assert reason.count("\n") == 0
    assert "Could not guard on data-dependent expression" in reason
    assert "(modeling_llama.py, line " in reason
    assert len(reason) < 500


def test_rotary_frequencies_that_change_within_the_positions_are_refused() -> None:
    """Up to the length that the model was first trained with they are those of the config."""
    config = phi3_of_two_lengths()
    assert rotary_limit(config) == 16
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ArtifactError, match="--max_seq_length 16 or less"):
        freeze_rotary(model, 17)
    rotary = model.model.rotary_emb
    short = rotary.inv_freq.clone()
    freeze_rotary(model, 16)
    rotary(torch.zeros(1), torch.tensor([[40]]))
    assert rotary.inv_freq.equal(short)


@pytest.mark.parametrize(
    ("rope", "limit"),
    [({"rope_type": "default"}, None), ({"rope_type": "dynamic", "factor": 2.0}, 64)],
)
def test_the_limit_of_rotary_frequencies_is_read_from_the_config(
    rope: dict[str, Any], limit: int | None
) -> None:
    """None for those that never change."""
    config = LlamaConfig(**COMMON, rope_parameters={"rope_theta": 10000.0, **rope})
    assert rotary_limit(config) == limit


def saved(config: Any, folder: Path, save_tokenizer: Callable[..., None]) -> ModelSource:
    """A checkpoint folder of random weights."""
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return ModelSource(str(folder))


def test_a_length_that_changes_the_frequencies_is_refused_before_the_model_is_loaded(
    tmp_path: Path, save_tokenizer: Callable[..., None]
) -> None:
    """With the length that works; the eager kind takes any."""
    config = phi3_of_two_lengths()
    source = saved(config, tmp_path / "model", save_tokenizer)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(UsageError, match="--max_seq_length 16 or less, or --kind eager"):
        compile_artifact(
            source, str(tmp_path / "out"), CompileSettings(dtype="fp32", max_seq_length=32)
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=448, hidden_size=32, num_hidden_layers=1),
        Gemma4TextConfig(),
    ],
    ids=lambda config: config.model_type,
)
def test_a_config_that_says_no_one_shape_of_heads_is_refused(config: Any) -> None:
    """A recurrent model has none, another has several; the reason is one line."""
    with pytest.raises(ArtifactError, match="one number and size of key/value heads") as caught:
        cache_shape_of(config)
    assert len(str(caught.value)) < 250


def test_the_eager_kind_takes_what_no_graph_can_hold(
    tmp_path: Path, save_tokenizer: Callable[..., None]
) -> None:
    """Its cache is transformers' own; its tokens are those of ``generate``."""
    source = saved(SINKS, tmp_path / "model", save_tokenizer)
    out = str(tmp_path / "out")
    compile_artifact(source, out, CompileSettings("fp32", 32, kind="eager"))
    session = EagerSession.open(fetch_artifact(out), threads=1)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = [5, 6, 7, 8]
    wanted = plain(torch.tensor([ids])).logits[0, -1].argmax()
    assert session.prefill(ids).token_id == int(wanted)


@pytest.mark.slow
def test_compile_ends_with_the_reason_the_families_and_what_works(
    tmp_path: Path, save_tokenizer: Callable[..., None]
) -> None:
    """In one line; nothing is published."""
    source = saved(SINKS, tmp_path / "model", save_tokenizer)
    with pytest.raises(ArtifactError) as caught:
        compile_artifact(
            source, str(tmp_path / "out"), CompileSettings(dtype="fp32", max_seq_length=32)
        )
    said = str(caught.value)
    assert said.startswith("gpt_oss: the inductor kind cannot compile this model: its attention")
    assert "s_aux" in said
    assert ", ".join(FAMILIES) in said
    assert "--kind eager" in said
    assert len(said.splitlines()) == 1
    assert caught.value.exit_code == 8
    assert not (tmp_path / "out" / ARTIFACT_FILE).exists()
