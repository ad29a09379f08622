"""Sessions with a key/value cache over the stand-in for SambaFlow, each in its own process."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rdu_batch.errors import ArtifactError, RowError
from rdu_batch.sessions.artifact_store import fetch_artifact, folder_entries
from rdu_batch.sessions.samba.pef import PefNote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

pytestmark = pytest.mark.slow
#: Static lengths of the prefill graphs; the last is that of the cache.
LENGTHS = (8, 16, 48)
VOCAB_SIZE = 448
FLOAT32_BYTES = 4
#: What ``artifact`` is compiled to.
GRAPHS = "samba_cached"


def graphs_in_pef(local: LocalArtifact) -> dict[str, Any]:
    """What the stand-in's PEF says of its graphs."""
    pef = json.loads(local.path(PefNote.read(local).pef).read_bytes())
    graphs: dict[str, Any] = json.loads(pef["body"])["graphs"]
    return graphs


def test_greedy_tokens_are_those_of_a_plain_model_with_the_exact_gelu(
    session: Any,
    exact_gpt2: Any,
    prompt_of: Callable[[int], list[int]],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """Prompts about each static length, long after short and short after long, to the last one."""
    for length in (47, 1, 7, 17, 8, 9, 15, 46, 16, 2):
        num_tokens = min(48 - length + 1, 14) if length < 40 else 48 - length + 1
        prompts = [prompt_of(length)]
        assert assert_same_greedy_tokens(session, exact_gpt2, prompts, num_tokens) == 0
    assert assert_same_greedy_tokens(session, exact_gpt2, [prompt_of(3)], 46) == 0
    logits_1V = session.prefill(prompt_of(9), want_logits=True).logits_1V
    with torch.no_grad():
        wanted_1V = exact_gpt2(torch.tensor([prompt_of(9)])).logits[:, -1]
    torch.testing.assert_close(logits_1V, wanted_1V, atol=1e-4, rtol=1e-4)


@pytest.mark.all_only
def test_a_llama_has_the_tokens_of_a_plain_one(
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
    open_on_stand_in: Callable[..., Any],
    prompt_of: Callable[[int], list[int]],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """Grouped heads and rotary positions, behind the same session."""
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.from_pretrained(tiny_checkpoint("llama")).eval()
    session = open_on_stand_in(tiny_artifact("samba_cached", "llama"))
    for length in (47, 1, 8, 9, 16):
        num_tokens = min(48 - length + 1, 14)
        assert assert_same_greedy_tokens(session, plain, [prompt_of(length)], num_tokens) == 0


@pytest.mark.all_only
def test_a_token_costs_one_run_and_one_row_of_logits(
    session: Any,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    open_on_stand_in: Any,
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
) -> None:
    """(1, 1, V) of a cached graph, in prefill too; a single one gives (1, L, V) for each token."""
    single = open_on_stand_in(tiny_artifact("samba", "gpt2"))
    for each, num_rows in ((session, 1), (single, 48)):
        runs, size_bytes = each.traffic()
        greedy(each, prompt_of(9), 4)
        assert each.traffic() == (
            runs + 4,
            size_bytes + 4 * num_rows * VOCAB_SIZE * FLOAT32_BYTES,
        )


def test_weights_are_sent_once_and_only_logits_come_back(
    session: Any,
    events: Path,
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
) -> None:
    """The runtime's own start sends them; then a run and a read a token."""

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in events.read_text().splitlines()]

    assert [line["event"] for line in lines()[:3]] == [
        *("session", "weights_to_device", "init_multigraph_runtime"),
    ]
    num_before = len(lines())
    greedy(session, prompt_of(9), 3)
    new = lines()[num_before:]
    assert [line["event"] for line in new] == ["run", "to_host"] * 3
    assert {line["region"] for line in new[1::2]} == {"logits"}
    # ids (1, 16) and an index, then a token, the mask and an index.
    assert [line["bytes_to_device"] for line in new[::2]] == [4 * 17, 4 * 50, 4 * 50]


def test_graphs_have_the_published_names_and_share_their_regions(artifact: LocalArtifact) -> None:
    """Model Zoo's names; the cache of each graph lies where decode reads and writes it."""
    graphs = graphs_in_pef(artifact)
    cache = [
        ["past_key_0", "past_value_0"],
        ["past_key_1", "past_value_1"],
    ]
    outputs = ["logits", *cache[0], *cache[1]]
    for length in LENGTHS:
        graph = graphs.pop(f"model_nocache_{length}_fwd")
        ids = f"input_ids_consume_cache_False_static_seq_length_{length}"
        assert graph["inputs"] == [
            [ids, [1, length], "torch.int32"],
            ["last_token_index", [1, 1], "torch.int32"],
        ]
        assert graph["regions"] == [ids, "last_token_index", *outputs]
        assert not any(call.startswith("dropout") for call in graph["calls"])
    graph = graphs.pop("model_cache_48_fwd")
    assert not graphs
    ids = "input_ids_consume_cache_True_max_seq_length_48"
    assert graph["inputs"][0] == [ids, [1, 1], "torch.int32"]
    inputs = [ids, "last_token_index", "attention_mask", *cache[0], *cache[1]]
    assert sorted(graph["regions"]) == sorted([*inputs, *outputs])
    shapes = {name: (shape, dtype) for name, shape, dtype in graph["inputs"]}
    assert shapes["attention_mask"] == ([1, 48], "torch.int32")
    assert shapes["past_key_1"] == ([1, 4, 48, 16], "torch.float32")
    assert graph["outputs"][0][1:] == [[1, 1, VOCAB_SIZE], "torch.float32"]


def test_the_pef_says_what_was_compiled_into_it(artifact: LocalArtifact) -> None:
    """Model Zoo's keys; the session reads them, and the note says the same."""
    note = PefNote.read(artifact)
    body = json.loads(json.loads(artifact.path(note.pef).read_bytes())["body"])
    assert body["metadata"] == {"batch_size": 1, "max_pef_length": 48, "lengths": [8, 16, 48]}
    assert body["inference"]
    assert (note.graph, note.prefill_lengths, note.max_seq_length) == ("cached", LENGTHS, 48)


def test_info_says_that_there_are_no_chunks_and_which_lengths_there_are(session: Any) -> None:
    """A prompt goes whole through one graph."""
    info = session.info
    assert (info.kind, info.prefill_chunk, info.prefill_lengths) == ("samba", 1, LENGTHS)
    assert info.max_seq_length == 48


def test_logits_stay_when_the_next_run_overwrites_the_device_s_own(
    session: Any, prompt_of: Callable[[int], list[int]]
) -> None:
    """The first step as it was, and as it is after another one."""
    first = session.prefill(prompt_of(9), want_logits=True)
    session.decode(first.token_id, 9)
    assert session.again().logits_1V.equal(first.logits_1V)


def test_numbers_that_the_device_cannot_compute_end_the_row_alone(
    session: Any,
    prompt_of: Callable[[int], list[int]],
    greedy: Callable[..., list[int]],
    poison_id: int,
) -> None:
    """In a prefill and in a decode; the next row has the tokens that it always had."""
    wanted = greedy(session, prompt_of(9), 5)
    with pytest.raises(RowError) as caught:
        session.prefill([*prompt_of(9), poison_id])
    assert caught.value.reason == "numerical_error"
    session.prefill(prompt_of(9))
    with pytest.raises(RowError):
        session.decode(poison_id, 9)
    with pytest.raises(ValueError, match="prefill"):
        session.decode(1, 10)
    assert greedy(session, prompt_of(9), 5) == wanted


@pytest.mark.all_only
@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        ("samba_cached", "samba", r"holds no graphs with a cache, its note says \{'batch_size'"),
        ("samba", "samba_cached", r"holds graphs with a cache, of lengths \[8, 16, 48\]"),
    ],
)
def test_a_pef_of_another_form_than_its_note_says_is_refused(
    tmp_path: Path,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    open_on_stand_in: Callable[..., Any],
    own: str,
    other: str,
    said: str,
) -> None:
    """Exit 8: no other node would load it."""
    local = tiny_artifact(own, "gpt2")
    folder = tmp_path / "artifact"
    shutil.copytree(local.folder, folder)
    shutil.copy(tiny_artifact(other, "gpt2").folder / "artifact.pef", folder)
    (folder / "artifact.json").unlink()
    swapped = replace(local.artifact, files=folder_entries(folder))
    (folder / "artifact.json").write_bytes(swapped.to_bytes())
    with pytest.raises(ArtifactError, match=said):
        open_on_stand_in(fetch_artifact(str(folder)))
