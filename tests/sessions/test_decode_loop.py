"""The loop: how a generation ends, what its text is, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdu_batch.errors import RowError
from rdu_batch.job.prompt import Prompt
from rdu_batch.job.records import Reason
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import FinishReason, RowState, generate
from rdu_batch.sessions.fake import EOS_TOKEN_ID, FakeSession
from rdu_batch.sessions.stopping import StopFinder
from rdu_batch.sessions.tokenizer import ByteTokenizer, PromptTokenizer, open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.decode_loop import Generation

PROMPT_IDS = [7, 8, 9]


def bytes_of(text: str) -> list[int]:
    return list(text.encode())


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback", "bytes"])
def tokenizer(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    save_tokenizer: Callable[..., None],
    artifact_of: Callable[..., LocalArtifact],
) -> PromptTokenizer:
    """The tokenizers of GPT-2's and Llama 2's style, and the fake's."""
    if request.param == "bytes":
        return ByteTokenizer()
    folder: Path = tmp_path_factory.mktemp(request.param)
    save_tokenizer(folder, request.param)
    return open_tokenizer("inductor", artifact_of(folder))


@pytest.fixture(scope="module")
def say(scripted: Callable[..., Any]) -> Callable[..., Generation]:
    """Generates from a session that says given tokens, with the byte tokenizer unless told."""

    def generate_from(
        script: Sequence[int],
        *,
        tokenizer: PromptTokenizer | None = None,
        max_seq_length: int = 4096,
        prompt_ids: Sequence[int] = PROMPT_IDS,
        **generation: Any,
    ) -> Generation:
        session = scripted(script, max_seq_length=max_seq_length)
        spec = GenerationSpec(**{"max_new_tokens": len(script)} | generation)
        return generate(session, tokenizer or ByteTokenizer(), prompt_ids, spec, row_seed=0)

    return generate_from


def test_eos_ends_the_text_and_counts_as_a_token(say: Callable[..., Generation]) -> None:
    """It is computed, so it counts; it is no text, so it is not in it."""
    found = say([*bytes_of("hi"), EOS_TOKEN_ID, *bytes_of("more")])
    assert (found.text, found.finish_reason) == ("hi", FinishReason.EOS)
    assert found.num_generated_tokens == 3
    assert found.token_ids == (*b"hi", EOS_TOKEN_ID)
    assert found.num_prompt_tokens == 3


def test_an_answer_of_nothing_but_eos_is_an_empty_text(say: Callable[..., Generation]) -> None:
    """Not an error."""
    found = say([EOS_TOKEN_ID])
    assert (found.text, found.num_generated_tokens) == ("", 1)


def test_max_new_tokens_ends_by_length(say: Callable[..., Generation]) -> None:
    """After exactly so many tokens."""
    found = say(bytes_of("abcdef"), max_new_tokens=4)
    assert (found.text, found.finish_reason) == ("abcd", FinishReason.LENGTH)


@pytest.mark.parametrize(
    ("num_prompt", "text"), [(9, "a"), (8, "ab"), (4, "abcdef"), (1, "abcdefghi")]
)
def test_prompt_and_generation_together_fill_the_context(
    say: Callable[..., Generation], num_prompt: int, text: str
) -> None:
    """max_seq_length counts both."""
    found = say(
        bytes_of("abcdefghijkl"), prompt_ids=[1] * num_prompt, max_seq_length=10, max_new_tokens=99
    )
    assert (found.text, found.finish_reason) == (text, FinishReason.CONTEXT_FULL)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, FinishReason.LENGTH),
        ({"script": [*b"abc", EOS_TOKEN_ID]}, FinishReason.EOS),
        ({"stop": ["cd"]}, FinishReason.STOP),
        ({"max_new_tokens": 9}, FinishReason.CONTEXT_FULL),
        ({"script": [*b"abc", EOS_TOKEN_ID], "stop": ["d"]}, FinishReason.EOS),
        ({"stop": ["d"], "max_new_tokens": 9}, FinishReason.STOP),
        ({"stop_token_ids": [*b"d"], "max_new_tokens": 9}, FinishReason.STOP),
        (
            {"script": [*b"abc", EOS_TOKEN_ID], "stop_token_ids": [EOS_TOKEN_ID]},
            FinishReason.STOP,
        ),
    ],
)
def test_when_several_ends_meet_in_one_token_their_order_is_fixed(
    say: Callable[..., Generation], changes: dict[str, Any], wanted: FinishReason
) -> None:
    """stop, eos, length, context_full: here the fourth token also fills the context."""
    case = {"script": bytes_of("abcd"), "max_seq_length": 7, "max_new_tokens": 4} | changes
    assert say(**case).finish_reason is wanted


def test_the_loop_asks_exactly_what_it_needs(scripted: Callable[..., Any]) -> None:
    """One call a token, at positions that follow, and no logits when greedy."""
    session = scripted(bytes_of("abc"))
    generation = GenerationSpec(max_new_tokens=3, top_k=5, top_p=0.5)
    generate(session, ByteTokenizer(), PROMPT_IDS, generation, row_seed=0)
    assert session.calls == [
        ("prefill", (7, 8, 9), False),
        ("decode", ord("a"), 3, False),
        ("decode", ord("b"), 4, False),
    ]


def test_a_row_advances_one_token_at_a_time() -> None:
    """So that rows in flight can take turns, each with a session of its own."""
    tokenizer, generation = ByteTokenizer(), GenerationSpec(max_new_tokens=12)
    prompts = [b"first row:", b"second row:"]
    wanted = [generate(FakeSession(), tokenizer, one, generation, row_seed=0) for one in prompts]
    rows = [RowState(FakeSession(), tokenizer, one, generation, row_seed=0) for one in prompts]
    while any(row.finish_reason is None for row in rows):
        for row in rows:
            if row.finish_reason is None:
                row.advance()
    assert [row.result() for row in rows] == wanted
    with pytest.raises(ValueError, match="cannot advance"):
        rows[0].advance()


def test_a_row_in_flight_has_no_result_yet() -> None:
    """Asking is a programming error."""
    row = RowState(FakeSession(), ByteTokenizer(), b"x", GenerationSpec(), row_seed=0)
    row.advance()
    with pytest.raises(ValueError, match="in flight"):
        row.result()


def test_a_prompt_without_room_for_one_token_ends_the_row() -> None:
    """Found and wanted are counted; one token less fits."""
    session, generation = FakeSession(max_seq_length=10), GenerationSpec()
    assert generate(session, ByteTokenizer(), b"123456789", generation, row_seed=0).token_ids
    with pytest.raises(RowError) as caught:
        generate(session, ByteTokenizer(), b"1234567890", generation, row_seed=0)
    assert caught.value.reason == Reason.PROMPT_TOO_LONG
    assert caught.value.detail.startswith("the prompt has 10 tokens, wanted at most 9")


def test_a_prompt_of_no_tokens_ends_the_row() -> None:
    """There is nothing to continue."""
    with pytest.raises(RowError) as caught:
        generate(FakeSession(), ByteTokenizer(), [], GenerationSpec(), row_seed=0)
    assert caught.value.reason == Reason.EMPTY_PROMPT


def test_a_token_that_the_model_does_not_have_ends_the_row_not_the_worker() -> None:
    """Some tokenizers have added tokens beyond the model's table."""
    with pytest.raises(RowError, match="token id 300, but the model has 257"):
        generate(FakeSession(), ByteTokenizer(), [1, 300], GenerationSpec(), row_seed=0)


@pytest.mark.parametrize(
    ("script", "stop", "text", "num_tokens"),
    [
        ("one\n\ntwo", ["\n\n"], "one", 5),
        ("one END two", ["END", "NEVER"], "one ", 7),
        ("xENDy", ["END", "ND"], "x", 4),
        ("aab", ["ab", "aab"], "", 3),
        ("END", ["END"], "", 3),
        ("日本語。x", ["。"], "日本語", 12),
    ],
)
def test_a_stop_string_spans_tokens_and_is_cut_off(
    say: Callable[..., Generation], script: str, stop: list[str], text: str, num_tokens: int
) -> None:
    """Generation ends with the token that completes it."""
    found = say(bytes_of(script), stop=stop)
    assert (found.text, found.finish_reason) == (text, FinishReason.STOP)
    assert found.num_generated_tokens == num_tokens


def test_a_stop_string_inside_one_token_is_found(
    say: Callable[..., Generation], tokenizer_artifact: Callable[..., LocalArtifact]
) -> None:
    """The rest of that token is cut off with it."""
    tokenizer = open_tokenizer("inductor", tokenizer_artifact())
    ids = tokenizer.encode(Prompt("the quick brown", None), date=None)[1:]
    pieces = [tokenizer.decode([one]) for one in ids]
    assert " quick" in pieces
    found = say(ids, tokenizer=tokenizer, stop=["ic"])
    assert (found.text, found.finish_reason) == ("the qu", FinishReason.STOP)
    assert found.num_generated_tokens == pieces.index(" quick") + 1


def test_text_before_the_prompt_ended_does_not_stop_a_generation(
    say: Callable[..., Generation],
) -> None:
    """Only what is generated counts."""
    found = say(bytes_of("ab"), prompt_ids=bytes_of("x END x"), stop=["END"])
    assert found.finish_reason is FinishReason.LENGTH


def naive_end(
    ids: Sequence[int], stop: Sequence[str], tokenizer: PromptTokenizer
) -> tuple[int, str] | None:
    """Decode everything after each token: slow, and plainly right."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        cuts = [text.index(one) for one in stop if one in text]
        if cuts:
            return count, text[: min(cuts)]
    return None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_stop_strings_are_found_where_decoding_everything_finds_them(
    say: Callable[..., Generation], tokenizer: PromptTokenizer, data: st.DataObject
) -> None:
    """Whole characters of any length, any cuts into tokens, any stop strings."""
    alphabet = st.sampled_from("ab. the\n日本你é\U0001f600")
    written = data.draw(st.text(alphabet, min_size=1, max_size=60))
    stop = data.draw(st.lists(st.text(alphabet, min_size=1, max_size=4), min_size=1, max_size=3))
    ids = tokenizer.encode(Prompt(written, None), date=None)
    found = say(ids, tokenizer=tokenizer, stop=sorted(set(stop)))
    end = naive_end(ids, stop, tokenizer)
    if end is None:
        assert found.finish_reason is FinishReason.LENGTH
        assert found.text == tokenizer.decode(ids)
    else:
        assert found.finish_reason is FinishReason.STOP
        assert (found.num_generated_tokens, found.text) == end


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(4, 250), min_size=1, max_size=40))
def test_tokens_that_are_no_text_at_all_never_leave_a_stop_string_in_the_text(
    say: Callable[..., Generation], tokenizer: PromptTokenizer, ids: list[int]
) -> None:
    """Broken bytes may hide a stop string for a while; the finished text is looked at whole."""
    found = say(ids, tokenizer=tokenizer, stop=["a", "\ufffd\ufffd", "é"])
    assert not any(one in found.text for one in ("a", "\ufffd\ufffd", "é"))
    assert (found.finish_reason is FinishReason.STOP) == (found.text != tokenizer.decode(ids)) or (
        tokenizer.decode(ids).endswith("\ufffd")
    )


def test_looking_for_stop_strings_costs_the_same_at_any_length_of_text() -> None:
    """Neither long texts nor texts of broken bytes are decoded again and again."""
    for token in (ord("x"), 0x80):
        decoded: list[int] = []

        def decode(ids: Sequence[int], decoded: list[int] = decoded) -> str:
            decoded.append(len(ids))
            return ByteTokenizer().decode(ids)

        finder = StopFinder(["STOP HERE"], decode)
        ids: list[int] = []
        for _ in range(1000):
            ids.append(token)
            assert not finder.ends(ids)
        assert max(decoded) <= len("STOP HERE") + 11
        assert len(decoded) <= 4 * len(ids)


@pytest.mark.parametrize("num_before", range(8, 14))
def test_a_stop_string_is_found_at_once_in_a_long_run_of_characters_of_many_bytes(
    say: Callable[..., Generation], tokenizer: PromptTokenizer, num_before: int
) -> None:
    """Some decoders read a run of byte tokens only from where a character begins."""
    written = "日本" * num_before + "\U0001f9a5。" + "本" * 9
    ids = tokenizer.encode(Prompt(written, None), date=None)
    stop = ["\U0001f9a5。"]
    found = say(ids, tokenizer=tokenizer, stop=stop)
    assert (found.num_generated_tokens, found.text) == naive_end(ids, stop, tokenizer)


@pytest.mark.parametrize("before", ["ab: 日本 ", "日本", ""])
@pytest.mark.parametrize("num_bytes", [1, 2, 3])
def test_a_text_cut_inside_a_character_ends_before_it(
    say: Callable[..., Generation], tokenizer: PromptTokenizer, num_bytes: int, before: str
) -> None:
    """At a limit there is no half a character; what stands before it is kept."""
    ids = tokenizer.encode(Prompt(f"{before}\U0001f9a5", None), date=None)
    # However many tokens the last character has: as many as leave a part of it.
    cut = ids[: len(ids) - num_bytes]
    while not tokenizer.decode(cut).endswith("\ufffd"):
        cut = ids[: len(cut) + 1]
    assert len(cut) < len(ids)
    found = say(cut, tokenizer=tokenizer)
    assert (found.text, found.finish_reason) == (before, FinishReason.LENGTH)
    assert found.num_generated_tokens == len(cut)


def test_a_stop_token_ends_the_text_and_is_not_in_it(say: Callable[..., Generation]) -> None:
    """It counts as a generated token, as eos does; its own text may be anything."""
    found = say(bytes_of("ab.c"), stop_token_ids=[ord("."), ord("c")], stop=["b."])
    assert (found.text, found.finish_reason) == ("ab", FinishReason.STOP)
    assert (found.token_ids, found.num_generated_tokens) == ((*b"ab.",), 3)
    found = say(bytes_of(".c"), stop_token_ids=[ord(".")])
    assert (found.text, found.num_generated_tokens) == ("", 1)
    found = say(bytes_of("xabc"), stop_token_ids=[ord("c")], stop=["ab"])
    assert (found.text, found.num_generated_tokens) == ("x", 3)


@pytest.mark.parametrize("num_bytes", [1, 2, 3])
def test_a_stop_token_inside_a_character_leaves_no_half_of_it(
    say: Callable[..., Generation], tokenizer: PromptTokenizer, num_bytes: int
) -> None:
    """The model did not choose to end there."""
    ids = tokenizer.encode(Prompt("ab: 日本 \U0001f9a5", None), date=None)
    at = len(ids) - num_bytes
    while not tokenizer.decode(ids[:at]).endswith("\ufffd"):
        at += 1
    found = say([*ids[:at], 7], tokenizer=tokenizer, stop_token_ids=[7])
    assert (found.text, found.finish_reason) == ("ab: 日本 ", FinishReason.STOP)


def num_common_chars(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_stop_string_counts_only_behind_the_text_of_min_new_tokens(
    tokenizer: PromptTokenizer, data: st.DataObject
) -> None:
    """Whole characters of any length, any cuts into tokens, any stop strings."""
    alphabet = st.sampled_from("ab. the\n日本你é\U0001f600")
    written = data.draw(st.text(alphabet, min_size=1, max_size=60))
    stop = data.draw(st.lists(st.text(alphabet, min_size=1, max_size=4), min_size=1, max_size=3))
    ids = tokenizer.encode(Prompt(written, None), date=None)
    least = data.draw(st.integers(0, len(ids)))
    whole = tokenizer.decode(ids)
    # The last character may be there in part, and a decoder may give up on a whole run of them.
    firsts = [tokenizer.decode(ids[: max(0, least - num_partial)]) for num_partial in range(4)]
    free = max(num_common_chars(first, whole) for first in firsts)
    finder = StopFinder(stop, tokenizer.decode, min_new_tokens=least)
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        ends = {
            start + len(one): start
            for one in stop
            for start in range(len(text))
            if text.startswith(one, start)
        }
        starts = [start for end, start in ends.items() if end > free and count > least]
        assert finder.ends(ids[:count]) == bool(starts)
        if starts:
            assert finder.cut(text, ids[:count]) is not None
            break


def test_a_stop_string_that_ends_within_min_new_tokens_stays_in_the_text() -> None:
    """One that only begins there counts."""
    decode = ByteTokenizer().decode
    for least, text in ((0, "a"), (1, "a"), (2, "a"), (3, "a.-b"), (4, "a.-b"), (7, None)):
        finder = StopFinder([".-"], decode, min_new_tokens=least)
        ids = bytes_of("a.-b.-c")
        end = next((count for count in range(1, 8) if finder.ends(ids[:count])), None)
        cut = finder.cut(decode(ids[:end]), ids[:end])
        assert cut == text
        assert end == {"a": 3, "a.-b": 6, None: None}[text]


def test_broken_bytes_that_the_model_chose_to_end_on_stay(say: Callable[..., Generation]) -> None:
    """Only a limit cuts a character; everything else is what the model said."""
    assert say([*b"ab", 0xE6, 0x97, EOS_TOKEN_ID]).text == "ab\ufffd"
    assert say([0x80] * 6).text == "\ufffd" * 6
    assert say([0x80, *b"ab"]).text == "\ufffdab"
