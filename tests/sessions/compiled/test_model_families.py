"""The conformance table: each family's greedy tokens are those of transformers' own ``generate``.

One tiny random model a row, with what makes its family special switched on: a window smaller than
the context, softcaps, biases, tied and untied heads. The oracle is the model unpatched.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.door import SessionInfo
from rdu_batch.sessions.inductor.export import Graph, _check_devices, export_graph
from rdu_batch.sessions.inductor.families import FAMILIES
from rdu_batch.sessions.inductor.geometry import (
    TORCH_DTYPES,
    GraphSettings,
    cache_length_for,
    cache_shape_of,
)
from rdu_batch.sessions.inductor.kernels.build import kernels_suffix
from rdu_batch.sessions.inductor.kernels.ops import row_operators
from rdu_batch.sessions.inductor.patches import patch_model
from rdu_batch.sessions.inductor.replay import ReplayedGraph, bucket_of, check_buckets
from rdu_batch.sessions.inductor.rotary import freeze_rotary
from rdu_batch.sessions.inductor.session import InductorSession
from rdu_batch.sessions.inductor.target import choose_instruction_set

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

VOCAB_SIZE, MAX_SEQ_LENGTH, CHUNK, WINDOW = 300, 48, 8, 7
SETTINGS = GraphSettings(
    dtype="fp32",
    max_seq_length=MAX_SEQ_LENGTH,
    prefill_chunk=CHUNK,
    cache_length=cache_length_for(MAX_SEQ_LENGTH, CHUNK),
    instruction_set="avx2",
    layouts={},
)
#: As graphs for a GPU are, which have no kernels of this project.
SETTINGS_WITHOUT_KERNELS = replace(SETTINGS, without=("row_kernel", "joined_rows", "row_attention"))
#: Families that cannot attend to more positions than a token sees, so not on a GPU.
NO_BUCKETS = {"gpt_neo"}
#: One chunk with a rest, whole chunks, several with a rest; decoding goes past the window in each.
PROMPT_LENGTHS = (1, 5, 16, 27)
NUM_TOKENS = 12
#: Where the longest prompt is cut, to feed the rest of it token by token.
FORCED_FROM = 2 * CHUNK + 3

#: What most families take; 4 query heads over 2 key/value heads, none as large as hidden / heads.
COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 32,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
ALTERNATING = ["sliding_attention", "full_attention"]
#: Key/value heads are the query heads, of hidden / heads.
PLAIN_HEADS = {"num_key_value_heads": None, "head_dim": None}
#: As COMMON for configs with names of their own.
GPT2_NAMES = {
    "vocab_size": VOCAB_SIZE,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
#: Partial (half of 16) and of two sets, of which the short one holds up to position 64.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
}
#: Frequencies, and how they are stretched, differ between layers with and without a window.
GEMMA3 = {
    "sliding_window": WINDOW,
    "layer_types": ALTERNATING,
    "query_pre_attn_scalar": 24,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
    },
}
#: What reads images; only text is fed here.
TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
IMAGE_TOKENS = {
    "mm_tokens_per_image": 4,
    "image_token_index": 297,
    "boi_token_index": 298,
    "eoi_token_index": 299,
}


@dataclass(frozen=True)
class Row:
    """One tiny model: its family, and what its config says besides COMMON (None: left out)."""

    family: str
    changes: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    common: dict[str, Any] = field(default_factory=lambda: COMMON)

    def config(self) -> Any:
        """As transformers makes it."""
        values = {**self.common, **self.changes}
        given = {name: value for name, value in values.items() if value is not None}
        return CONFIG_MAPPING[self.family](**given)

    def model(self, dtype: torch.dtype = torch.float32) -> Any:
        """With random weights, large enough that every part of the model matters."""
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_config(self.config())
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.data += 0.2 * torch.randn_like(weight)
            else:
                weight.data.normal_(std=1.5 * weight.shape[-1] ** -0.5)
        return model.to(dtype).eval().requires_grad_(False)

    def __str__(self) -> str:
        return f"{self.family} {self.variant}".strip().replace(" ", "_")


ROWS = [
    Row("cohere2", {"sliding_window": WINDOW, "layer_types": ALTERNATING, "logit_scale": 0.5}),
    Row("exaone4", {"sliding_window": WINDOW, "layer_types": ALTERNATING}),
    Row("gemma", {"hidden_act": "gelu_pytorch_tanh"}),
    Row(
        "gemma2",
        {
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 24,
        },
    ),
    Row("gemma3_text", GEMMA3),
    Row(
        "gemma3",
        {"text_config": {**COMMON, **GEMMA3}, "vision_config": TINY_VISION, **IMAGE_TOKENS},
        common={},
    ),
    Row("glm4", {"attention_bias": True}),
    Row("gpt2", common=GPT2_NAMES),
    Row("gpt2", {"tie_word_embeddings": False}, variant="untied", common=GPT2_NAMES),
    Row("gpt_bigcode", common=GPT2_NAMES),
    Row(
        "gpt_neo",
        {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "window_size": WINDOW,
            "attention_types": [[["global", "local"], 1]],
        },
        common={},
    ),
    Row("gpt_neox", {"rotary_pct": 0.5, **PLAIN_HEADS}),
    Row("gpt_neox", {"use_parallel_residual": False, **PLAIN_HEADS}, variant="one after the other"),
    Row("gptj", {"rotary_dim": 8}, common=GPT2_NAMES),
    Row(
        "granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.4,
            "logits_scaling": 2.0,
        },
    ),
    Row("llama"),
    Row(
        "llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": LLAMA3_ROPE,
        },
        variant="biases, llama3 rope, tied",
    ),
    Row(
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
        variant="dynamic rope",
    ),
    Row("ministral3", {"sliding_window": WINDOW}),
    Row("mistral", {"sliding_window": WINDOW}),
    Row("olmo2"),
    Row("olmo3", {"sliding_window": WINDOW, "layer_types": ALTERNATING}),
    Row("opt", {"ffn_dim": 80, **PLAIN_HEADS, "word_embed_proj_dim": 48}),
    Row(
        "opt",
        {"ffn_dim": 80, **PLAIN_HEADS, "do_layer_norm_before": False},
        variant="norm behind",
    ),
    Row("phi", {"partial_rotary_factor": 0.5, "qk_layernorm": True, "head_dim": None}),
    Row(
        "phi3",
        {
            "sliding_window": WINDOW,
            "head_dim": None,
            "rope_parameters": LONGROPE,
            "max_position_embeddings": 256,
            "original_max_position_embeddings": 64,
        },
    ),
    Row("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    Row("qwen2", {"tie_word_embeddings": True}, variant="tied, no window"),
    Row("qwen3", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    Row(
        "smollm3",
        {
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "no_rope_layers": [1, 0],
        },
    ),
    Row("stablelm", {"use_qkv_bias": True, "head_dim": None, "partial_rotary_factor": 0.25}),
    Row("starcoder2", {"sliding_window": WINDOW}),
]
#: One of each family, and what lies in the weights file in another way.
COMPILED = [row for row in ROWS if row.variant in ("", "untied")]
#: One of each way to do things: positions, norms, heads, windows; the others are like one of these.
IN_SHORT = {
    *("cohere2", "gemma3_text", "gpt2", "gpt_bigcode", "gptj", "llama", "opt", "qwen3"),
}
by_row = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if row.family in IN_SHORT else [pytest.mark.all_only])
        for row in ROWS
    ],
    ids=str,
)


def prompts() -> list[list[int]]:
    """Each length once."""
    return [
        [(31 * index * index + 17 * length + index) % VOCAB_SIZE for index in range(length)]
        for length in PROMPT_LENGTHS
    ]


class Traced:
    """An exported graph, or one that is not even that, with the face of a compiled one."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.num_runs = graph, 0

    def run(self, inputs: list[Any]) -> list[torch.Tensor]:
        """As ``AOTIModelPackageLoader.run``."""
        self.num_runs += 1
        keys_values = inputs[4:]
        num_layers = len(keys_values) // 2
        with torch.no_grad():
            return list(self.graph(*inputs[:4], keys_values[:num_layers], keys_values[num_layers:]))


def session_of(config: Any, prefill: Any, decode: Any, dtype: str = "fp32") -> InductorSession:
    """The shipped session over graphs that were not compiled."""
    info = SessionInfo("inductor", MAX_SEQ_LENGTH, CHUNK, VOCAB_SIZE, dtype, 1)
    shape = cache_shape_of(config)
    zeros = [shape.zeros(SETTINGS.cache_length, TORCH_DTYPES[dtype]) for _ in range(2)]
    return InductorSession(info, Traced(prefill), Traced(decode), [*zeros[0], *zeros[1]])


def patched_session(plain: Any, dtype: str = "fp32") -> InductorSession:
    """The same without tracing: patched modules called as they are."""
    graphs = []
    operators = row_operators(kernels_suffix(choose_instruction_set(SETTINGS.instruction_set)))
    for form in ("chunk", "row"):
        model = copy.deepcopy(plain)
        freeze_rotary(model, MAX_SEQ_LENGTH)
        graphs.append(Graph(patch_model(model, form, operators), MAX_SEQ_LENGTH - 1))
    return session_of(plain.config, graphs[0], graphs[1], dtype)


def forced_logits(session: InductorSession, ids: list[int]) -> torch.Tensor:
    """Logits after a part of the ids as a prompt, and after each further id, [steps, V]."""
    steps = [session.prefill(ids[:FORCED_FROM], want_logits=True)]
    steps += [session.decode(ids[at], at, want_logits=True) for at in range(FORCED_FROM, len(ids))]
    return torch.cat([step.logits_1V for step in steps if step.logits_1V is not None])


@by_row
def test_the_exported_graphs_have_the_greedy_tokens_of_generate(
    row: Row, assert_same_greedy_tokens: Callable[..., int]
) -> None:
    """Prefill of one and of several chunks with and without a rest, then decode past the window."""
    plain = row.model()
    programs = [export_graph(copy.deepcopy(plain), g, SETTINGS) for g in ("prefill", "decode")]
    for program in programs:
        assert not program.graph_signature.buffers_to_mutate
    session = session_of(plain.config, programs[0].module(), programs[1].module())
    assert assert_same_greedy_tokens(session, plain, prompts(), num_tokens=NUM_TOKENS) == 0
    ids = prompts()[-1]
    wanted = plain(torch.tensor([ids])).logits[0, FORCED_FROM - 1 :]
    torch.testing.assert_close(forced_logits(session, ids), wanted, rtol=1e-4, atol=1e-4)


@by_row
def test_bf16_logits_are_no_farther_from_fp32_than_plain_bf16(row: Row) -> None:
    """Same bf16 weights in all three; after the prompt and after forced tokens past the window."""
    rounded = row.model(torch.bfloat16)
    exact = copy.deepcopy(rounded).float()
    ids = prompts()[-1]
    wanted = exact(torch.tensor([ids])).logits[0, FORCED_FROM - 1 :]
    plain = rounded(torch.tensor([ids])).logits[0, FORCED_FROM - 1 :].float()
    found = forced_logits(patched_session(rounded, "bf16"), ids)
    distances = [float((logits - wanted).abs().mean() / wanted.std()) for logits in (found, plain)]
    print(f"{row}: {distances[0]:.4f} from fp32, plain bf16 {distances[1]:.4f}")  # noqa: T201
    assert 0 < distances[0] <= distances[1]


@by_row
def test_decode_may_attend_to_more_positions_than_a_token_sees(row: Row) -> None:
    """As on a GPU, in buckets; a family of which that is not true is refused there."""
    plain = row.model()
    graphs = []
    for form in ("chunk", "row"):
        model = copy.deepcopy(plain)
        freeze_rotary(model, MAX_SEQ_LENGTH)
        graphs.append(Graph(patch_model(model, form), MAX_SEQ_LENGTH - 1))
    session = session_of(plain.config, *graphs)
    session._attended = partial(bucket_of, most=SETTINGS.cache_length - 1, least=8)
    session._decode_graph = ReplayedGraph(
        session._decode_graph, torch.device("cpu"), lambda call: call
    )
    # What an earlier row left behind must not count either.
    session.prefill([7] * (MAX_SEQ_LENGTH - 1))
    ids = prompts()[-1]
    wanted = plain(torch.tensor([ids])).logits[0, FORCED_FROM - 1 :]
    found = forced_logits(session, ids)
    same = torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert same == (row.family not in NO_BUCKETS)
    assert set(session._decode_graph._replays) == {24, 32}


@pytest.mark.parametrize("family", [*sorted(NO_BUCKETS), "mistral", "gpt2"])
def test_a_model_that_counts_the_attended_positions_is_refused_on_a_gpu(family: str) -> None:
    """The check that ``compile --device cuda`` makes, on the exported graph."""
    plain = next(row for row in ROWS if row.family == family).model()
    program = export_graph(plain, "decode", SETTINGS_WITHOUT_KERNELS)
    if family not in NO_BUCKETS:
        check_buckets(program, SETTINGS.cache_length - 1)
        return
    with pytest.raises(ArtifactError, match="--device cpu"):
        check_buckets(program, SETTINGS.cache_length - 1)


@pytest.mark.parametrize("graph", ["prefill", "decode"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "phi3", "opt"])
def test_a_graph_for_another_device_computes_nothing_on_this_one(family: str, graph: str) -> None:
    """Torch's meta device stands for a GPU: every number of the graph is there."""
    plain = next(row for row in ROWS if row.family == family).model()
    program = export_graph(plain, graph, replace(SETTINGS, device="meta"))
    tensors = [
        value
        for node in program.graph.nodes
        for value in torch.utils._pytree.tree_leaves(node.meta.get("val"))
        if isinstance(value, torch.Tensor)
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert not any("rdu_batch" in str(node.target) for node in program.graph.nodes)


def test_a_graph_that_computes_on_two_devices_is_refused() -> None:
    """By the operator's name."""
    plain = next(row for row in ROWS if row.family == "llama").model()
    program = export_graph(plain, "decode", SETTINGS)
    with pytest.raises(ArtifactError, match=r"on cpu, in a graph for cuda"):
        _check_devices(program, "cuda")


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_chunks_kept_from_the_prompt_before_are_bit_for_bit_those_of_a_fresh_row(
    family: str,
) -> None:
    """A window looks back over the border of what was kept; positions behind are written anew."""
    plain = next(row for row in ROWS if row.family == family).model()
    kept, fresh = patched_session(plain), patched_session(plain)
    shared, rest = prompts()[-1][: 2 * CHUNK], [7, 8, 9, 10, 11]
    kept.prefill([*shared, 5, 6, 4])
    for position in range(2 * CHUNK + 3, 2 * CHUNK + 9):
        kept.decode(3, position)
    found, wanted = (
        session.prefill([*shared, *rest], want_logits=True) for session in (kept, fresh)
    )
    assert kept._prefill_graph.num_runs == 4
    assert fresh._prefill_graph.num_runs == 3
    num_positions = 2 * CHUNK + len(rest)
    for one, other in zip(kept._keys_values, fresh._keys_values, strict=True):
        assert one[:, :, :num_positions].equal(other[:, :, :num_positions])
    for position in range(num_positions, num_positions + WINDOW + 2):
        assert found.logits_1V is not None
        assert wanted.logits_1V is not None
        assert found.logits_1V.equal(wanted.logits_1V)
        found, wanted = (
            session.decode(position, position, want_logits=True) for session in (kept, fresh)
        )


@pytest.mark.slow
@pytest.mark.all_only
@pytest.mark.parametrize("row", COMPILED, ids=str)
def test_the_compiled_session_has_the_greedy_tokens_of_generate(
    row: Row,
    tmp_path: Path,
    save_tokenizer: Callable[..., None],
    compiled_from: Callable[..., LocalArtifact],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """From a folder of safetensors, through the verb's own way: load, export, compile, compare."""
    plain = row.model()
    plain.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    local = compiled_from(
        tmp_path, dtype="fp32", max_seq_length=MAX_SEQ_LENGTH, prefill_chunk=CHUNK
    )
    assert local.artifact.model_family == row.family
    session = InductorSession.open(local, threads=1)
    assert assert_same_greedy_tokens(session, plain, prompts(), num_tokens=NUM_TOKENS) == 0
    session.close()


def test_every_listed_family_is_run(request: pytest.FixtureRequest) -> None:
    """The table is the list, and with all tests asked for each has an item for each of them."""
    assert {row.family for row in ROWS} == {row.family for row in COMPILED} == set(FAMILIES)
    assert len({str(row) for row in ROWS}) == len(ROWS)
    items = [item for item in request.session.items if item.path == request.path]
    assert not any(item.get_closest_marker(mark) for item in items for mark in ("skip", "skipif"))
    found: dict[str, set[str]] = {}
    for item in items:
        row = getattr(item, "callspec", None) and item.callspec.params.get("row")
        if row is not None:
            found.setdefault(item.function.__name__, set()).add(row.family)
    is_short = request.config.option.markexpr == "not all_only"
    for test, families in found.items():
        wanted = IN_SHORT if is_short else set(FAMILIES)
        assert families == wanted, f"{test} is not run for each family"
